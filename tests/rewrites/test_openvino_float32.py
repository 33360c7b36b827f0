"""What stays in float32 on OpenVINO is marked against bfloat16, and a mark that OpenVINO drops is an error."""

from __future__ import annotations

import numpy as np
import pytest

import diffuse_fast as df
from diffuse_fast.errors import UnavailableError
from diffuse_fast.rewrites.openvino_float32 import keep_float32, rounded_layers

openvino = pytest.importorskip("openvino")
onnx = pytest.importorskip("onnx")

from diffuse_fast.runtimes import network  # noqa: E402
from diffuse_fast.runtimes import openvino as runtime  # noqa: E402


@pytest.fixture
def marked(tmp_path):
    """A core, and a graph of two matrix products, whose first one is marked."""
    info, eye = onnx.helper.make_tensor_value_info, np.eye(6, dtype=np.float32)
    nodes = [
        onnx.helper.make_node("MatMul", ["x", "first_weight"], ["first"]),
        onnx.helper.make_node("MatMul", ["first", "second_weight"], ["second"]),
    ]
    weights = [onnx.numpy_helper.from_array(eye, f"{name}_weight") for name in ("first", "second")]
    graph = onnx.helper.make_graph(nodes, "g", [info("x", 1, [1, 6])], [info("second", 1, [1, 6])], weights)
    path = tmp_path / "m.onnx"
    path.write_bytes(onnx.helper.make_model(graph, ir_version=10).SerializeToString())
    core = openvino.Core()
    read = core.read_model(path)
    assert keep_float32(core, "x")(read)
    return core, read


def test_the_mark_names_bfloat16(marked, tmp_path):
    """OpenVINO 2026.4 reads its older attribute as one against float16 alone."""
    _, read = marked
    openvino.serialize(read, tmp_path / "m.xml", tmp_path / "m.bin")
    text = (tmp_path / "m.xml").read_text()
    first, second = (text[text.index(f'name="{name}" type="MatMul"') :].split("</layer>")[0] for name in ("first", "second"))
    assert 'name="precise"' in first or 'value="dynamic:bf16,f16"' in first
    assert 'name="precise"' not in second and "bf16" not in second


def test_marked_layers_in_bfloat16_are_found(marked):
    core, read = marked
    compiled = core.compile_model(read, "CPU").get_runtime_model()
    for op in compiled.get_ordered_ops():  # as a CPU with bfloat16 may report it
        if op.get_friendly_name() in ("first", "second"):
            op.set_rt_info("f32" if op.get_friendly_name() == "first" else "bf16", "runtimePrecision")
    assert rounded_layers(read, compiled) == []
    for op in compiled.get_ordered_ops():
        if op.get_friendly_name() == "first":
            op.set_rt_info("bf16", "runtimePrecision")
    assert rounded_layers(read, compiled) == ["first"]


def test_a_layer_in_bfloat16_that_must_not_be_is_an_error(small, monkeypatch):
    """On any CPU: float32 stands in for bfloat16."""
    monkeypatch.setattr(runtime, "_has_bfloat16", lambda: True)
    monkeypatch.setitem(runtime._HINTS, "bfloat16", "f32")
    model, cond = df.load(small()), {"label": np.zeros(1, int)}
    network(model, "openvino", precision="bfloat16").bind(1, model.shape, cond)
    monkeypatch.setattr(runtime, "rounded_layers", lambda graph, compiled: ["first"])
    with pytest.raises(UnavailableError, match=r"'bfloat16', but OpenVINO would compute first in bfloat16"):
        network(df.load(model.path), "openvino", precision="bfloat16").bind(1, model.shape, cond)
