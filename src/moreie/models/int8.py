"""Mixtures whose text encoders compute in 8 bits."""

from __future__ import annotations

import copy
import logging
from collections.abc import Sequence
from typing import Any

from moreie.encoders.int8 import Int8TextEncoder
from moreie.encoders.precision import bf16_is_fast
from moreie.encoders.text import TextEncoder
from moreie.models.expert import Expert
from moreie.models.mixture import Mixture

log = logging.getLogger(__name__)


def in_int8(mixtures: Sequence[Mixture[Any]]) -> list[Mixture[Any]]:
    """The same mixtures over encoders in 8 bits; heads, CRFs and gates as they are. Experts go on sharing an encoder.

    Raises:
        EncoderError: an encoder has no ONNX form or is on a GPU.
        MissingExtraError: the extra `onnx` is not installed.
    """
    experts = [expert for mixture in mixtures for expert in mixture.experts]
    if any(bf16_is_fast(expert.encoder.device) for expert in experts):
        log.warning(
            "8 bits: this processor is fast in bfloat16, which extraction uses by itself and which was faster than "
            "8 bits where both were measured (docs/performance.md, int8 bfloat16)"
        )
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
