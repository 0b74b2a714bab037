"""Channels divided before a product: the same product, and a better one in 8 bits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from moreie.encoders.outliers import without_outliers

onnx = pytest.importorskip("onnx", reason="needs the extra onnx")
WIDE, LARGE = 200, 17


@pytest.fixture
def graph() -> onnx.ModelProto:
    """x·A·B and relu(x)·A: a matrix that two inputs share, and one alone."""
    generator = np.random.default_rng(0)
    matrices = {n: generator.normal(size=(WIDE, WIDE)).astype(np.float32) / WIDE**0.5 for n in "AB"}
    for matrix in matrices.values():
        matrix[LARGE] /= 10  # as in trained models: else the large channel would be all that the product says
    floats = onnx.TensorProto.FLOAT
    nodes = [
        onnx.helper.make_node("MatMul", ["x", "A"], ["one"], name="first"),
        onnx.helper.make_node("MatMul", ["one", "B"], ["left"], name="second"),
        onnx.helper.make_node("Relu", ["x"], ["positive"]),
        onnx.helper.make_node("MatMul", ["positive", "A"], ["right"], name="third"),
    ]
    inside = onnx.helper.make_graph(
        nodes,
        "products",
        [onnx.helper.make_tensor_value_info("x", floats, ["rows", WIDE])],
        [onnx.helper.make_tensor_value_info(name, floats, ["rows", WIDE]) for name in ("left", "right")],
        [onnx.numpy_helper.from_array(matrix, name) for name, matrix in matrices.items()],
    )
    return onnx.helper.make_model(inside, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=9)


def inputs(seed: int) -> np.ndarray:
    """[20, WIDE], one of the channels 30 times as large as the others."""
    x = np.random.default_rng(seed).normal(size=(20, WIDE)).astype(np.float32)
    x[:, LARGE] *= 30
    return x


def results(graph: onnx.ModelProto, x: np.ndarray) -> list[np.ndarray]:
    from onnxruntime import InferenceSession

    return InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, {"x": x})


def in_8_bits(graph: onnx.ModelProto, folder: Path) -> onnx.ModelProto:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    quantize_dynamic(graph, folder / "small.onnx", weight_type=QuantType.QInt8, per_channel=True, reduce_range=True)
    return onnx.load(folder / "small.onnx")


def test_products_are_the_same_and_better_in_8_bits(graph: onnx.ModelProto, tmp_path: Path) -> None:
    x = inputs(0)
    expected = results(graph, x)
    plain = results(in_8_bits(graph, tmp_path), x)
    changed = without_outliers(graph, [{"x": inputs(seed)} for seed in (1, 2)])
    onnx.checker.check_model(changed)
    for found, want in zip(results(changed, x), expected, strict=True):
        np.testing.assert_allclose(found, want, rtol=1e-3, atol=1e-4)
    divided = results(in_8_bits(changed, tmp_path), x)
    for found, before, want in zip(divided, plain, expected, strict=True):
        assert np.linalg.norm(found - want) < 0.5 * np.linalg.norm(before - want)


def test_a_shared_matrix_stays_each_inputs_own(graph: onnx.ModelProto) -> None:
    before = graph.SerializeToString()
    changed = without_outliers(graph, [{"x": inputs(1)}])
    assert graph.SerializeToString() == before
    names = {tensor.name for tensor in changed.graph.initializer}
    assert {"x.A", "positive.A", "one.B"} < names
    assert not {"A", "B"} & names, "what nothing uses is gone"


def test_inputs_that_are_nothing_stay_so(graph: onnx.ModelProto) -> None:
    nothing = np.zeros((2, WIDE), np.float32)
    x = inputs(0)
    changed = without_outliers(graph, [{"x": nothing}])
    for found, want in zip(results(changed, x), results(graph, x), strict=True):
        np.testing.assert_allclose(found, want, rtol=1e-3, atol=1e-4)
