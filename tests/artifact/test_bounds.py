"""What a small file makes of itself in memory: bounded before it is allocated."""

from __future__ import annotations

import contextlib
import json
import tracemalloc

import numpy as np
import pytest

import diffuse_fast as df
from diffuse_fast.artifact import document, read_document
from diffuse_fast.errors import ArtifactError
from diffuse_fast.onnx import graph, header
from diffuse_fast.onnx.graph import Graph
from diffuse_fast.onnx.protobuf import bytes_field, varint
from diffuse_fast.rewrites import insert_qdq, passes

onnx = pytest.importorskip("onnx")

RANGES = dict.fromkeys(("a", "b", "w", "y", "z", ""), (-1.0, 1.0))


@pytest.fixture
def normed(small):
    """``normed(groups, inputs=3, channels=2) -> model``: the small model, x through GroupNormalization first."""

    def write(groups, inputs=3, channels=2):
        path = small()
        proto = onnx.load(path)
        made = onnx.helper.make_node("GroupNormalization", ["x", "gs", "gb"][:inputs], ["gx"], num_groups=groups)
        proto.graph.node.insert(0, made)
        next(n for n in proto.graph.node if n.op_type == "Mul").input[0] = "gx"
        proto.graph.initializer.extend(onnx.numpy_helper.from_array(np.ones(channels, np.float32), name) for name in ("gs", "gb"))
        onnx.save_model(proto, path)
        return df.load(path)

    return write


def peak(call):
    """Bytes that a call allocates at most."""
    tracemalloc.start()
    try:
        call()
    finally:
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert most < 100e6, f"{most / 1e6:.0f} MB"


@pytest.mark.parametrize("groups", [150_000_000, 0, -1, 3])
def test_groups_that_do_not_divide_the_channels(normed, groups):
    model = normed(groups)
    with pytest.raises(ArtifactError, match=f"num_groups {groups}; it must divide its 2 channels"):
        peak(lambda: passes.rewritten(model, "onnxruntime"))


def test_a_norm_of_two_inputs(normed):
    model = normed(2, inputs=2)
    for runtime in passes.PASSES:
        with pytest.raises(ArtifactError, match="'GroupNormalization' with 2 inputs and 1 outputs; it must have 3 inputs"):
            passes.rewritten(model, runtime)


@pytest.mark.parametrize("op", sorted({*graph._INPUTS, "Add", "Split", "If", "Unknown"}))
def test_nodes_of_any_number_of_inputs_and_outputs(tmp_path, op):
    """An error of this package or none: not an IndexError of a rewrite."""
    info = onnx.helper.make_tensor_value_info
    values = [info(name, 1, ["B", 2, 4, 4]) for name in ("a", "b")]
    weights = [onnx.numpy_helper.from_array(np.ones((2, 2, 3, 3), np.float32), "w")]
    path = tmp_path / "m.onnx"
    for inputs in range(7):
        for outputs in range(3):
            names = ["a", "w", "w", "a", "", "b", "b"][:inputs]
            made = onnx.helper.make_node(op, names, ["y", "z"][:outputs], **({"num_groups": 2} if op[:2] == "Gr" else {}))
            proto = onnx.helper.make_graph([made], "g", values, [], weights)
            path.write_bytes(onnx.helper.make_model(proto).SerializeToString())
            for runtime, opset in (("onnxruntime", 21), ("openvino", 21), ("openvino", 12)):
                with contextlib.suppress(ArtifactError):
                    inside = Graph(path)
                    assert outputs, "a node without outputs"
                    inside.opset = opset
                    for change in passes.PASSES[runtime]:
                        change(inside)
                    layers = [n.outputs[0] for n in insert_qdq.quantizable_layers(inside)]
                    insert_qdq.quantize_layers(inside, layers, RANGES, outputs=True)


def test_a_norm_whose_scale_has_another_size_is_left_as_it_is(normed):
    """What it is replaced by is as large as the value is said to be, which the file does not have to be."""
    assert passes.rewritten(normed(2, channels=1), "onnxruntime") is None
    assert passes.rewritten(normed(2), "onnxruntime") is not None


def test_metadata_of_many_values(small):
    text = json.dumps({"format": document.FORMAT})[:-1] + ', "x": [' + "{}," * 2_000_000 + "{}]}"
    path = small(text)
    with pytest.raises(ArtifactError, match="4000004 values; at most 1400000"):
        peak(lambda: df.load(path))


def test_as_many_values_as_a_schedule_of_a_million_times_has():
    text = json.dumps({"betas": [0.5] * document.MAX_TRAIN_TIMESTEPS})
    with pytest.raises(ArtifactError, match="format"):  # it is read, and is no document
        read_document.parse(text)


# A field that nobody knows, or a comment, of the model, the graph, a node, a tensor: (numbers on the way, number).
@pytest.mark.parametrize("way", [(999,), (6,), (7, 10), (7, 999), (7, 1, 6), (7, 1, 5, 13), (7, 5, 12), (7, 5, 999)])
def test_the_size_of_unused_fields_is_bounded(small, way):
    path = small()
    raw = path.read_bytes()
    for size in (header.MAX_IGNORED, header.MAX_IGNORED + 1):
        content = bytes_field(way[-1], bytes(size))
        if way == (7, 10):  # the only graph there may be
            proto = onnx.load(path)
            proto.graph.doc_string = "x" * size
            path.write_bytes(proto.SerializeToString())
        elif way[0] == 7:
            proto = onnx.load_from_string(raw)
            part = bytearray(proto.graph.SerializeToString())
            for number in reversed(way[1:-1]):
                content = bytes_field(number, content)
            del proto
            rest = onnx.load_from_string(raw)
            rest.ClearField("graph")
            path.write_bytes(rest.SerializeToString() + bytes_field(7, bytes(part) + content))
        else:
            path.write_bytes(raw + content)
        if size > header.MAX_IGNORED:
            with pytest.raises(ArtifactError, match=f"field {way[-1]} of {size} bytes"):
                df.load(path)
        else:
            df.load(path)


def test_a_large_field_is_not_read(small):
    """A hole in the file takes no disk; reading it would take the memory."""
    path = small()
    with open(path, "ab") as file:
        file.write(varint(999 << 3 | 2) + varint(1_500_000_000))
        file.truncate(file.tell() + 1_500_000_000)
    with pytest.raises(ArtifactError, match="field 999 of 1500000000 bytes"):
        peak(lambda: df.load(path))


def test_many_nodes(tmp_path):
    path = tmp_path / "m.onnx"
    path.write_bytes(bytes_field(7, bytes_field(1, bytes_field(2, b"y")) * (graph.MAX_NODES + 1)))
    with pytest.raises(ArtifactError, match="more than 250000 nodes"):
        Graph(path)


def test_constants_take_no_more_than_the_file_explains(small):
    inside = Graph(small())
    half = np.zeros(graph._BUDGET_BYTES // 8, np.float32)
    inside.add_constant("x", half)
    with pytest.raises(ArtifactError, match="several times the size of the file"):
        for _ in range(2):
            inside.add_constant("x", half)


def test_a_long_list_of_numbers_is_not_read():
    from diffuse_fast.onnx import tensor
    from diffuse_fast.onnx.protobuf import WireReader

    wire = WireReader(bytes_field(1, b"\1" * (tensor.MAX_PACKED + 1)))
    with pytest.raises(ArtifactError, match="list of numbers is 1048577 bytes"):
        tensor.shape(wire, wire.root)
