"""Damaged and hostile files: typed errors only, in bounded time and memory."""

from __future__ import annotations

import resource
import time

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from diffuse_fast import errors
from diffuse_fast.onnx import network
from diffuse_fast.program.lower import lower_file
from tests.program.models import node, steps, write

FLIPPED = 2000  # files with a few bytes changed
CHANGED = 1000  # files with a changed node, attribute or weight


def floats(*shape: int) -> np.ndarray:
    return np.ones(shape, np.float32) * 0.5


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A small network with most kinds of operations and attributes."""
    nodes = steps(
        "Cast t -> time; to=1",
        "Unsqueeze time one -> column",
        "Mul column frequencies -> angle",
        "Sin angle -> sine",
        "Gemm sine embed.weight embed.bias -> embedding; transB=1",
        "Unsqueeze embedding last -> wide",
        "Shape x -> shape",
        "Gather shape zero -> batch",
        "Concat batch rest -> tokens; axis=0",
        "Pad x pads -> padded",
        "Conv padded first.weight first.bias -> h; strides=[1, 1]; pads=[0, 0, 0, 0]; dilations=[1, 1]; group=1",
        "Add h wide -> added",
        "GroupNormalization added norm.weight norm.bias -> normed; num_groups=2; epsilon=1e-5",
        "Sigmoid normed -> gate",
        "Mul normed gate -> silu",
        "Reshape silu tokens -> r",
        "Transpose r -> q; perm=[0, 1, 3, 2]",
        "Split q -> a b; axis=1; num_outputs=2",
        "Attention a b b -> attended; scale=0.5",
        "Concat attended a -> joined; axis=1",
        "Transpose joined -> back; perm=[0, 1, 3, 2]",
        "Reshape back image -> out",
        "Resize out _ scales -> up; mode='nearest'",
        "Slice up zeros ends axes -> cut",
        "Einsum cut mix.weight -> y; equation='bchw,oc->bohw'",
    )
    weights = {
        "one": np.array([1]),
        "zero": np.array([0]),
        "last": np.array([2, 3]),
        "rest": np.array([2, 4, 24]),
        "image": np.array([0, 8, 4, 6]),
        "frequencies": floats(100),
        "embed.weight": floats(8, 100),
        "embed.bias": floats(8),
        "pads": np.array([0, 0, 1, 1, 0, 0, 1, 1]),
        "first.weight": floats(8, 3, 3, 3),
        "first.bias": floats(8),
        "norm.weight": floats(8),
        "norm.bias": floats(8),
        "scales": np.array([1, 1, 2, 2], np.float32),
        "zeros": np.array([0, 0]),
        "ends": np.array([4, 6]),
        "axes": np.array([2, 3]),
        "mix.weight": floats(3, 8),
    }
    path = write(tmp_path_factory.mktemp("hostile") / "model.onnx", nodes, (3, 4, 6), weights, opset=23)
    lower_file(path)
    return path


def lowered(path) -> bool:
    """Lower a file; only a typed error may be raised, and soon."""
    begin = time.process_time()
    try:
        lower_file(path)
        return True
    except errors.DiffuseFastError as error:
        assert 0 < len(str(error)) < 2000
        return False
    finally:
        assert time.process_time() - begin < 5


def test_changed_bytes(model, tmp_path):
    rng = np.random.default_rng(0)
    data, path = model.read_bytes(), tmp_path / "changed.onnx"
    counts = [0, 0]
    for _ in range(FLIPPED):
        changed = bytearray(data)
        form = rng.integers(4)
        for _ in range(rng.integers(1, 4)):
            at = int(rng.integers(len(changed)))
            if form == 0:
                changed[at] = int(rng.integers(256))
            elif form == 1:
                changed[at] ^= 1 << int(rng.integers(8))
            elif form == 2:
                del changed[at : at + int(rng.integers(1, 9))]
            else:
                changed[at:at] = rng.bytes(int(rng.integers(1, 9)))
        path.write_bytes(changed)
        counts[lowered(path)] += 1
    assert min(counts) > FLIPPED // 20, "most changes are harmless or most are noticed at once: the test tests nothing"


def test_truncated_files(model, tmp_path):
    data, path = model.read_bytes(), tmp_path / "short.onnx"
    for end in range(1, len(data), 23):
        path.write_bytes(data[:end])
        assert not lowered(path)
    path.write_bytes(b"")
    assert not lowered(path)


NUMBERS = [0, 1, -1, 2, 3, 7, 61, 1 << 20, 1 << 31, -(1 << 31), (1 << 62) - 1, -(1 << 63), (1 << 63) - 1]


def change(proto: onnx.ModelProto, rng: np.random.Generator) -> None:
    """Change one thing in a model that a parser accepts."""
    graph = proto.graph
    one = graph.node[int(rng.integers(len(graph.node)))]
    names = [name for n in graph.node for name in (*n.input, *n.output)]
    number = int(rng.choice(np.array(NUMBERS, object)))
    kind = rng.integers(8)
    if kind == 0 and one.input:
        one.input[int(rng.integers(len(one.input)))] = str(rng.choice(names))
    elif kind == 1:
        one.op_type = str(
            rng.choice([n.op_type for n in graph.node] + ["If", "Loop", "ConstantOfShape", "Tile", "Expand", "MatMul", "Softmax"])
        )
    elif kind == 2 and one.attribute:
        attribute = one.attribute[int(rng.integers(len(one.attribute)))]
        if attribute.type == onnx.AttributeProto.INTS and attribute.ints:
            attribute.ints[int(rng.integers(len(attribute.ints)))] = number
        elif attribute.type == onnx.AttributeProto.INT:
            attribute.i = number
        elif attribute.type == onnx.AttributeProto.FLOAT:
            attribute.f = float(rng.choice([0, np.nan, np.inf, -1e30, 1e-30]))
        else:
            attribute.s = rng.bytes(4)
    elif kind == 3:
        del graph.node[int(rng.integers(len(graph.node)))]
    elif kind == 4:
        place = int(rng.integers(len(graph.node)))
        graph.node.insert(place, graph.node[int(rng.integers(len(graph.node)))])
    elif kind == 5:
        tensor = graph.initializer[int(rng.integers(len(graph.initializer)))]
        tensor.dims[int(rng.integers(len(tensor.dims)))] = number
    elif kind == 6:
        tensor = graph.initializer[int(rng.integers(len(graph.initializer)))]
        try:
            array = numpy_helper.to_array(tensor).copy()
        except (ValueError, TypeError, KeyError, OverflowError):
            return  # changed before
        if array.dtype not in (np.int64, np.float32) or not array.size:
            return
        array.flat[int(rng.integers(array.size))] = number
        tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    else:
        tensor = graph.initializer[int(rng.integers(len(graph.initializer)))]
        tensor.data_type = int(rng.integers(0, 20))


def test_changed_nodes(model, tmp_path):
    rng = np.random.default_rng(0)
    original, path = onnx.load(model), tmp_path / "changed.onnx"
    counts = [0, 0]
    for _ in range(CHANGED):
        proto = onnx.ModelProto()
        proto.CopyFrom(original)
        for _ in range(rng.integers(1, 3)):
            change(proto, rng)
        path.write_bytes(proto.SerializeToString())
        counts[lowered(path)] += 1
    assert min(counts) > CHANGED // 20


# ---- bombs --------------------------------------------------------------------------------------


def memory() -> int:
    """The largest memory of this process so far, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10


