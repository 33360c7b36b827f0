"""The reference against torch, on programs of one operation written by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from diffuse_fast.errors import ArgumentError, ArtifactError, NetworkError
from diffuse_fast.program.program import (
    BINARY,
    UNARY,
    Attention,
    Binary,
    Buffer,
    Convolution,
    Gather,
    Input,
    Level,
    Linear,
    Map,
    Norm,
    Operation,
    Pool,
    Product,
    Program,
    Reduce,
    Resize,
    Softmax,
    Unary,
    View,
)
from diffuse_fast.program.reference import Reference

torch = pytest.importorskip("torch")
functional = torch.nn.functional
RNG = np.random.default_rng(1)


def dense(buffer, shape):
    """The row-major view of a buffer."""
    dims = [((size, math.prod(shape[i + 1 :])),) if size > 1 else () for i, size in enumerate(shape)]
    return View(buffer, 0, tuple(dims))


def one_operation(kind, x_shape, y_shape, weights=(), prologue=(), epilogue=()):
    """A program of one operation: inputs are x, and weights by name ``w0``, ``w1``, and so on."""
    buffers = [Buffer(math.prod(x_shape)), Buffer(1, Level.TIME), Buffer(math.prod(y_shape))]
    buffers += [Buffer(math.prod(w), Level.CONSTANT, initializer=f"w{i}") for i, w in enumerate(weights)]
    views = (dense(0, x_shape), *(dense(3 + i, w) for i, w in enumerate(weights)))
    operation = Operation(kind, views, dense(2, y_shape), tuple(prologue), tuple(epilogue))
    inputs = (Input("x", 0, tuple(x_shape)), Input("t", 1, ()))
    return Program(tuple(buffers), inputs, operation.output, (operation,))


def evaluate(kind, x, y_shape, *weights, **stages):
    """Run one operation on a batch and return its result and x as a torch tensor."""
    program = one_operation(kind, x.shape[1:], y_shape, [w.shape for w in weights], **stages)
    return Reference(program, {f"w{i}": w for i, w in enumerate(weights)})(x, np.zeros(len(x)))


def close(ours, theirs):
    theirs = theirs.numpy()
    assert ours.shape == theirs.shape
    np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-13)


def tensors(*arrays):
    return [torch.from_numpy(a) for a in arrays]


UNARY_IN_TORCH = {
    "elu": lambda x: functional.elu(x, 0.3),
    "gelu": functional.gelu,
    "gelu_tanh": lambda x: functional.gelu(x, approximate="tanh"),
    "hard_sigmoid": functional.hardsigmoid,
    "leaky_relu": lambda x: functional.leaky_relu(x, 0.3),
    "mish": functional.mish,
    "negate": torch.neg,
    "silu": functional.silu,
    "softplus": functional.softplus,
}


@pytest.mark.parametrize("function", UNARY)
def test_unary_functions_are_those_of_torch(function):
    x = np.array([[-800.0, -30, -3.5, -2.5, -1, -0.1, 0.1, 0.5, 1, 2.5, 19, 30, 700]])
    if function in ("log", "rsqrt", "sqrt"):
        x = np.abs(x)
    ours = evaluate(Map(), x, x.shape[1:], prologue=[Unary(function, 0.3)])
    theirs = UNARY_IN_TORCH.get(function, getattr(torch, function, None))(torch.from_numpy(x)).numpy()
    # torch's softplus is x above 20 and its mish follows it
    np.testing.assert_allclose(ours, theirs, rtol=1e-8 if function in ("softplus", "mish") else 1e-13, atol=1e-300)


BINARY_IN_TORCH = {
    "reverse_subtract": lambda x, y: y - x,
    "reverse_divide": lambda x, y: y / x,
    "power": torch.pow,
    "maximum": torch.maximum,
    "minimum": torch.minimum,
}


@pytest.mark.parametrize("function", BINARY)
def test_binary_functions_are_those_of_torch(function):
    x, y = RNG.uniform(0.1, 3, (2, 2, 5))
    program = one_operation(Map(), (5,), (5,), [(5,)], epilogue=())
    stage = Binary(function, dense(3, (5,)))
    operation = Operation(Map(), (dense(0, (5,)),), dense(2, (5,)), (stage,))
    program = Program(program.buffers, program.inputs, program.output, (operation,))
    ours = Reference(program, {"w0": y[0]})(x, np.zeros(2))
    theirs = BINARY_IN_TORCH.get(function, getattr(torch, function, None))(*tensors(x, np.stack([y[0], y[0]])))
    close(ours, theirs)


@pytest.mark.parametrize("groups", [1, 2, 3])
def test_a_standard_norm_is_a_group_norm(groups):
    x = RNG.normal(3, 2, (2, 6, 4, 5))
    ours = evaluate(Map(), x, x.shape[1:], prologue=[Norm("standard", (0, 1, 2), groups, 1e-3)])
    close(ours, functional.group_norm(torch.from_numpy(x), groups, eps=1e-3))


def test_any_dimension_of_a_norm_can_be_cut_into_groups():
    x = RNG.normal(3, 2, (2, 5, 6))
    ours = evaluate(Map(), x, x.shape[1:], prologue=[Norm("standard", (1, 0), 3, 1e-3)])
    close(ours, functional.group_norm(torch.from_numpy(x).mT, 3, eps=1e-3).mT)


def test_norms_over_the_last_dimension():
    x = RNG.normal(3, 2, (2, 6, 4))
    (t,) = tensors(x)
    norm = lambda kind, epsilon: evaluate(Map(), x, (6, 4), prologue=[Norm(kind, (1,), 1, epsilon)])  # noqa: E731
    close(norm("standard", 1e-2), functional.layer_norm(t, (4,), eps=1e-2))
    close(norm("rms", 1e-2), functional.rms_norm(t, (4,), eps=1e-2))
    close(norm("l2", 8.0), functional.normalize(t, dim=-1, eps=8.0))


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("spatial", [(11,), (9, 12)])
def test_convolution(spatial, groups):
    n = len(spatial)
    x, w, b = RNG.normal(size=(2, 4, *spatial)), RNG.normal(size=(6, 4 // groups, *(3, 2)[:n])), RNG.normal(size=6)
    strides, dilations, pads = (2, 1)[:n], (2, 3)[:n], ((1, 2), (0, 3))[:n]
    tx, tw, tb = tensors(x, w, b)
    padded = functional.pad(tx, [p for pair in reversed(pads) for p in pair])
    theirs = getattr(functional, f"conv{n}d")(padded, tw, tb, strides, 0, dilations, groups)
    close(evaluate(Convolution(strides, pads, dilations, groups), x, tuple(theirs.shape[1:]), w, b), theirs)


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("spatial", [(5,), (5, 4)])
def test_transposed_convolution(spatial, groups):
    n = len(spatial)
    x, w, b = RNG.normal(size=(2, 4, *spatial)), RNG.normal(size=(4, 6 // groups, *(4, 3)[:n])), RNG.normal(size=6)
    strides, dilations, padding = (2, 3)[:n], (1, 2)[:n], (1, 1)[:n]
    for extra in (0, 1):
        tx, tw, tb = tensors(x, w, b)
        theirs = getattr(functional, f"conv_transpose{n}d")(tx, tw, tb, strides, padding, extra, groups, dilations)
        kind = Convolution(strides, tuple((p, p) for p in padding), dilations, groups, transposed=True)
        close(evaluate(kind, x, tuple(theirs.shape[1:]), w, b), theirs)


def test_linear_puts_its_parts_side_by_side():
    x, w = RNG.normal(size=(2, 3, 5)), [RNG.normal(size=(n, 5)) for n in (2, 4)]
    b = [RNG.normal(size=n) for n in (2, 4)]
    theirs = functional.linear(*tensors(x, np.concatenate(w), np.concatenate(b)))
    close(evaluate(Linear(2), x, (3, 6), *w, *b), theirs)
    close(evaluate(Linear(1), x[:, 0], (2,), w[0]), functional.linear(*tensors(x[:, 0], w[0])))


@pytest.mark.parametrize("causal", [False, True])
def test_attention(causal):
    q, k, v = RNG.normal(size=(3, 2, 6, 4)), RNG.normal(size=(2, 5, 4)), RNG.normal(size=(2, 5, 3))
    tq, tk, tv = tensors(q, np.stack([k] * 3), np.stack([v] * 3))
    theirs = functional.scaled_dot_product_attention(tq, tk, tv, is_causal=causal, scale=0.7)
    close(evaluate(Attention(0.7, causal), q, (2, 6, 3), k, v), theirs)


def test_attention_caps_its_scores_and_then_adds_the_mask():
    q, k, v, mask = RNG.normal(size=(2, 6, 4)), RNG.normal(size=(5, 4)), RNG.normal(size=(5, 3)), RNG.normal(size=(6, 5))
    mask[:, 2] = -np.inf
    tq, tk, tv, tm = tensors(q, k, v, mask)
    scores = 1.5 * torch.tanh(0.9 * tq @ tk.T / 1.5) + tm
    close(evaluate(Attention(0.9, softcap=1.5), q, (6, 3), k, v, mask), torch.softmax(scores, -1) @ tv)


def test_product_softmax_and_reductions():
    x, w = RNG.normal(size=(2, 3, 4, 5)), RNG.normal(size=(3, 5, 2))
    tx, tw = tensors(x, w)
    close(evaluate(Product(), x, (3, 4, 2), w), tx @ tw)
    close(evaluate(Softmax(1), x, (3, 4, 5)), torch.softmax(tx, 2))
    for function, theirs in {"sum": torch.sum, "mean": torch.mean, "max": torch.amax, "min": torch.amin}.items():
        close(evaluate(Reduce(function, (0, 2)), x, (1, 4, 1)), theirs(tx, (1, 3), keepdim=True))


@pytest.mark.parametrize("count_padding", [False, True])
def test_pooling(count_padding):
    x = RNG.normal(size=(2, 3, 7, 6))
    (t,) = tensors(x)
    theirs = functional.avg_pool2d(t, (3, 2), (2, 1), 1, count_include_pad=count_padding)
    kind = Pool("mean", (3, 2), (2, 1), ((1, 1), (1, 1)), count_padding)
    close(evaluate(kind, x, tuple(theirs.shape[1:]), prologue=()), theirs)
    theirs = functional.max_pool2d(t, (3, 2), (2, 1), 1)
    close(evaluate(Pool("max", (3, 2), (2, 1), ((1, 1), (1, 1))), x, tuple(theirs.shape[1:])), theirs)


def test_resize_interpolates_along_one_axis():
    x = RNG.normal(size=(2, 3, 4, 5))
    at = np.clip((np.arange(10) + 0.5) / 2 - 0.5, 0, 4)
    first = np.floor(at)
    ours = evaluate(Resize(2), x, (3, 4, 10), first, np.minimum(first + 1, 4), at - first)
    close(ours, functional.interpolate(torch.from_numpy(x), (4, 10), mode="bilinear"))


def test_gather_reads_rows_of_a_table_and_refuses_a_bad_index():
    table = RNG.normal(size=(5, 2, 3))
    buffers = (Buffer(4), Buffer(1, Level.TIME), Buffer(24), Buffer(30, Level.CONSTANT, initializer="w"))
    operation = Operation(Gather(), (dense(3, (5, 2, 3)), dense(0, (4,))), dense(2, (4, 2, 3)), source="node 7")
    program = Program(buffers, (Input("x", 0, (4,)), Input("t", 1, ())), operation.output, (operation,))
    reference = Reference(program, lambda name: table)
    indices = np.array([[0, 4, 2, -1], [1, 1, 3, -5]])  # negative ones count from the end
    close(reference(indices, np.zeros(2)), torch.from_numpy(table)[torch.from_numpy(indices)])
    for bad in (-6, 5, 0.5, -0.5, np.nan):
        with pytest.raises(NetworkError, match=r"node 7: .* from -5 to 4"):
            reference(np.array([[0, 1, bad, 2]]), np.zeros(1))


# ---- views, rows and errors ---------------------------------------------------------------------


def test_views_transpose_split_repeat_and_place_side_by_side():
    """y = [x doubled by nearest neighbours and transposed, the second half of x]."""
    x = RNG.normal(size=(3, 4, 6))
    inputs = (Input("x", 0, (4, 6)), Input("t", 1, ()))
    doubled = View(0, 0, (((6, 1), (2, 0)), ((4, 6), (2, 0))))  # (12, 8)
    half = View(0, 12, (((2, 6),), ((6, 1),)))
    operations = (
        Operation(Map(), (doubled,), View(2, 0, (((12, 8),), ((8, 1),)))),
        Operation(Map(), (half,), View(2, 96, (((2, 6),), ((6, 1),)))),
    )
    program = Program((Buffer(24), Buffer(1, Level.TIME), Buffer(108)), inputs, dense(2, (108,)), operations)
    y = Reference(program, {})(x, np.zeros(3))
    np.testing.assert_array_equal(y[:, :96].reshape(3, 12, 8), x.repeat(2, 1).repeat(2, 2).transpose(0, 2, 1))
    np.testing.assert_array_equal(y[:, 96:].reshape(3, 2, 6), x[:, 2:])


def test_each_level_is_computed_at_its_own_rows():
    """y = x + (t * t + (c + w) * t), with each product at its level."""
    levels = (Level.SAMPLE, Level.TIME, Level.CONDITION, Level.TIME, Level.CONDITION, Level.TIME | Level.CONDITION, Level.SAMPLE)
    buffers = (*(Buffer(1, level) for level in levels), Buffer(1, Level.CONSTANT, initializer="w"))
    view = [View(i, 0, ((),)) for i in range(8)]
    stages = lambda function, i: (Binary(function, view[i]),)  # noqa: E731
    operations = (
        Operation(Map(), (view[1],), view[3], stages("multiply", 1)),
        Operation(Map(), (view[2],), view[4], stages("add", 7)),
        Operation(Map(), (view[4],), view[5], (*stages("multiply", 1), *stages("add", 3))),
        Operation(Map(), (view[0],), view[6], stages("add", 5)),
    )
    inputs = (Input("x", 0, (1,)), Input("t", 1, ()), Input("c", 2, (1,)))
    reference = Reference(Program(buffers, inputs, view[6], operations), {"w": np.array([0.25])})

    x, t, c = RNG.normal(size=(6, 1)), np.array([3.0, 1, 3, 3, 1, 2]), np.array([[5.0], [5], [7], [5], [7], [7]])
    expected = x + (t * t)[:, None] + (c + 0.25) * t[:, None]
    np.testing.assert_allclose(reference(x, t, [c]), expected, rtol=1e-14)

    times, conditions = reference.prepare_times(np.array([1.0, 2, 3])), reference.prepare_conditions([np.array([[7.0], [5]])])
    assert {buffer: len(rows) for buffer, rows in (times | conditions).items()} == {1: 3, 3: 3, 2: 2, 4: 2}
    y = reference.run(x[:2], times, np.array([2, 0, 2]), conditions, np.array([1, 1, 0]), x_row=np.array([0, 1, 1]))
    np.testing.assert_allclose(y, expected[:3] - x[:3] + x[[0, 1, 1]], rtol=1e-14)


def test_errors_are_typed():
    program = one_operation(Linear(), (3,), (2,), [(2, 3)])
    with pytest.raises(ArtifactError, match="'w0' is missing"):
        Reference(program, {})
    with pytest.raises(ArtifactError, match="'w0' has 5 elements and the program expects 6"):
        Reference(program, {"w0": np.zeros(5)})
    reference = Reference(program, {"w0": np.ones((2, 3))})
    with pytest.raises(ArgumentError, match=r"'x' has shape \(2, 4\)"):
        reference(np.zeros((2, 4)), np.zeros(2))
    with pytest.raises(ArgumentError, match="1 conditioning inputs were given and the network has 0"):
        reference(np.zeros((2, 3)), np.zeros(2), [np.zeros(2)])
    outside = Operation(Map(), (View(0, 1, (((3, 1),),)),), dense(2, (3,)))
    wrong = Program((Buffer(3), Buffer(1, Level.TIME), Buffer(3)), program.inputs, dense(2, (3,)), (outside,))
    with pytest.raises(ArtifactError, match="outside its 3 elements"):
        Reference(wrong, {})(np.zeros((2, 3)), np.zeros(2))
    with pytest.raises(ArtifactError, match="read before it is written"):
        Reference(Program(wrong.buffers, wrong.inputs, wrong.output, ()), {})(np.zeros((2, 3)), np.zeros(2))


def test_nan_stays_in_its_sample():
    x = RNG.normal(size=(3, 4, 6))
    norm = [Norm("standard", (0, 1), 2, 1e-5), Unary("silu")]
    clean = evaluate(Map(), x, (4, 6), prologue=norm)
    x[1, 2, 3] = np.nan
    y = evaluate(Map(), x, (4, 6), prologue=norm)
    assert np.isnan(y[1]).any()
    np.testing.assert_array_equal(y[[0, 2]], clean[[0, 2]])
