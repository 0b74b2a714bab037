"""Text encoders in 8 bits, run by ONNX Runtime on a processor (extra `onnx`): faster, and not quite the same states.

Each adapter is folded into a graph of its own, whose products are then of int8: weights by output channel in 7 bits of
the 8 (so that no sum of two products overflows where the processor has no VNNI), the other side as it comes, by its
range, its outliers divided before (`outliers`). Embeddings stay as they are and are held once.
"""

from __future__ import annotations

import contextlib
import io
import logging
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from moreie.encoders.kept_graphs import graph_name, keep_graph, kept_graph
from moreie.encoders.merging import merged_weights
from moreie.encoders.outliers import without_outliers
from moreie.encoders.text import TextEncoder
from moreie.errors import EncoderError, MissingExtraError

# The adapter that each encoder (`id`) computes with in this context: batches of several are in work side by side.
_active: ContextVar[Mapping[int, str | None]] = ContextVar("active", default=MappingProxyType({}))


class Int8TextEncoder(TextEncoder):
    """A text encoder and some of its adapters in 8 bits; it reads, it neither trains nor is saved."""

    def __init__(self, encoder: TextEncoder, adapters: Iterable[str]):
        """In 8 bits what `encoder` computes: bare, and with each of `adapters`.

        Takes half a minute for six the first time; then they are on disk (`kept_graphs`).

        Raises:
            EncoderError: the encoder is on a GPU, or has no ONNX form.
            MissingExtraError: the extra `onnx` is not installed.
        """
        if encoder.device.type != "cpu":
            raise EncoderError(f"8-bit extraction is for processors; the encoder is on {encoder.device}")
        nn.Module.__init__(self)
        # All that is asked of a model behind `forward`: its configuration, its embeddings, its device.
        self.model: Any = _Embedding(encoder.model.get_input_embeddings(), encoder.model.config)
        self.tokenizer, self.name = encoder.tokenizer, encoder.name
        self._words, self._texts = encoder._words, encoder._texts
        self.fingerprint = f"{encoder.fingerprint}-int8"
        self.takes_positions = encoder.takes_positions
        self._adapted, self.blocks = {}, 0
        _check_extra()
        names = {adapter: graph_name(encoder, adapter) for adapter in (None, *adapters)}
        self._sessions: dict[str | None, Any] = {adapter: _kept_session(name) for adapter, name in names.items()}
        missing = [adapter for adapter, session in self._sessions.items() if session is None]
        for adapter, graph in _in_8_bits(encoder, missing):
            self._sessions[adapter] = _session(graph)
            keep_graph(names[adapter], graph)
        self.use_adapter(None)  # an encoder that is gone may have had this one's `id`

    def forward(self, input_ids: Tensor, attention_mask: Tensor, positions: Tensor | None = None) -> Tensor:
        every = torch.arange(input_ids.shape[1]).expand_as(input_ids)
        return self.states_at(input_ids, attention_mask, every, positions)

    def states_at(
        self, input_ids: Tensor, attention_mask: Tensor, anchors: Tensor, positions: Tensor | None = None
    ) -> Tensor:
        with torch.no_grad():
            embedded = self.model.get_input_embeddings()(input_ids)
        fed = {"embedded": embedded.numpy(), "mask": attention_mask.numpy(), "anchors": anchors.numpy()}
        if self.takes_positions:
            if positions is None:
                positions = torch.arange(input_ids.shape[1]).expand_as(input_ids)
            fed["positions"] = positions.numpy()
        return torch.from_numpy(self._sessions[_active.get().get(id(self))].run(None, fed)[0])

    def use_adapter(self, name: str | None) -> None:
        if name not in self._sessions:
            raise EncoderError(f"{self.name}: no adapter {name!r} in 8 bits")
        _active.set({**_active.get(), id(self): name})

    def _refuse(self, *_: Any, **__: Any) -> Any:
        """Raises `EncoderError`."""
        raise EncoderError(
            f"{self.name}: an encoder in 8 bits is neither trained nor saved; train or save the one that it was made of"
        )

    trunk_state = adapter_state = save = save_adapter = save_packed = _refuse
    add_adapter = load_adapter_state = _refuse


class _Embedding(nn.Module):
    """What `TextEncoder` asks of a model, and its sub-tokens' embeddings."""

    def __init__(self, embeddings: nn.Module, config: Any):
        super().__init__()
        self.embeddings, self.config = embeddings, config

    def get_input_embeddings(self) -> nn.Module:
        return self.embeddings


class _Layers(nn.Module):
    """States at some of the embedded sub-tokens: all of the encoder but the look-up."""

    def __init__(self, encoder: TextEncoder):
        super().__init__()
        self.encoder = encoder

    def forward(self, embedded: Tensor, mask: Tensor, anchors: Tensor, positions: Tensor | None = None) -> Tensor:
        return self.encoder.embedded_states_at(embedded, mask, anchors, positions)


def _check_extra() -> None:
    """Raises `MissingExtraError`."""
    if any(find_spec(name) is None for name in ("onnx", "onnxruntime", "onnxscript", "platformdirs")):
        raise MissingExtraError("onnx", "extraction in 8 bits")


def _kept_session(name: str) -> Any:
    """ONNX Runtime over a graph on disk; None where there is none."""
    graph = kept_graph(name)
    return None if graph is None else _session(graph)


