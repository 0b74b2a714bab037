"""Losses of more than one forward pass, and words left out at random."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from moreie.encoders.text import MARKERS, SEPARATOR, TextEncoder
from moreie.models.expert import Expert, divergence
from moreie.training.recipe import TwoView


def two_view_loss(
    expert: Expert, evidence: Mapping[str, Tensor], plain: Mapping[str, Tensor], lengths: Tensor, settings: TwoView
) -> Tensor:
    """α (L_evidence + L_plain) + (1 − α) τ² KL(p_evidence ‖ p_plain) of the forward passes of both views.

    p are marginals (NER) or class distributions (RE) at temperature τ; no gradient reaches p_evidence. τ² keeps the
    gradient's size the same at every temperature (Hinton et al., 2015).
    """
    with torch.no_grad():
        teacher = expert.posteriors(evidence, lengths, settings.temperature)
    student = expert.posteriors(plain, lengths, settings.temperature)
    agreement = settings.temperature**2 * divergence(teacher, student)
    return settings.alpha * (evidence["loss"] + plain["loss"]) + (1 - settings.alpha) * agreement


def r_drop_loss(
    expert: Expert, first: Mapping[str, Tensor], second: Mapping[str, Tensor], lengths: Tensor, weight: float
) -> Tensor:
    """L_1 + L_2 + w · (KL(p_1 ‖ p_2) + KL(p_2 ‖ p_1)) / 2 of two passes under different dropout (Wu et al., 2021)."""
    p, q = expert.posteriors(first, lengths), expert.posteriors(second, lengths)
    return first["loss"] + second["loss"] + weight * (divergence(p, q) + divergence(q, p)) / 2


def adversarial_perturbation(loss: Tensor, embeddings: Tensor, size: float) -> Tensor:
    """r = ε g / ‖g‖ of each example [B, S, H], ε = `size`, g the loss's gradient at its word embeddings (FGM: Miyato et
    al., ICLR 2017).

    The norm is that of an example's whole [S, H], whatever its length and its batch. The paper measures ε in embeddings
    scaled to unit variance; here it is measured in the encoder's own. Where the gradient is 0 so is r.
    """
    (gradient,) = torch.autograd.grad(loss, embeddings, retain_graph=True)
    gradient = gradient.float()
    # To a greatest entry of 1 first: the squares of small gradients underflow.
    greatest = gradient.abs().amax((1, 2), keepdim=True)
    gradient = gradient / greatest.clamp_min(torch.finfo(gradient.dtype).tiny)
    norm: Tensor = torch.linalg.vector_norm(gradient, dim=(1, 2), keepdim=True)
    return gradient * (size / norm.clamp_min(1))


def without_some_words(encoder: TextEncoder, input_ids: Tensor, share: float) -> Tensor:
    """Inputs [B, S] with a random `share` of the post's sub-tokens masked; evidence, markers and frame stay."""
    tokenizer = encoder.tokenizer
    mask = tokenizer.mask_token_id if tokenizer.mask_token_id is not None else tokenizer.unk_token_id
    (separator,) = encoder.marker_ids(SEPARATOR)
    fixed = torch.tensor([*tokenizer.all_special_ids, *encoder.marker_ids(*MARKERS)], device=input_ids.device)
    word = ~torch.isin(input_ids, fixed) & ((input_ids == separator).cumsum(1) == 0)
    # Drawn on the processor: the same words on every device.
    drawn = (torch.rand(input_ids.shape) < share).to(input_ids.device)
    return input_ids.masked_fill(word & drawn, mask)