def shaped(*numbers: int) -> np.ndarray:
    return np.array(numbers, np.int64)


RESIZES = 40
BOMBS = {
    "ConstantOfShape": (["ConstantOfShape n -> c", "Add x c -> y"], {"n": shaped(1 << 20, 1 << 20)}),
    "Range": (
        ["Range zero n one -> c", "Gather c zero -> d", "Cast d -> e; to=1", "Add x e -> y"],
        {"zero": np.array(0), "one": np.array(1), "n": np.array(1 << 50)},
    ),
    "Range of floats": (
        ["Range zero one tiny -> c", "Add x c -> y"],
        {"zero": np.array(0, np.float32), "tiny": np.array(1e-38, np.float32), "one": np.array(1, np.float32)},
    ),
    "Expand": (
        ["ConstantOfShape one -> o", "Expand o n -> c", "Exp c -> e", "Add x e -> y"],
        {"one": shaped(1), "n": shaped(1 << 16, 1 << 16)},
    ),
    "Tile": (["ConstantOfShape one -> o", "Tile o n -> c", "Add x c -> y"], {"one": shaped(1), "n": shaped(1 << 40)}),
    "doubling": (
        [*(f"Concat c{i} c{i} -> c{i + 1}; axis=0" for i in range(60)), "ReduceSum c60 -> s", "Add x s -> y"],
        {"c0": np.array([1.0], np.float32)},
    ),
    "Gather": (
        ["ConstantOfShape n -> c", "Gather c i -> d", "Add x d -> y"],
        {"n": shaped(1, 1 << 20), "i": np.zeros((100, 100), np.int64)},
    ),
    "outer product": (
        ["ConstantOfShape n -> a", "ConstantOfShape m -> b", "Add a b -> c", "Add x c -> y"],
        {"n": shaped(1 << 16, 1), "m": shaped(1, 1 << 16)},
    ),
    "Tile of the sample": (["Tile x n -> c", "Exp c -> y"], {"n": shaped(1, 1 << 30, 1 << 30, 1)}),
    "Pad": (["Pad x n -> y"], {"n": shaped(0, 0, 0, 0, 0, 1 << 40, 1 << 40, 0)}),
    "Pad, wrapped": (["Pad x n -> y; mode='wrap'"], {"n": shaped(0, 0, 0, 0, 0, 0, 1 << 40, 0)}),
    "Resize": (["Resize x _ _ n -> y"], {"n": shaped(0, 3, 1 << 40, 6)}),
    "Conv": ([f"Conv x w -> y; pads=[{1 << 40}, 0, 0, 0]"], {"w": floats(3, 3, 1, 1)}),
    "dilations": ([f"Conv x w -> y; dilations=[{1 << 62}, 1]"], {"w": floats(3, 3, 3, 1)}),
    "tables of a Resize": (
        ["Identity x -> v0", *(f"Resize v{i} _ _ n{i} -> v{i + 1}; mode='linear'" for i in range(RESIZES)), f"Exp v{RESIZES} -> y"],
        {f"n{i}": shaped(61, 3, 900_000 + i, 6) for i in range(RESIZES)},
    ),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_refused_before_it_takes_memory(name, tmp_path):
    texts, weights = BOMBS[name]
    path = write(tmp_path / "model.onnx", steps(*texts), (3, 4, 6), weights)
    before = memory()
    assert not lowered(path)
    assert memory() - before < 300


def function(name: str, nodes: list[onnx.NodeProto]) -> onnx.FunctionProto:
    return helper.make_function("local", name, ["a"], ["b"], nodes, [helper.make_opsetid("", 21), helper.make_opsetid("local", 1)])


def test_functions_are_inlined(tmp_path):
    inner = function("inner", [node("Exp", ["a"], ["u"]), node("Neg", ["u"], ["b"])])
    outer = function("outer", [node("inner", ["a"], ["u"], domain="local"), node("inner", ["u"], ["b"], domain="local")])
    nodes = [node("outer", ["x"], ["u"], domain="local"), node("inner", ["u"], ["y"], domain="local")]
    found = network.read(write(tmp_path / "model.onnx", nodes, (4,), functions=[inner, outer]))
    assert [n.op for n in found.nodes] == ["Exp", "Neg"] * 3
    assert len({name for n in found.nodes for name in n.outputs}) == 6
    assert found.nodes[-1].outputs == ("y",)


def test_a_function_that_calls_itself_is_refused(tmp_path):
    path = write(
        tmp_path / "model.onnx",
        [node("f", ["x"], ["y"], domain="local")],
        (4,),
        functions=[function("f", [node("f", ["a"], ["b"], domain="local")])],
    )
    assert not lowered(path)


def test_functions_that_double_are_refused(tmp_path):
    functions = [function("f0", [node("Exp", ["a"], ["b"])])]
    for i in range(30):
        functions.append(
            function(f"f{i + 1}", [node(f"f{i}", ["a"], ["u"], domain="local"), node(f"f{i}", ["u"], ["b"], domain="local")])
        )
    path = write(tmp_path / "model.onnx", [node("f30", ["x"], ["y"], domain="local")], (4,), functions=functions)
    with pytest.raises(errors.ArtifactError, match="nodes"):
        lower_file(path)


def test_too_many_nodes_are_refused(tmp_path):
    nodes = [node("Identity", [f"v{i}" if i else "x"], [f"v{i + 1}"]) for i in range(network.MAX_NODES)] + [
        node("Exp", [f"v{network.MAX_NODES}"], ["y"])
    ]
    with pytest.raises(errors.ArtifactError, match="nodes"):
        lower_file(write(tmp_path / "model.onnx", nodes, (4,)))


def test_many_fields_are_refused(tmp_path):
    """Two bytes each; a list of them in memory would take a hundred times the file."""
    path = tmp_path / "fields.onnx"
    path.write_bytes(b"\x08\x01" * 20_000_000)
    before = memory()
    with pytest.raises(errors.ArtifactError, match="fields"):
        lower_file(path)
    assert memory() - before < 600


def test_a_cycle_is_refused(tmp_path):
    path = write(
        tmp_path / "model.onnx", [node("Add", ["x", "b"], ["a"]), node("Exp", ["a"], ["b"]), node("Neg", ["b"], ["y"])], (4,)
    )
    with pytest.raises(errors.ArtifactError, match="before it is computed"):
        lower_file(path)


def test_a_name_computed_twice_is_refused(tmp_path):
    path = write(tmp_path / "model.onnx", [node("Exp", ["x"], ["a"]), node("Neg", ["x"], ["a"]), node("Neg", ["a"], ["y"])], (4,))
    with pytest.raises(errors.ArtifactError, match="twice"):
        lower_file(path)


@pytest.mark.parametrize("location", ["/etc/passwd", "../secret", "", "missing", "."])
def test_constants_outside_of_the_folder_are_not_read(location, tmp_path):
    path = write(tmp_path / "model.onnx", [node("Reshape", ["x", "s"], ["y"])], (4,), {"s": shaped(0, 2, 2)})
    proto = onnx.load(path)
    (tensor,) = proto.graph.initializer
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    path.write_bytes(proto.SerializeToString())
    assert not lowered(path)


def test_small_constants_in_another_file_are_read(tmp_path):
    path = write(tmp_path / "model.onnx", [node("Reshape", ["x", "s"], ["y"])], (4,), {"s": shaped(0, 2, 2)})
    proto = onnx.load(path)
    onnx.save_model(proto, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    assert onnx.load(path, load_external_data=False).graph.initializer[0].data_location == TensorProto.EXTERNAL
    assert lowered(path)


def test_views_cannot_grow_without_bound(tmp_path):
    """Each step cuts a dimension and moves a part: the atoms of a view double."""
    nodes, last = [], "x"
    for i in range(12):
        nodes += [
            node("Reshape", [last, "cut"], [f"a{i}"]),
            node("Transpose", [f"a{i}"], [f"b{i}"], perm=[0, 2, 1]),
            node("Reshape", [f"b{i}", "flat"], [f"c{i}"]),
        ]
        last = f"c{i}"
    path = write(
        tmp_path / "model.onnx",
        [*nodes, node("Exp", [last], ["y"])],
        (1 << 30,),
        {"cut": shaped(0, 1 << 15, 1 << 15), "flat": shaped(0, -1)},
    )
    lowered(path)