def _in_8_bits(encoder: TextEncoder, adapters: Sequence[str | None]) -> Iterator[tuple[str | None, bytes]]:
    """The graphs of an encoder with each of some adapters (None: bare), serialised, products in int8."""
    if not adapters:
        return
    graph = _exported(encoder)
    initial, samples = _by_content(graph), _samples(encoder)
    for adapter in adapters:
        own = graph if adapter is None else _adapted(graph, initial, encoder, adapter)
        yield adapter, _quantised(without_outliers(own, samples))


def _exported(encoder: TextEncoder) -> Any:
    """The bare encoder's graph in float32 (`onnx.ModelProto`)."""
    encoder.eval().use_adapter(None)
    example = [
        torch.zeros(2, 7, encoder.embedding_size),
        torch.ones(2, 7, dtype=torch.long),
        torch.arange(3).repeat(2, 1),
    ]
    if encoder.takes_positions:
        example.append(torch.arange(7).repeat(2, 1))
    sizes = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
    try:
        with _quietly(), torch.no_grad():
            program = torch.onnx.export(
                _Layers(encoder).eval(),
                tuple(example),
                input_names=["embedded", "mask", "anchors", "positions"][: len(example)],
                output_names=["states"],
                dynamic_shapes=(sizes,) * len(example),
                dynamo=True,
                verbose=False,
            )
    except (torch.onnx.OnnxExporterError, RuntimeError) as problem:
        raise EncoderError(f"{encoder.name} cannot be written as ONNX: {str(problem).splitlines()[0]}") from problem
    return program.model_proto  # type: ignore[union-attr]


def _by_content(graph: Any) -> dict[bytes, Any]:
    """The graph's matrices by what they hold."""
    from onnx import numpy_helper

    return {numpy_helper.to_array(t).tobytes(): t for t in graph.graph.initializer if len(t.dims) == 2}


def _samples(encoder: TextEncoder) -> list[dict[str, Any]]:
    """The graph's inputs for texts of random sub-tokens: which channels are large depends little on what is read."""
    embeddings, tokenizer = encoder.model.get_input_embeddings(), encoder.tokenizer
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(encoder.model.config.vocab_size, (2, 16, 24), generator=generator)
    for place, special in ((0, tokenizer.cls_token_id), (-1, tokenizer.sep_token_id)):
        if special is not None:
            ids[..., place] = special
    every = torch.arange(ids.shape[-1]).repeat(ids.shape[1], 1).numpy()
    fixed = {"mask": np.ones_like(every), "anchors": every} | ({"positions": every} if encoder.takes_positions else {})
    with torch.no_grad():
        return [{"embedded": embeddings(batch).numpy(), **fixed} for batch in ids]


def _adapted(graph: Any, initial: dict[bytes, Any], encoder: TextEncoder, adapter: str) -> Any:
    """A copy of the graph with an adapter's weights; `initial` says where the bare ones are in it."""
    from onnx import ModelProto, numpy_helper

    layers = encoder.adapted_layers()
    used = _used(encoder)
    new = {}
    for name, weight in merged_weights(encoder, adapter).items():
        if name not in used:
            continue
        bare = layers[name].base_layer.weight.detach()
        for own, folded in ((bare.T, weight.T), (bare, weight)):
            if found := initial.get(np.ascontiguousarray(own.numpy()).tobytes()):
                new[found.name] = numpy_helper.from_array(np.ascontiguousarray(folded.numpy()), found.name)
                break
        else:
            raise EncoderError(f"{encoder.name}: the layer {name} is not found in its ONNX form")
    changed = ModelProto()
    changed.CopyFrom(graph)
    for tensor in changed.graph.initializer:
        if tensor.name in new:
            tensor.CopyFrom(new[tensor.name])
    return changed


def _used(encoder: TextEncoder) -> set[str]:
    """The adapted layers that the states depend on; a pooler's is none of them."""
    weights = {name: layer.base_layer.weight for name, layer in encoder.adapted_layers().items()}
    learns = {name: weight.requires_grad for name, weight in weights.items()}
    for weight in weights.values():
        weight.requires_grad_(True)
    with torch.enable_grad():
        states = encoder(torch.zeros(1, 3, dtype=torch.long), torch.ones(1, 3, dtype=torch.long))
        gradients = torch.autograd.grad(states.sum(), list(weights.values()), allow_unused=True)
    for name, weight in weights.items():
        weight.requires_grad_(learns[name])
    return {name for name, gradient in zip(weights, gradients, strict=True) if gradient is not None}


def _quantised(graph: Any) -> bytes:
    """The graph with its products in int8, serialised."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with tempfile.TemporaryDirectory() as folder, _quietly():
        path = Path(folder) / "encoder.onnx"
        quantize_dynamic(
            graph,
            path,
            op_types_to_quantize=["MatMul", "Gemm"],
            weight_type=QuantType.QInt8,
            per_channel=True,
            reduce_range=True,
        )
        return path.read_bytes()


def _session(graph: bytes) -> Any:
    """ONNX Runtime over a serialised graph, on as many threads as torch has."""
    from onnxruntime import InferenceSession, SessionOptions

    options = SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    # Batches run side by side: a thread that waits for work by spinning would take a core from another's.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return InferenceSession(graph, options, providers=["CPUExecutionProvider"])


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Without the exporter's and the quantiser's advice, which nobody here can follow; what fails raises."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.disable(before)
