"""The text of a program."""

import pytest

from diffuse_fast.program import views
from diffuse_fast.program.finish import finish
from diffuse_fast.program.fuse import fuse
from diffuse_fast.program.program import Attention, Binary, Convolution, Gather, Norm, Pool, Reduce, Resize, Softmax, Unary, View
from diffuse_fast.program.show import show
from tests.program.drafts import BATCH, Maker, group_norm, silu


def test_a_program_has_one_line_per_operation_under_its_level():
    maker = Maker(4, 6, 6)
    shift = maker.linear(silu(maker, maker.linear(views.reshape(maker.t, (BATCH, 1)), 8)), 4)
    x = maker.convolution(maker.x, 4)
    h = maker.convolution(silu(maker, group_norm(maker, x, 2)), 4)
    h = maker.map(h, Binary("add", View(shift.buffer, 0, (h.dims[0], shift.dims[1], ((6, 0),), ((6, 0),)))))
    assert show(finish(fuse(maker.finish(maker.map(x, Binary("add", h)))))) == (
        "inputs x %0 4x6x6, t %1 1\n"
        "time: 2 operations\n"
        "  %4 8 = linear (%1 1 w w) silu\n"
        "  %7 4 = linear (%4 8 w w)\n"
        "sample: 2 operations\n"
        "  %10 4x6x6 = convolution 3x3 (%0 4x6x6 w w)\n"
        "  %13 4x6x6 = convolution 3x3 (norm:2 *w +w silu %10 4x6x6 w w) +%7 +%10\n"
        "output %13 4x6x6"
    )


def test_a_draft_shows_the_prime_that_stands_for_the_batch():
    maker = Maker(3)
    assert f"%4 {BATCH}x5 = linear (%0 {BATCH}x3 w w)" in show(maker.finish(maker.linear(maker.x, 5)))


def line(kind, inputs, shape, *stages, x=(4, 6, 6)):
    """How an operation shows: between the sign and its inputs."""
    maker = Maker(*x)
    views_of = [maker.weight(*one) if isinstance(one, tuple) else maker.x for one in inputs]
    maker.add(kind, views_of, shape, stages)
    text = show(maker.finish(maker.x)).splitlines()[2]
    return text.partition(" = ")[2]


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (Convolution((2, 2), ((1, 1), (1, 1)), (1, 1), 2), "convolution 3x3 /2x2 groups 2 (%0 997x4x6x6 w)"),
        (Convolution((1, 1), ((2, 2), (2, 2)), (2, 2)), "convolution 3x3 dilated 2x2 (%0 997x4x6x6 w)"),
        (Convolution((2, 2), ((1, 1), (1, 1)), (1, 1), transposed=True), "transposed convolution 3x3 /2x2 (%0 997x4x6x6 w)"),
    ],
)
def test_convolutions(kind, expected):
    assert line(kind, ["x", (4, 4 // kind.groups, 3, 3)], (4, 6, 6)) == expected


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (Pool("max", (2, 2), (2, 2), ((0, 0), (0, 0))), "max pool 2x2 /2x2 (%0 997x4x6x6)"),
        (Softmax(2), "softmax along 2 (%0 997x4x6x6)"),
        (Reduce("mean", (2, 3)), "mean over 2,3 (%0 997x4x6x6)"),
        (Resize(3), "resize along 3 (%0 997x4x6x6)"),
        (Gather(), "gather (%0 997x4x6x6)"),
        (Attention(0.125, causal=True, softcap=3.0), "attention 0.125 causal cap 3 (%0 997x4x6x6)"),
    ],
)
def test_other_kinds(kind, expected):
    assert line(kind, ["x"], (4, 6, 6)) == expected


def test_stages():
    stages = (Norm("rms", (1,), 1, 1e-6), Binary("multiply", 0.5), Binary("reverse_subtract", 1.0), Unary("elu", 0.3), Unary("exp"))
    assert line(Reduce("sum", (1,)), ["x"], (1, 6, 6), *stages) == "sum over 1 (rms *0.5 rsub 1 elu:0.3 exp %0 997x4x6x6)"
