"""Mixtures whose text encoders compute in 8 bits."""

from __future__ import annotations

import copy
import logging
from collections.abc import Sequence
from typing import Any

import torch

from moreie.encoders.attention import MEASURED
from moreie.encoders.int8 import Int8TextEncoder
from moreie.encoders.text import TextEncoder
from moreie.models.expert import Expert
from moreie.models.mixture import Mixture

log = logging.getLogger(__name__)


def in_int8(mixtures: Sequence[Mixture[Any]]) -> list[Mixture[Any]]:
    """The same mixtures over encoders in 8 bits; heads, CRFs and gates as they are. Experts go on sharing an encoder.

    Raises:
        EncoderError: an encoder is on a GPU, or there are no compiled kernels.
    """
    if torch.backends.cpu.get_cpu_capability() not in MEASURED:
        log.warning("8 bits were not measured on a processor like this, and may be slower here than float32")
    experts = [expert for mixture in mixtures for expert in mixture.experts]
    encoders: dict[int, TextEncoder] = {id(e.encoder): e.encoder for e in experts}
    small = {
        key: Int8TextEncoder(encoder, [e.adapter_name for e in experts if e.encoder is encoder and e.spec.adapter])
        for key, encoder in encoders.items()
    }
    results = []
    for mixture in mixtures:
        result = copy.copy(mixture)
        result.experts = tuple(_over(expert, small[id(expert.encoder)]) for expert in mixture.experts)
        results.append(result)
    return results


def _over(expert: Expert, encoder: TextEncoder) -> Expert:
    new = type(expert)(expert.spec, encoder)
    new.load_state_dict(expert.head_state(), strict=False)
    return new.eval()
