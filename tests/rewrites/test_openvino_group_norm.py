"""GroupNormalization on OpenVINO, over rows: against the definition (Wu & He 2018, eq. 7) in float64, whatever follows it."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import diffuse_fast as df
from diffuse_fast.rewrites.openvino_group_norm import flatten_group_norms
from diffuse_fast.runtimes import network

openvino = pytest.importorskip("openvino")
onnx = pytest.importorskip("onnx")

node = onnx.helper.make_node
CHANNELS, GROUPS, EPSILON = 6, 3, 1e-3

SILU = [node("Sigmoid", ["normed"], ["gate"]), node("Mul", ["normed", "gate"], ["silu"])]
SHIFTED = [node("Mul", ["normed", "column"], ["scaled"]), node("Add", ["column", "scaled"], ["shifted"])]


def silu(y):
    return y / (1 + np.exp(-y))


# What surrounds the norm of the value "normed_of", and what that computes: of the sample x, a number c for each channel of each
# sample, and the norm.
CASES = {
    "nothing": ([], [node("Identity", ["normed"], ["out"])], lambda x, c, norm: norm(x)),
    "silu": ([], [*SILU, node("Identity", ["silu"], ["out"])], lambda x, c, norm: silu(norm(x))),
    "silu, turned": (
        [], [node("Sigmoid", ["normed"], ["gate"]), node("Mul", ["gate", "normed"], ["out"])],
        lambda x, c, norm: silu(norm(x)),
    ),
    "a gate that is read twice": (
        [], [*SILU, node("Add", ["silu", "gate"], ["out"])], lambda x, c, norm: silu(norm(x)) + 1 / (1 + np.exp(-norm(x))),
    ),
    "a norm that is read twice": (
        [], [*SILU, node("Add", ["silu", "normed"], ["out"])], lambda x, c, norm: silu(norm(x)) + norm(x),
    ),
    "the gate of another": (
        [], [node("Sigmoid", ["normed"], ["gate"]), node("Mul", ["sample", "gate"], ["out"])],
        lambda x, c, norm: x / (1 + np.exp(-norm(x))),
    ),
    "a square": ([], [node("Mul", ["normed", "normed"], ["out"])], lambda x, c, norm: norm(x) ** 2),
    "added before": (
        [node("Add", ["sample", "column"], ["normed_of"])], [*SILU, node("Identity", ["silu"], ["out"])],
        lambda x, c, norm: silu(norm(x + c)),
    ),
    "multiplied before, the other way": (
        [node("Mul", ["column", "sample"], ["normed_of"])], [node("Identity", ["normed"], ["out"])],
        lambda x, c, norm: norm(x * c),
    ),
    "added before, and read again": (
        [node("Add", ["sample", "column"], ["normed_of"])], [node("Add", ["normed", "normed_of"], ["out"])],
        lambda x, c, norm: norm(x + c) + x + c,
    ),
    "a bias before": (
        [node("Add", ["sample", "weights"], ["normed_of"])], [*SILU, node("Identity", ["silu"], ["out"])],
        lambda x, c, norm: silu(norm(x + WEIGHTS.reshape(1, CHANNELS, *(1 for _ in x.shape[2:])))),
    ),
    "scale and shift": (
        [], [*SHIFTED, node("Sigmoid", ["shifted"], ["gate"]), node("Mul", ["shifted", "gate"], ["out"])],
        lambda x, c, norm: silu(norm(x) * c + c),
    ),
    "a scaled norm that is read twice": (
        [], [*SHIFTED, node("Add", ["scaled", "shifted"], ["out"])], lambda x, c, norm: 2 * norm(x) * c + c,
    ),
    "a sum of pictures": (
        [node("Add", ["sample", "sample"], ["normed_of"])], [node("Add", ["normed", "sample"], ["out"])],
        lambda x, c, norm: norm(x + x) + x,
    ),
}  # fmt: skip
WEIGHTS = np.linspace(-1, 1.5, CHANNELS)


def saved(path, before, after, picture):
    """A GroupNormalization, and the nodes before and after it."""
    value, rng = onnx.helper.make_tensor_value_info, np.random.default_rng(1)
    scale, bias = (rng.standard_normal(CHANNELS).astype(np.float32) for _ in range(2))
    normed_of = "normed_of" if before else "sample"
    norm = node("GroupNormalization", [normed_of, "scale", "bias"], ["normed"], num_groups=GROUPS, epsilon=EPSILON)
    column = [node("Reshape", ["timestep", "each"], ["times"]), node("Mul", ["times", "weights"], ["column"])]
    shape, ones = ["B", CHANNELS, *picture], [1 for _ in picture]
    tensors = {
        "scale": scale, "bias": bias, "each": np.array([-1, 1, *ones], np.int64),
        "weights": WEIGHTS.astype(np.float32).reshape(1, CHANNELS, *ones),
    }  # fmt: skip
    graph = onnx.helper.make_graph(
        [*column, *before, norm, *after], "g", [value("sample", 1, shape), value("timestep", 1, ["B"])],
        [value("out", 1, shape)], [onnx.numpy_helper.from_array(array, name) for name, array in tensors.items()],
    )  # fmt: skip
    made = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 21)], ir_version=10)
    path.write_bytes(made.SerializeToString())
    return df.load(path, {"convention": "sigma"}), scale.astype(np.float64), bias.astype(np.float64)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("picture", [(5,), (4, 3), (2, 3, 4)], ids=str)
def test_a_norm_and_what_surrounds_it(tmp_path, case, picture):
    before, after, follows = CASES[case]
    model, scale, bias = saved(tmp_path / "m.onnx", before, after, picture)
    column, times = (-1, *(1 for _ in picture)), np.array([2, 0.5, 1])

    def norm(x):
        groups = x.reshape(len(x), GROUPS, -1)
        y = (groups - groups.mean(2, keepdims=True)) / np.sqrt(groups.var(2, keepdims=True) + EPSILON)
        return y.reshape(x.shape) * scale.reshape(column) + bias.reshape(column)

    x = np.random.default_rng(2).standard_normal((3, CHANNELS, *picture)).astype(np.float32) * 2 + 1
    c = (times[:, None] * WEIGHTS).reshape(3, CHANNELS, *(1 for _ in picture))
    want = follows(x.astype(np.float64), c, norm)
    call = network(model, "openvino", threads=1).bind(3, x.shape[1:], {})
    call.x[...] = x
    assert np.abs(call(times) - want).max() <= 3e-6 * np.abs(want).max()


def test_what_is_added_may_come_from_deep(tmp_path):
    """Whether it is constant is asked of all that it comes from: more operations here than Python's calls may be nested."""
    names = ["column", *(f"deep{i}" for i in range(1200)), "end"]
    chain = [node("Neg", [a], [b]) for a, b in itertools.pairwise(names)]
    before = [*chain, node("Add", ["sample", "end"], ["normed_of"])]
    model, *_ = saved(tmp_path / "m.onnx", before, [node("Identity", ["normed"], ["out"])], (4, 3))
    read = openvino.Core().read_model(model.path)
    read.reshape({"sample": [3, CHANNELS, 4, 3], "timestep": [3]})
    flatten_group_norms(read)
    kinds = [op.get_type_name() for op in read.get_ordered_ops()]
    assert "GroupNormalization" not in kinds and kinds.count("MVN") == 1


def test_a_norm_that_the_time_scales_and_shifts(tmp_path):
    """As in Improved DDPM: kept whole, such a norm ended the process when OpenVINO 2026.4 compiled it."""
    torch = pytest.importorskip("torch")
    pytest.importorskip("onnxscript")
    torch.manual_seed(3)
    module = df.nn.UNet(2, channels=32, groups=8, multipliers=(1, 2), blocks=1, scale_shift=True, resample="resnet").eval()
    with torch.no_grad():
        for weight in module.parameters():
            weight += 0.02 * torch.randn_like(weight)  # some begin at zero
    path, schedule = tmp_path / "m.onnx", df.Schedule.linear()
    model = df.export(module, path, shape=(2, 8, 8), schedule=schedule, prediction_type="epsilon")
    x = np.random.default_rng(4).standard_normal((2, 2, 8, 8)).astype(np.float32)
    with torch.no_grad():
        want = module.double()(torch.from_numpy(x).double(), torch.full((2,), 321)).numpy()
    call = network(model, "openvino", threads=1).bind(2, (2, 8, 8), {})
    call.x[...] = x
    assert np.abs(call(321.0) - want).max() <= 1e-5 * np.abs(want).max()
