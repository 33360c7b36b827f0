"""Linear layers of one value as one product: against NumPy in float64, and left alone where they are something else."""

from __future__ import annotations

import numpy as np
import pytest

from diffuse_fast.onnx.graph import Graph
from diffuse_fast.rewrites.merge_gemms import merge_gemms

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")

node = onnx.helper.make_node
# The second of two layers, whose first is x·Wᵀ + b: its inputs and attributes, and what it computes.
SECOND = {
    "as the first": (["x", "v", "c"], {"transB": 1}, lambda x, v, c: x @ v.T + c),
    "the first's weights": (["x", "w", "b"], {"transB": 1}, None),
    "of another value": (["y", "v", "c"], {"transB": 1}, lambda x, v, c: 2 * x @ v.T + c),
    "scaled": (["x", "v", "c"], {"transB": 1, "alpha": 0.5}, lambda x, v, c: 0.5 * x @ v.T + c),
    "a scaled bias": (["x", "v", "c"], {"transB": 1, "beta": 3.0}, lambda x, v, c: x @ v.T + 3 * c),
    "not transposed": (["x", "turned", "c"], {}, lambda x, v, c: x @ v.T + c),
    "no bias": (["x", "v"], {"transB": 1}, lambda x, v, c: x @ v.T),
    "one bias for all": (["x", "v", "one"], {"transB": 1}, lambda x, v, c: x @ v.T + c[0]),
    "weights that are computed": (["x", "sum", "c"], {"transB": 1}, lambda x, v, c: 2 * x @ v.T + c),
}
MERGED = ("as the first", "the first's weights")


@pytest.mark.parametrize("second", SECOND)
def test_two_layers(tmp_path, second):
    inputs, attributes, computes = SECOND[second]
    rng = np.random.default_rng(5)
    w, v = (rng.standard_normal((rows, 4)).astype(np.float32) for rows in (3, 2))
    b, c = (rng.standard_normal(rows).astype(np.float32) for rows in (3, 2))
    arrays = {"w": w, "v": v, "b": b, "c": c, "turned": v.T.copy(), "one": c[:1]}
    nodes = [
        node("Add", ["x", "x"], ["y"]), node("Add", ["v", "v"], ["sum"]), node("Gemm", ["x", "w", "b"], ["first"], transB=1),
        node("Gemm", inputs, ["second"], **attributes), node("Concat", ["second", "first"], ["out"], axis=1),
    ]  # fmt: skip
    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        nodes,
        "g",
        [value("x", 1, ["B", 4])],
        [value("out", 1, None)],
        [onnx.numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )
    path = tmp_path / "m.onnx"
    made = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 21)], ir_version=10)
    path.write_bytes(made.SerializeToString())
    nodes = Graph(path)
    assert merge_gemms(nodes) == (second in MERGED)
    assert sum(one.op == "Gemm" for one in nodes.nodes) == (1 if second in MERGED else 2)
    x = rng.standard_normal((3, 4))
    first = x @ w.T + b
    want = np.concatenate([first if computes is None else computes(x, v, c), first], 1)
    session = ort.InferenceSession(nodes.to_bytes(), providers=["CPUExecutionProvider"])
    np.testing.assert_allclose(session.run(None, {"x": x.astype(np.float32)})[0], want, rtol=1e-5, atol=1e-5)
