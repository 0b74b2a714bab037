"""Products of an ONNX graph whose inputs have a few large channels, made fit for 8 bits.

An input in 8 bits has one range for all of its channels. Transformers have channels that are many times as large as the
rest, which then get only a few of the 256 steps. Such a channel is divided before the product and its row of weights
multiplied by as much: the same product, but for the rounding (Xiao et al. 2023, SmoothQuant, here for outliers only).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

LARGE = 0.99  # the quantile of all channels' largest values above which a channel is too large
DIVIDED = (
    0.75  # the power of its excess that it is divided by: the weights beside its own have one range with them, too
)


def divide_outliers(graph: Any, samples: Sequence[dict[str, np.ndarray[Any, Any]]]) -> None:
    """Change `graph` (`onnx.ModelProto`) in place. `samples`: inputs, by name, that show which channels are large."""
    from onnx import helper, numpy_helper

    nodes, weights = graph.graph.node, {t.name: t for t in graph.graph.initializer}
    products: dict[str, list[Any]] = {}  # by their input
    for node in nodes:
        if node.op_type == "MatMul" and node.input[1] in weights:
            products.setdefault(node.input[0], []).append(node)
    for name, largest in _largest(graph, list(products), samples).items():
        excess = np.maximum(1, largest / np.quantile(largest, LARGE))
        divisors = (excess**DIVIDED).astype(np.float32)
        new = [numpy_helper.from_array(1 / divisors, f"{name}.scale")]
        for weight in sorted({node.input[1] for node in products[name]}):
            # Not in place: where layers share their weights, they do not share their inputs.
            rows = numpy_helper.to_array(weights[weight]) * divisors[:, None]
            new.append(numpy_helper.from_array(rows, f"{name}.{weight}"))
        graph.graph.initializer.extend(new)
        place = min(i for i, node in enumerate(nodes) if node.op_type == "MatMul" and node.input[0] == name)
        nodes.insert(place, helper.make_node("Mul", [name, f"{name}.scale"], [f"{name}.scaled"]))
        for node in products[name]:
            node.input[:] = [f"{name}.scaled", f"{name}.{node.input[1]}"]
    used = {name for node in nodes for name in node.input}
    for tensor in weights.values():
        if tensor.name not in used:
            graph.graph.initializer.remove(tensor)


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
