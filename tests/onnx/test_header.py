"""The outside of ONNX files, against onnx's own reader."""

from __future__ import annotations

import os
import pickle
import tracemalloc

import numpy as np
import pytest

from diffuse_fast import model as models
from diffuse_fast.errors import ArtifactError, ArtifactNotFoundError
from diffuse_fast.onnx import header

onnx = pytest.importorskip("onnx")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402


def varint(n: int) -> bytes:
    out = b""
    while n >= 128:
        out += bytes([n & 127 | 128])
        n >>= 7
    return out + bytes([n])


def message(number: int, body: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(body)) + body


def external(name: str, **entries: str) -> onnx.TensorProto:
    tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=[4], data_location=TensorProto.EXTERNAL)
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=value)
    return tensor


def write(path, nodes=(), initializers=(), functions=()):
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 4])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, 4])
    model = helper.make_model(helper.make_graph(list(nodes), "g", [x], [y], list(initializers)), functions=list(functions))
    path.write_bytes(model.SerializeToString())
    return path


def described(value) -> tuple:
    kind = value.type.tensor_type
    dims = tuple(d.dim_value if d.HasField("dim_value") else d.dim_param for d in kind.shape.dim)
    return value.name, helper.tensor_dtype_to_np_dtype(kind.elem_type).name, dims


@pytest.mark.parametrize("name", models.bundled())
def test_reads_what_onnx_reads_of_the_bundled_models(name):
    path = models._BUNDLED / f"{name}.onnx"
    theirs, ours = onnx.load(path), header.read(path)
    assert [(v.name, v.dtype, v.shape) for v in ours.inputs] == [described(v) for v in theirs.graph.input]
    assert [(v.name, v.dtype, v.shape) for v in ours.outputs] == [described(v) for v in theirs.graph.output]
    assert ours.metadata == {p.key: p.value for p in theirs.metadata_props}
    assert ours.opset == next(o.version for o in theirs.opset_import if o.domain == "")
    assert ours.external == []


def test_inputs_outputs_metadata_opset(small):
    found = header.read(small())
    assert found.inputs[0] == header.Value("x", "float32", ("B", 2, 3))
    assert [(v.name, v.dtype, v.shape) for v in found.inputs[1:]] == [("t", "int64", ("B",)), ("label", "int64", ("B",))]
    assert found.outputs == (header.Value("output", "float32", ("B", 2, 3)),)
    assert found.metadata["author"] == "nobody" and found.opset == 21


def test_shapes_may_be_unknown_and_inputs_no_tensors(tmp_path):
    values = [
        helper.make_tensor_value_info("rankless", TensorProto.FLOAT16, None),
        helper.make_tensor_value_info("scalar", TensorProto.DOUBLE, []),
        helper.make_tensor_value_info("minus", TensorProto.BOOL, [-1, None, 3]),
        helper.make_tensor_sequence_value_info("sequence", TensorProto.FLOAT, [1]),
        helper.make_tensor_value_info("weight", TensorProto.FLOAT, [1]),
    ]
    weight = numpy_helper.from_array(np.ones(1, np.float32), "weight")
    path = tmp_path / "m.onnx"
    path.write_bytes(helper.make_model(helper.make_graph([], "g", values, [], [weight])).SerializeToString())
    assert [(v.dtype, v.shape) for v in header.read(path).inputs] == [  # the weight is no input that a caller must give
        ("float16", None),
        ("float64", ()),
        ("bool", ("", "", 3)),
        ("other", None),
    ]


def test_external_data_are_found_wherever_a_tensor_can_hide(tmp_path):
    def tensor(name):
        return external(name, location=f"{name}.bin", offset="8", length="16")

    def constant(name):
        return helper.make_node("Constant", [], [name], value=tensor(name))

    inner = helper.make_graph([constant("in_subgraph")], "inner", [], [], [tensor("subgraph_initializer")])
    deeper = helper.make_graph([helper.make_node("If", ["c"], ["z"], then_branch=inner, else_branch=inner)], "d", [], [])
    many = helper.make_node("F", [], ["m"])
    many.attribute.append(helper.make_attribute("tensors", [tensor("in_list_1"), tensor("in_list_2")]))
    many.attribute.append(helper.make_attribute("graphs", [inner]))
    sparse = onnx.SparseTensorProto(values=tensor("sparse_values"), indices=tensor("sparse_indices"), dims=[4])
    many.attribute.append(helper.make_attribute("sparse", sparse))
    function = helper.make_function("d", "f", [], ["out"], [constant("in_function")], [helper.make_opsetid("", 21)])
    function.attribute_proto.append(helper.make_attribute("default", tensor("in_default")))
    path = write(
        tmp_path / "m.onnx",
        [constant("in_attribute"), helper.make_node("If", ["c"], ["z"], then_branch=deeper, else_branch=deeper), many],
        [tensor("initializer")],
        [function],
    )
    found = header.read(path).external
    assert {e.name for e in found} == {
        "initializer",
        "in_attribute",
        "in_subgraph",
        "subgraph_initializer",
        "in_list_1",
        "in_list_2",
        "sparse_values",
        "sparse_indices",
        "in_function",
        "in_default",
    }
    assert all((e.location, e.offset, e.length) == (f"{e.name}.bin", 8, 16) for e in found)


