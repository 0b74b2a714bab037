"""Products of an ONNX graph whose inputs have a few large channels, made fit for 8 bits.

An input in 8 bits has one range for all of its channels. Transformers have channels that are many times as large as the
rest, which then get only a few of the 256 steps. Such a channel is divided before the product and its row of weights
multiplied by as much: the same product, but for the rounding (Xiao et al. 2023, SmoothQuant, here for outliers only).
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from typing import Any

import numpy as np

LARGE = 0.99  # the quantile of all channels' largest values above which a channel is too large
DIVIDED = 0.75  # the power of its excess that it is divided by: its weights must not become outliers themselves


def without_outliers(graph: Any, samples: Sequence[dict[str, np.ndarray[Any, Any]]]) -> Any:
    """`graph` (`onnx.ModelProto`) with the large channels divided before each `MatMul` by a matrix that is fixed.

    `samples`: inputs of the graph, by name, that show which channels are large.
    """
    from onnx import ModelProto, numpy_helper

    matrices = {t.name: t for t in graph.graph.initializer if len(t.dims) == 2}
    products = [node for node in graph.graph.node if _is_product(node, matrices)]
    largest = _largest(graph, sorted({node.input[0] for node in products}), samples)
    new = {}  # initializers
    changed = ModelProto()
    changed.CopyFrom(graph)
    changed.graph.ClearField("node")
    changed.graph.ClearField("initializer")
    for node in graph.graph.node:
        inputs = node.input
        if _is_product(node, matrices):
            name, matrix = inputs
            # Not in place: where layers share their weights, they do not share their inputs.
            scale, scaled, rows = f"{name}.scale", f"{name}.scaled", f"{name}.{matrix}"
            inputs, divisors = [scaled, rows], _divisors(largest[name])
            if scale not in new:
                new[scale] = numpy_helper.from_array(1 / divisors, scale)
                changed.graph.node.add(op_type="Mul", input=[name, scale], output=[scaled])
            new[rows] = numpy_helper.from_array(numpy_helper.to_array(matrices[matrix]) * divisors[:, None], rows)
        own = changed.graph.node.add()
        own.CopyFrom(node)
        own.input[:] = inputs
    used = {name for node in changed.graph.node for name in node.input}
    changed.graph.initializer.extend(tensor for tensor in graph.graph.initializer if tensor.name in used)
    changed.graph.initializer.extend(new.values())
    return changed


def _is_product(node: Any, matrices: Container[str]) -> bool:
    return node.op_type == "MatMul" and node.input[1] in matrices


def _divisors(largest: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """By channel; `largest`: its largest absolute value."""
    limit = np.quantile(largest, LARGE)
    excess = np.maximum(largest, limit) / limit if limit else np.ones_like(largest)
    return (excess**DIVIDED).astype(np.float32)


def _largest(
    graph: Any, names: Sequence[str], samples: Sequence[dict[str, np.ndarray[Any, Any]]]
) -> dict[str, np.ndarray[Any, Any]]:
    """The largest absolute value of each channel of the values called `names`, over all samples."""
    from onnx import ModelProto, TensorProto, helper
    from onnxruntime import InferenceSession

    probe = ModelProto()
    probe.CopyFrom(graph)
    probe.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names)
    session = InferenceSession(probe.SerializeToString(), providers=["CPUExecutionProvider"])
    seen = [session.run(list(names), sample) for sample in samples]
    return {
        name: np.max([np.abs(values[i]).reshape(-1, values[i].shape[-1]).max(0) for values in seen], axis=0)
        for i, name in enumerate(names)
    }
