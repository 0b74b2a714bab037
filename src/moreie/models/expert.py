"""An expert: one view of the evidence and one task model. Saved as safetensors and JSON."""

from __future__ import annotations

import hashlib
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from moreie.encoders.adapters import AdapterConfig, fill
from moreie.encoders.batches import Batch, fast_batches, length_batches, read_together
from moreie.encoders.merging import Reading
from moreie.encoders.places import located, relative_name
from moreie.encoders.precision import autocast
from moreie.encoders.text import ADAPTER_FILE, TextEncoder, batch_tensors
from moreie.errors import CheckpointError
from moreie.models.assembly import Assembled, View
from moreie.models.span_scores import SpanHead
from moreie.schema import Evidence, Post

if TYPE_CHECKING:
    from moreie.encoders.images import ImageEncoder

R = TypeVar("R")
E_ = TypeVar("E_", bound="Expert")
CONFIG_FILE, HEAD_FILE, ENCODER_FOLDER = "expert.json", "head.safetensors", "encoder"


class ExpertSpec(BaseModel):
    """What an expert is, as kept in `expert.json`.

    `encoder` is a hub id or a path relative to the expert's folder. With an `adapter` the encoder is a frozen trunk
    that other experts may share; without one it is this expert's own, fine-tuned and saved in its folder.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    task: Literal["ner", "re"]
    name: str
    labels: tuple[str, ...]
    view: View
    encoder: str
    encoder_fingerprint: str | None = None
    adapter: AdapterConfig | None = None
    spans: SpanHead | None = None
    """NER: scores whole spans instead of words."""
    format: Literal[1] = 1


class EncoderPool:
    """Encoders already loaded, so that experts over the same trunk, and gates that read pictures, hold one once."""

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)
        self._loaded: dict[str, TextEncoder] = {}
        self._image_encoders: dict[str, ImageEncoder] = {}

    def get(self, name_or_path: str | Path) -> TextEncoder:
        key = _place(name_or_path)
        if key not in self._loaded:
            self._loaded[key] = TextEncoder.from_pretrained(name_or_path).to(self.device)
        return self._loaded[key]

    def image_encoder(self, name_or_path: str | Path) -> ImageEncoder:
        from moreie.encoders.images import ImageEncoder

        key = _place(name_or_path)
        if key not in self._image_encoders:
            self._image_encoders[key] = ImageEncoder.from_pretrained(name_or_path, device=self.device)
        return self._image_encoders[key]


def _place(name_or_path: str | Path) -> str:
    return os.path.realpath(name_or_path) if Path(name_or_path).is_dir() else str(name_or_path)


class Expert(nn.Module, ABC):
    """Base of the two kinds of experts: encoder states at anchor positions, and a head over them."""

    def __init__(self, spec: ExpertSpec, encoder: TextEncoder):
        super().__init__()
        self.spec = spec
        self.encoder = encoder
        self.adapter_name = f"{spec.task}-{spec.name}".replace(".", "_")

    def use(self) -> None:
        """Make the expert's adapter, if it has one, the encoder's active one."""
        if self.spec.adapter:
            self.encoder.use_adapter(self.adapter_name)

    def states(
        self, input_ids: Tensor, attention_mask: Tensor, anchors: Tensor, positions: Tensor | None = None
    ) -> Tensor:
        """Encoder states [B, A, H] in float32 at the anchor positions [B, A] of sub-token ids [B, S].

        `attention_mask` and `positions`: see `TextEncoder.forward`.
        """
        self.use()
        return self.encoder.states_at(input_ids, attention_mask, anchors, positions).float()

    @abstractmethod
    def assemble(self, cases: Sequence[Any], evidence: Sequence[Sequence[Evidence]]) -> list[Assembled]:
        """Encoder inputs of the task's cases (posts, or post-head-tail triples) with one row of evidence each."""

    @abstractmethod
    def post_of(self, case: Any) -> Post:
        """The post that a case is about."""

    def evaluating(self: E_) -> E_:
        """As `eval`, on the encoder's device; the encoder, there and in evaluation already, is not walked through."""
        self.training = False
        for part in self._own_parts().values():
            part.to(self.encoder.device).eval()
        return self

    def _own_parts(self) -> dict[str, nn.Module]:
        return {name: part for name, part in self.named_children() if part is not self.encoder}

    def head_state(self) -> dict[str, Tensor]:
        """The weights that are the expert's own beside its encoder or adapter, the very tensors."""
        parts = self._own_parts()
        return {f"{name}.{key}": weight for name, part in parts.items() for key, weight in part.state_dict().items()}

    @abstractmethod
    def posteriors(self, outputs: Mapping[str, Tensor], lengths: Tensor, temperature: float = 1.0) -> Tensor:
        """Log-distributions [R, L] of a forward pass, one for each word (NER) or pair (RE); differentiable."""

    @abstractmethod
    def saying(self, inputs: Sequence[Assembled], *, tokens_per_batch: int | None = None) -> list[Batch[Tensor]]:
        """Batches of similar length whose answers are one log-distribution per input, on the processor in float32.

        `tokens_per_batch`: None for what is fast on the device.
        """

    def log_probabilities(self, inputs: Sequence[Assembled], *, tokens_per_batch: int | None = None) -> list[Tensor]:
        """What `saying` makes of the inputs, in their order."""
        (said,) = read_together([self.saying(inputs, tokens_per_batch=tokens_per_batch)], self.encoder.device)
        return said

    def collate(self, inputs: Sequence[Assembled]) -> dict[str, Tensor]:
        """input_ids, attention_mask [B, S], anchors [B, A] and lengths [B] (real anchors), on the processor."""
        ids, mask = batch_tensors([x.input_ids for x in inputs], self.encoder.tokenizer.pad_token_id or 0)
        anchors, _ = batch_tensors([x.anchors for x in inputs], 0)
        lengths = torch.tensor([len(x.anchors) for x in inputs])
        return {"input_ids": ids, "attention_mask": mask, "anchors": anchors, "lengths": lengths}

    def batches(
        self,
        inputs: Sequence[Assembled],
        tokens_per_batch: int | None,
        answers: Callable[[Tensor, Tensor], Sequence[R]],
    ) -> list[Batch[R]]:
        """The inputs in batches, to be read side by side; `answers` makes of the states [B, A, H] and lengths [B] of
        one an answer for each of its inputs.

        `tokens_per_batch`: None for what is fast on the device.
        """
        if self.training or self.encoder.training:
            self.eval()
        lengths = [len(x.input_ids) for x in inputs]
        device = self.encoder.device
        cut = list(length_batches(lengths, tokens_per_batch)) if tokens_per_batch else fast_batches(lengths, device)
        reading = Reading(self.encoder, self.adapter_name if self.spec.adapter else None, sum(lengths), len(cut))

        @torch.no_grad()
        def read(places: list[int]) -> Sequence[R]:
            batch = {k: v.to(device) for k, v in self.collate([inputs[i] for i in places]).items()}
            real = batch.pop("lengths")
            with reading.batch(), autocast(device):
                states = self.encoder.states_at(**batch, anchor_counts=real).float()
            return answers(states, real)

        return [Batch(places, partial(read, places)) for places in cut]

    def save(self, folder: Path) -> None:
        """Write config, head, and the adapter or the encoder."""
        folder.mkdir(parents=True, exist_ok=True)
        config = self.spec
        if config.adapter:
            self.encoder.save_adapter(self.adapter_name, folder)
            encoder = relative_name(config.encoder, folder)
        else:
            self.encoder.save(folder / ENCODER_FOLDER)
            self.encoder.__dict__.pop("fingerprint", None)  # fine-tuning has changed the weights it was made of
            encoder = ENCODER_FOLDER
        config = config.model_copy(update={"encoder": encoder, "encoder_fingerprint": self.encoder.fingerprint})
        head = {k: v.detach().cpu().float().contiguous() for k, v in self.head_state().items()}
        save_file(head, folder / HEAD_FILE, metadata={"format": "pt"})
        # Written last: a folder with a config is complete.
        (folder / CONFIG_FILE).write_text(config.model_dump_json(indent=2) + "\n")