@pytest.mark.parametrize(
    "entries, says",
    [
        ({}, "no location"),
        ({"offset": "0"}, "no location"),
        ({"location": "w", "offset": "-1"}, "offset"),
        ({"location": "w", "offset": "1e3"}, "offset"),
        ({"location": "w", "offset": " 1"}, "offset"),
        ({"location": "w", "offset": "1_0"}, "offset"),
        ({"location": "w", "offset": "٣"}, "offset"),  # a digit, but no ASCII
        ({"location": "w", "length": ""}, "length"),
        ({"location": "w", "length": "9" * 5000}, "length"),
    ],
)
def test_senseless_external_records(tmp_path, entries, says):
    with pytest.raises(ArtifactError, match=says):
        header.read(write(tmp_path / "m.onnx", initializers=[external("w", **entries)]))


def test_an_external_key_twice_and_entries_without_the_flag(tmp_path):
    tensor = external("w", location="a")
    tensor.external_data.add(key="location", value="../b")
    with pytest.raises(ArtifactError, match="'location' twice"):
        header.read(write(tmp_path / "m.onnx", initializers=[tensor]))
    quiet = external("w", location="a")
    quiet.data_location = TensorProto.DEFAULT
    assert [e.location for e in header.read(write(tmp_path / "n.onnx", initializers=[quiet])).external] == ["a"]


def test_what_protobuf_would_merge_is_refused(tmp_path):
    path = write(tmp_path / "m.onnx")
    data = path.read_bytes()
    path.write_bytes(data + message(7, message(2, b"again")))
    with pytest.raises(ArtifactError, match="given twice"):
        header.read(path)


def nested(depth: int) -> bytes:
    body = b""
    for _ in range(depth):
        body = message(1, message(5, message(6, body)))  # node { attribute { g { ... } } }
    return b"\x08\x0a" + message(7, body)


def test_nesting_is_bounded(tmp_path):
    path = tmp_path / "m.onnx"
    path.write_bytes(nested(32))
    header.read(path)
    for depth in (33, 3000):
        path.write_bytes(nested(depth))
        with pytest.raises(ArtifactError, match="32 deep"):
            header.read(path)


def test_a_huge_file_is_not_read_completely(tmp_path):
    path = tmp_path / "huge.onnx"
    size = 3 << 30  # a sparse file: it takes no room
    tensor = varint(9 << 3 | 2) + varint(size)
    initializer = varint(5 << 3 | 2) + varint(len(tensor) + size)
    head = b"\x08\x0a" + varint(7 << 3 | 2) + varint(len(initializer) + len(tensor) + size) + initializer + tensor
    with open(path, "wb") as file:
        file.write(head)
        file.truncate(len(head) + size)
    tracemalloc.start()
    header.read(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 20
    with open(path, "r+b") as file:
        file.truncate(len(head) + size - 1)
    with pytest.raises(ArtifactError, match="1 bytes beyond its end"):
        header.read(path)


@pytest.mark.parametrize("protocol", range(2, 6))
def test_pickles_are_refused_by_name(tmp_path, protocol):
    path = tmp_path / "m.onnx"
    path.write_bytes(pickle.dumps({"weights": [1.0]}, protocol))
    with pytest.raises(ArtifactError, match="pickle, which runs code"):
        header.read(path)


def test_what_torch_saves_is_refused_by_name(tmp_path):
    torch = pytest.importorskip("torch")
    path = tmp_path / "m.onnx"
    for zipped in (True, False):
        torch.save({"w": torch.zeros(2)}, path, _use_new_zipfile_serialization=zipped)
        with pytest.raises(ArtifactError, match="pickle, which runs code"):
            header.read(path)


@pytest.mark.parametrize("data", [b"", b"\x00", b"hello, I am a text file\n" * 9, b"\x08\x0a", b"{}", bytes(range(256))])
def test_files_of_other_formats_are_refused(tmp_path, data):
    path = tmp_path / "m.onnx"
    path.write_bytes(data)
    with pytest.raises(ArtifactError):
        header.read(path)


def test_special_files_are_refused(tmp_path):
    with pytest.raises(ArtifactError, match=r"regular file|cannot be opened"):
        header.read(tmp_path)
    os.mkfifo(tmp_path / "pipe.onnx")
    with pytest.raises(ArtifactError, match="regular file"):  # and does not wait for a writer
        header.read(tmp_path / "pipe.onnx")
    with pytest.raises(ArtifactNotFoundError):
        header.read(tmp_path / "none.onnx")


def test_every_truncation_of_a_file_is_refused(small, tmp_path):
    data = small().read_bytes()
    path = tmp_path / "cut.onnx"
    whole = header.read(small())
    for length in range(len(data)):
        path.write_bytes(data[:length])
        try:
            found = header.read(path)
        except ArtifactError:
            continue
        # A cut between two fields of the outermost message is valid protobuf, but something is missing.
        assert found.metadata != whole.metadata or found.opset != whole.opset
