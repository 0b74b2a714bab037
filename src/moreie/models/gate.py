"""The gate: how much each expert counts (paper, §3.4) for a post, or for each of its words.

g(x) = softmax(W f(x) + b) over the experts that have something to say, where f(x) is, standardised, what
`gate_inputs` makes of the post, its evidence and the experts' answers. An expert whose evidence is missing gets weight
0. A hard gate is fitted as a soft one and then trusts the expert with the greatest weight alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from moreie.encoders.places import located, relative_name
from moreie.errors import CheckpointError, MoreieError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from moreie.encoders.images import ImageEncoder

GateInput = Literal["post", "image", "entropy", "evidence", "agreement"]
GateLevel = Literal["sequence", "token"]
GateChoice = Literal["soft", "hard"]
SPEC_FILE, WEIGHTS_FILE = "gate.json", "gate.safetensors"


class GateSpec(BaseModel):
    """What a gate reads: `inputs` with their sizes, and the experts it weighs, in order.

    `level`: one weight an expert and post, or an expert and word. `choice`: a mixture, or the best expert alone.
    `image_encoder`, of the input `image`: a hub id, or a folder (in `gate.json` relative to the gate's own).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    experts: tuple[str, ...]
    inputs: tuple[GateInput, ...]
    sizes: tuple[int, ...]
    level: GateLevel = "sequence"
    choice: GateChoice = "soft"
    image_encoder: str | None = None
    image_encoder_fingerprint: str | None = None


class Gate(nn.Module):
    """Linear gate over standardised features; M experts, F features in all."""

    mean: Tensor
    scale: Tensor

    def __init__(self, spec: GateSpec):
        super().__init__()
        if len(spec.inputs) != len(spec.sizes) or not spec.experts:
            raise MoreieError("a gate needs at least one expert, and one size per input")
        self.spec = spec
        features = sum(spec.sizes)
        self.linear = nn.Linear(features, len(spec.experts))
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("scale", torch.ones(features))

    def forward(self, features: Tensor, available: Tensor) -> Tensor:
        """Soft log-weights [R, M] for features [R, F] and availability [R, M] (bool, at least one true a row)."""
        scores = self.linear((features - self.mean) / self.scale)
        return torch.log_softmax(scores.masked_fill(~available, -torch.inf), dim=1)

    @torch.no_grad()
    def weigh(self, features: Tensor, available: Tensor) -> Tensor:
        """Log-weights [R, M] as the mixture uses them: soft or hard, as the spec says."""
        return chosen(self.spec.choice, self(features, available))

    def check_image_encoder(self, encoder: ImageEncoder | None) -> None:
        """See that pictures are embedded as they were when the gate was fitted.

        Raises:
            MoreieError: the gate reads pictures, and no encoder is given.
            CheckpointError: it is another encoder.
        """
        expected = self.spec.image_encoder_fingerprint
        if expected is None:
            return
        if encoder is None:
            raise MoreieError(f"the gate reads pictures: it needs the image encoder {self.spec.image_encoder}")
        if encoder.fingerprint != expected:
            raise CheckpointError(
                f"the gate was fitted on pictures embedded by image encoder {expected}, but {encoder.name} is "
                f"{encoder.fingerprint}; put the original encoder back, or fit the gate again with `moreie train`"
            )

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        save_file({k: v.contiguous() for k, v in self.state_dict().items()}, folder / WEIGHTS_FILE)
        encoder = self.spec.image_encoder
        spec = self.spec.model_copy(update={"image_encoder": encoder and relative_name(encoder, folder)})
        (folder / SPEC_FILE).write_text(spec.model_dump_json(indent=2) + "\n")

    @classmethod
    def load(cls, folder: Path) -> Gate:
        """Raises `CheckpointError` when the folder holds no complete gate."""
        try:
            spec = GateSpec.model_validate_json((folder / SPEC_FILE).read_bytes())
            encoder = spec.image_encoder
            gate = cls(spec.model_copy(update={"image_encoder": encoder and located(encoder, folder)}))
            gate.load_state_dict(load_file(folder / WEIGHTS_FILE))
        except (FileNotFoundError, ValidationError, SafetensorError, RuntimeError) as problem:
            raise CheckpointError(f"{folder}: no complete gate ({str(problem).splitlines()[0]})") from problem
        return gate.eval()


def chosen(choice: GateChoice, log_weights: Tensor) -> Tensor:
    """Log-weights [R, M] as they are, or hard: 0 for the greatest of a row and -inf for the others."""
    if choice == "soft":
        return log_weights
    best = log_weights.argmax(1, keepdim=True)
    return torch.full_like(log_weights, -torch.inf).scatter(1, best, 0.0)


def fit_gate(
    spec: GateSpec,
    features: Tensor,
    available: Tensor,
    negative_log_likelihood: Callable[[Tensor, Sequence[int]], Tensor],
    penalty: float,
    rows: Sequence[int] | None = None,
) -> Gate:
    """Fit by L-BFGS on all rows (or on `rows`): a convex-size problem, solved in seconds, deterministic.

    A row is a post or, at token level, a word. `negative_log_likelihood(log_weights [R, M], rows)` returns the mean
    loss of the mixture on those rows; `penalty` is the weight of the squared norm of W.
    """
    rows = list(range(len(features))) if rows is None else list(rows)
    gate = Gate(spec)
    own = features[rows]
    gate.mean, gate.scale = own.mean(0), own.std(0, unbiased=False).clamp_min(1e-6)
    # The features are many and alike in scale: dividing by their number keeps `penalty` comparable between gates.
    gate.scale = gate.scale * features.shape[1] ** 0.5
    optimiser = torch.optim.LBFGS(gate.parameters(), max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> float:
        optimiser.zero_grad()
        loss = negative_log_likelihood(gate(own, available[rows]), rows)
        loss = loss + penalty * gate.linear.weight.square().sum() / len(rows)
        loss.backward()  # type: ignore[no-untyped-call]
        return float(loss.detach())

    optimiser.step(closure)  # type: ignore[no-untyped-call]
    return gate.eval().requires_grad_(False)


def fold_numbers(groups: Sequence[str], folds: int) -> NDArray[np.int64]:
    """[R]: the fold of each row; rows of one group share a fold, groups are spread at random but always alike."""
    names = sorted(set(groups))
    order = np.random.default_rng(0).permutation(len(names))
    fold_of = {names[i]: position % folds for position, i in enumerate(order)}
    return np.array([fold_of[g] for g in groups], dtype=np.int64)


def cross_validated_log_weights(
    spec: GateSpec,
    features: Tensor,
    available: Tensor,
    negative_log_likelihood: Callable[[Tensor, Sequence[int]], Tensor],
    penalty: float,
    groups: Sequence[str],
    folds: int,
) -> Tensor:
    """Soft log-weights [R, M], each row from a gate fitted without that row's fold; rows of one group share a fold."""
    fold = fold_numbers(groups, folds)
    result = torch.zeros(len(features), len(spec.experts))
    for k in range(folds):
        inside, outside = np.flatnonzero(fold != k).tolist(), np.flatnonzero(fold == k).tolist()
        gate = fit_gate(spec, features, available, negative_log_likelihood, penalty, inside)
        with torch.no_grad():
            result[outside] = gate(features[outside], available[outside])
    return result