def divergence(teacher: Tensor, student: Tensor) -> Tensor:
    """Mean over rows of KL(p ‖ q) in nats, of log-distributions p and q [R, L]."""
    return (teacher.exp() * (teacher - student)).sum(1).mean()


def read_config(folder: Path) -> ExpertSpec:
    """The config of a saved expert, its encoder path made absolute.

    Raises:
        CheckpointError: absent, or not a config this version reads.
    """
    path = folder / CONFIG_FILE
    try:
        config = ExpertSpec.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        raise CheckpointError(f"{folder}: no {CONFIG_FILE}, so no expert was saved here completely") from None
    except ValidationError as problem:
        raise CheckpointError(f"{path}: {_first(problem)}") from problem
    return config.model_copy(update={"encoder": located(config.encoder, folder)})


def load_expert(kind: type[E_], folder: Path, pool: EncoderPool) -> E_:
    """Load what `Expert.save` wrote.

    Raises:
        CheckpointError: the folder is incomplete, or its encoder is not the one the expert was trained on.
    """
    config = read_config(folder)
    encoder = pool.get(config.encoder)
    if config.encoder_fingerprint and encoder.fingerprint != config.encoder_fingerprint:
        raise CheckpointError(
            f"{folder}: trained on encoder {config.encoder_fingerprint}, but {config.encoder} is "
            f"{encoder.fingerprint}; put the original encoder back or train the expert again"
        )
    expert = kind(config, encoder)
    if config.adapter:
        encoder.add_empty_adapter(expert.adapter_name, config.adapter)
    load_weights(expert, folder)
    return expert.evaluating()


def load_weights(expert: Expert, folder: Path) -> None:
    """Fill an expert's head and adapter (which must be there already) from a folder that `Expert.save` wrote.

    Raises:
        CheckpointError: the folder is incomplete, or its weights do not fit.
    """
    try:
        head = load_file(folder / HEAD_FILE)
        if expert.spec.adapter:
            expert.encoder.load_adapter_state(expert.adapter_name, load_file(folder / ADAPTER_FILE))
    except (FileNotFoundError, SafetensorError) as problem:
        raise CheckpointError(f"{folder}: incomplete or damaged expert ({problem})") from problem
    if odd := fill(expert.head_state(), head):
        raise CheckpointError(f"{folder / HEAD_FILE}: does not fit the model ({odd[0]})")


def weights_fingerprint(folder: Path) -> str:
    """Hash of a saved expert's weights: two of one fingerprint say the same, wherever they lie.

    Raises:
        CheckpointError: the folder is incomplete.
    """
    config = read_config(folder)
    digest = hashlib.sha256(str(config.encoder_fingerprint).encode())
    for name in (HEAD_FILE, ADAPTER_FILE) if config.adapter else (HEAD_FILE,):
        try:
            digest.update((folder / name).read_bytes())
        except FileNotFoundError:
            raise CheckpointError(f"{folder}: no {name}, so no expert was saved here completely") from None
    return digest.hexdigest()[:16]


def _first(problem: ValidationError) -> str:
    error: Any = problem.errors()[0]
    return f"{'.'.join(map(str, error['loc']))}: {error['msg']}"
