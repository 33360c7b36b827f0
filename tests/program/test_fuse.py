"""Fusion, pass by pass on drafts made by hand: the operations that are left, and the same result to 1e-12."""

from __future__ import annotations

import pytest

from diffuse_fast.errors import ArtifactError
from diffuse_fast.program import fuse as fusing
from diffuse_fast.program import views
from diffuse_fast.program.fuse import fuse
from diffuse_fast.program.program import (
    Attention,
    Binary,
    Convolution,
    Level,
    Linear,
    Map,
    Norm,
    Pool,
    Product,
    Reduce,
    Softmax,
    Unary,
    View,
)
from tests.program.drafts import BATCH, Maker, fused, group_norm, kinds, per_channel, silu

SCALE = Binary("multiply", 0.5)


def only(draft):
    """The single operation of a draft."""
    (op,) = draft.operations
    return op


def words(stages):
    """Stages in short: the function, or ``norm``."""
    return [stage.function if isinstance(stage, Unary | Binary) else "norm" for stage in stages]


# ---- cleaning up ----------------------------------------------------------------------------------


def test_an_operation_that_nobody_reads_is_removed():
    maker = Maker(4)
    maker.linear(maker.linear(maker.x, 8), 8)
    draft = fused(maker, maker.linear(maker.x, 4))
    assert kinds(draft) == ["Linear"]


def test_stages_that_change_nothing_are_removed():
    maker = Maker(4)
    x = maker.map(maker.x, Binary("multiply", 1.0), Unary("tanh"), Binary("add", 0.0), Binary("divide", 1.0))
    assert words(only(fused(maker, x)).prologue) == ["tanh"]


def test_numbers_that_follow_each_other_are_one():
    maker = Maker(4)
    x = maker.map(maker.x, Unary("tanh"), SCALE, Binary("divide", 0.25), Binary("multiply", 3.0))
    x = maker.map(x, Unary("sin"), SCALE, Binary("divide", 0.5))
    assert only(fused(maker, x)).prologue == (Unary("tanh"), Binary("multiply", 6.0), Unary("sin"))


def test_equal_operations_are_computed_once():
    maker = Maker(4)
    a, b = maker.map(maker.x, Unary("exp")), maker.map(maker.x, Unary("exp"))
    weight = maker.weight(4, 4)
    a, b = (maker.add(Linear(), (x, weight), (4,)) for x in (a, b))
    draft = fused(maker, maker.map(a, Binary("multiply", b)))
    assert kinds(draft) == ["Linear", "Map"]


def test_operations_that_differ_in_a_stage_are_not_one():
    maker = Maker(4)
    a, b = maker.map(maker.x, Unary("exp")), maker.map(maker.x, Unary("sin"))
    fused(maker, maker.map(a, Binary("multiply", b)))


# ---- copies ---------------------------------------------------------------------------------------


def test_a_copy_is_read_through():
    maker = Maker(6, 4)
    x = maker.map(views.permute(maker.x, (0, 2, 1)), order=range(3))
    x = views.reshape(x, (BATCH, 24))
    assert kinds(fused(maker, maker.map(x, SCALE))) == ["Map"]


def test_a_copy_that_makes_channels_dense_stays():
    maker = Maker(3, 4, 4)  # row-major: the channels are 16 apart
    x = maker.map(maker.x)
    assert kinds(fused(maker, maker.convolution(x, 5))) == ["Map", "Convolution"]


def test_the_output_is_written_by_its_operation():
    maker = Maker(3, 4, 4)
    op = only(fused(maker, maker.convolution(maker.x, 5)))
    assert op.output.dims[1:] == (((5, 16),), ((4, 4),), ((4, 1),))


def test_an_output_that_is_also_read_by_a_convolution_is_copied():
    maker = Maker(3, 4, 4)
    x = maker.convolution(maker.x, 5)
    y = maker.add(Reduce("mean", (2, 3)), (maker.convolution(x, 5),), (5, 1, 1))
    draft = fused(maker, maker.map(x, Binary("add", views.expand(y, x.dims))))
    assert kinds(draft) == ["Convolution", "Convolution", "Reduce", "Map"]


# ---- prologue -------------------------------------------------------------------------------------


def test_norm_scale_bias_and_activation_go_into_the_convolution_that_reads_them():
    maker = Maker(4, 6, 6)
    x = maker.convolution(maker.x, 4)
    draft = fused(maker, maker.convolution(silu(maker, group_norm(maker, x, 2)), 8))
    assert kinds(draft) == ["Convolution", "Convolution"]
    assert words(draft.operations[1].prologue) == ["norm", "multiply", "add", "silu"]


@pytest.mark.parametrize(
    "reader",
    [
        lambda maker, x: maker.linear(x, 3),
        lambda maker, x: maker.add(Softmax(2), (x,), x.shape[1:]),
        lambda maker, x: maker.add(Reduce("sum", (1,)), (x,), (1, x.shape[2])),
    ],
    ids=["linear", "softmax", "reduce"],
)
def test_stages_go_into_other_kinds(reader):
    maker = Maker(5, 4)
    op = only(fused(maker, reader(maker, maker.map(maker.x, Unary("tanh")))))
    assert words(op.prologue) == ["tanh"]


def test_stages_go_into_pooling():
    maker = Maker(4, 6, 6)
    pool = Pool("mean", (2, 2), (2, 2), ((0, 0), (0, 0)))
    x = group_norm(maker, maker.convolution(maker.x, 4), 2)
    draft = fused(maker, maker.add(pool, (x,), (4, 3, 3)))
    assert kinds(draft) == ["Convolution", "Pool"]
    assert words(draft.operations[1].prologue) == ["norm", "multiply", "add"]


def test_a_group_norm_goes_into_the_linear_that_reads_pixels():
    maker = Maker(4, 6, 6)
    x = maker.convolution(maker.x, 4)
    rows = views.permute(views.reshape(group_norm(maker, x, 2), (BATCH, 4, 36)), (0, 2, 1))
    draft = fused(maker, maker.linear(rows, 3))
    assert kinds(draft) == ["Convolution", "Linear"]
    assert draft.operations[1].prologue[0] == Norm("standard", (2, 1), 2, 1e-5)


def test_a_norm_over_reshaped_groups_is_a_group_norm():
    maker = Maker(4, 6, 6)
    x = maker.map(maker.x, Unary("exp"), order=range(4))
    groups = views.reshape(maker.map(views.reshape(x, (BATCH, 2, 72)), Norm("standard", (2,), 1, 1e-5), order=range(3)), x.shape)
    draft = fused(maker, maker.convolution(groups, 5))
    assert draft.operations[-1].prologue == (Norm("standard", (1, 2, 3), 2, 1e-5),)


def test_stages_go_through_nearest_doubling():
    maker = Maker(4, 3, 3)
    x = silu(maker, group_norm(maker, maker.convolution(maker.x, 4), 2))
    doubled = views.repeat(views.repeat(x, 2, 2), 3, 2)
    assert kinds(fused(maker, maker.convolution(doubled, 3))) == ["Convolution", "Convolution"]


def test_stages_with_two_readers_are_stored():
    maker = Maker(4, 6, 6)
    x = silu(maker, group_norm(maker, maker.convolution(maker.x, 4), 2))
    y = maker.map(maker.convolution(x, 4), Binary("add", x))
    draft = fused(maker, y)
    assert kinds(draft) == ["Convolution", "Map", "Convolution"]


def test_a_norm_stays_behind_what_it_normalises():
    maker = Maker(5, 4)
    x = maker.map(maker.map(maker.x, Unary("exp")), Norm("standard", (2,), 1, 1e-5))
    draft = fused(maker, maker.linear(x, 3))
    assert [words(op.prologue) for op in draft.operations] == [["exp"], ["norm"]]


# ---- epilogue -------------------------------------------------------------------------------------


def test_time_activation_gate_and_residual_go_into_the_convolution_that_writes_them():
    maker = Maker(4, 6, 6)
    first = maker.convolution(maker.x, 4)
    h = maker.convolution(first, 4)
    time = maker.linear(views.reshape(maker.t, (BATCH, 1)), 8)
    shift, gate = (per_channel(View(time.buffer, start, (((4, 1),),)), h) for start in (0, 4))
    shift, gate = (View(v.buffer, v.offset, (h.dims[0], *v.dims[1:])) for v in (shift, gate))
    h = maker.map(maker.map(h, Binary("add", shift)), Unary("silu"))
    h = maker.map(maker.map(h, Binary("multiply", gate)), Binary("add", first))
    draft = fused(maker, h)
    assert kinds(draft, Level.TIME) == ["Linear"]
    assert kinds(draft) == ["Convolution", "Convolution"]
    assert words(draft.operations[-1].epilogue) == ["add", "silu", "multiply", "add"]


@pytest.mark.parametrize("function", ["add", "subtract", "multiply", "divide", "maximum"])
def test_the_operand_that_a_convolution_writes_becomes_the_main_one(function):
    maker = Maker(4, 6, 6)
    first = maker.map(maker.convolution(maker.x, 4), Unary("exp"))
    second = maker.convolution(first, 4)
    draft = fused(maker, maker.map(first, Binary(function, second)))
    assert kinds(draft) == ["Convolution", "Convolution"]
    swapped = {"subtract": "reverse_subtract", "divide": "reverse_divide"}.get(function, function)
    assert words(draft.operations[-1].epilogue) == [swapped]


def test_of_two_convolutions_the_later_adds_the_other():
    maker = Maker(4, 6, 6)
    x = maker.map(maker.x, Unary("exp"))
    a, b = maker.convolution(x, 4), maker.convolution(x, 4)
    for first, second in ((a, b), (b, a)):
        draft = fused(maker, maker.map(first, Binary("add", second)))
        assert kinds(draft)[-2:] == ["Convolution", "Convolution"]
        assert words(draft.operations[-1].epilogue) == ["add"]
        maker.draft.operations.pop()


def test_maps_through_a_reshape_go_into_the_linear():
    maker = Maker(4, 6, 6)
    x = maker.map(maker.x, Unary("exp"))
    rows = maker.linear(views.permute(views.reshape(x, (BATCH, 4, 36)), (0, 2, 1)), 4)
    image = views.reshape(views.permute(rows, (0, 2, 1)), (BATCH, 4, 6, 6))
    draft = fused(maker, maker.map(image, Binary("add", x)))
    assert kinds(draft) == ["Map", "Linear"]


def test_stages_behind_a_concatenation_go_into_the_operations_that_write_its_parts():
    maker = Maker(4, 6, 6)
    first = maker.map(maker.convolution(maker.x, 9), Unary("exp"))
    both = maker.concatenate([maker.convolution(first, 4), maker.convolution(first, 5)])
    y = maker.map(maker.map(both, Binary("add", first)), Unary("tanh"))
    draft = fused(maker, maker.convolution(y, 3))
    assert kinds(draft) == ["Convolution"] * 4
    assert [words(op.epilogue) for op in draft.operations[1:3]] == [["add", "tanh"]] * 2


def test_stages_that_read_what_is_written_after_a_part_stay():
    maker = Maker(4, 6, 6)
    first = maker.convolution(maker.x, 4)
    second = maker.convolution(first, 4)
    both = maker.concatenate([first, maker.convolution(maker.x, 4)])
    y = maker.map(both, Binary("multiply", maker.concatenate([second, second])))
    fused(maker, maker.convolution(y, 3))


def test_levels_are_not_fused():
    maker = Maker(4)
    time = maker.map(maker.linear(views.reshape(maker.t, (BATCH, 1)), 4), Unary("silu"))
    draft = fused(maker, maker.map(time, Binary("add", maker.x)))
    assert (kinds(draft, Level.TIME), kinds(draft)) == (["Linear"], ["Map"])
    assert words(draft.operations[0].epilogue) == ["silu"]


def test_a_constant_per_channel_becomes_the_bias():
    maker = Maker(5, 4)
    x = maker.linear(maker.x, 3, bias=False)
    op = only(fused(maker, maker.map(x, Binary("add", per_channel(maker.weight(3), x, 2)))))
    assert (len(op.inputs), op.epilogue) == (3, ())


def test_a_constant_that_differs_between_rows_is_no_bias():
    maker = Maker(5, 3)
    x = maker.linear(maker.x, 3, bias=False)
    weight = maker.weight(5, 3)
    op = only(fused(maker, maker.map(x, Binary("add", View(weight.buffer, 0, (x.dims[0], *weight.dims))))))
    assert (len(op.inputs), words(op.epilogue)) == (2, ["add"])


# ---- linears --------------------------------------------------------------------------------------


def test_a_convolution_of_one_pixel_is_a_linear():
    maker = Maker(4, 6, 6)
    x = group_norm(maker, maker.convolution(maker.x, 4), 2)
    draft = fused(maker, maker.map(maker.convolution(x, 8, kernel=1), Unary("silu")))
    assert kinds(draft) == ["Convolution", "Linear"]
    assert draft.operations[1].prologue[0] == Norm("standard", (3, 1, 2), 2, 1e-5)


def test_linears_of_one_input_are_merged_before_a_norm_goes_into_them():
    maker = Maker(9, 4)
    x = maker.map(maker.map(maker.x, Unary("exp")), Norm("standard", (2,), 1, 1e-5))
    q, k, v = (maker.linear(x, width) for width in (4, 4, 8))
    y = maker.add(Attention(0.5), (q, k, v), (9, 8), order=range(3))
    draft = fused(maker, y)
    assert kinds(draft) == ["Map", "Linear", "Attention"]
    assert draft.operations[1].kind == Linear(3)
    assert words(draft.operations[1].prologue) == ["norm"]
    assert [view.offset for view in draft.operations[2].inputs] == [0, 4, 8]


def test_linears_of_the_time_of_all_blocks_are_merged():
    maker = Maker(4, 6, 6)
    time = maker.map(maker.linear(views.reshape(maker.t, (BATCH, 1)), 8), Unary("silu"))
    h = maker.convolution(maker.x, 4)
    for _ in range(3):
        again = maker.map(time, Unary("silu"))  # each block has its own
        shift = maker.linear(again, 4)
        h = maker.convolution(maker.map(h, Binary("add", View(shift.buffer, 0, (h.dims[0], ((4, 1),), ((6, 0),), ((6, 0),))))), 4)
    draft = fused(maker, h)
    assert kinds(draft, Level.TIME) == ["Linear", "Linear"]
    assert draft.operations[1].kind == Linear(3)
    assert kinds(draft) == ["Convolution"] * 4


def test_linears_with_and_without_bias_are_not_merged():
    maker = Maker(9, 4)
    a, b = maker.linear(maker.x, 4), maker.linear(maker.x, 4, bias=False)
    fused(maker, maker.map(maker.map(a, Unary("exp")), Binary("add", maker.add(Softmax(2), (b,), (9, 4)))))


def test_linears_of_one_input_with_different_stages_are_not_merged():
    maker = Maker(9, 4)
    x = maker.map(maker.convolution(views.permute(maker.x, (0, 2, 1)), 4), Norm("standard", (1,), 1, 1e-5))
    x = views.permute(x, (0, 2, 1))
    a, b = maker.linear(maker.map(x, Unary("tanh")), 4), maker.linear(x, 4)
    draft = fused(maker, maker.add(Product(), (a, views.permute(b, (0, 2, 1))), (9, 9), order=range(3)))
    assert kinds(draft)[-3:] == ["Linear", "Linear", "Product"]


# ---- attention ------------------------------------------------------------------------------------


def heads(maker, x, width, count):
    """A projection cut into heads: (batch, heads, tokens, width of one)."""
    y = views.reshape(maker.linear(x, width), (BATCH, x.shape[1], count, width // count))
    return views.permute(y, (0, 2, 1, 3))


def attend(maker, x, *, scores=(), operands=False, count=2, order="qk"):
    """softmax(q k^T) v as two products, with maps on the scores, and the projection behind it."""
    q, k, v = (heads(maker, x, 8, count) for _ in range(3))
    if operands:
        q, k = (maker.map(y, SCALE, order=range(4)) for y in (q, k))
    tokens = x.shape[1]
    if order == "qk":
        s = maker.add(Product(), (q, views.permute(k, (0, 1, 3, 2))), (count, tokens, tokens), order=range(4))
    else:
        s = maker.add(Product(), (k, views.permute(q, (0, 1, 3, 2))), (count, tokens, tokens), order=range(4))
        s = views.permute(s, (0, 1, 3, 2))
    for stage in scores:
        s = maker.map(s, stage, order=range(4))
    p = maker.add(Softmax(3), (s,), (count, tokens, tokens), order=range(4))
    if order == "qk":
        y = maker.add(Product(), (p, v), (count, tokens, 8 // count), order=range(4))
    else:
        y = maker.add(
            Product(), (views.permute(v, (0, 1, 3, 2)), views.permute(p, (0, 1, 3, 2))), (count, 8 // count, tokens), order=range(4)
        )
        y = views.permute(y, (0, 1, 3, 2))
    return maker.linear(views.reshape(views.permute(y, (0, 2, 1, 3)), (BATCH, tokens, 8)), 4)


@pytest.mark.parametrize("order", ["qk", "kq"])
@pytest.mark.parametrize(
    ("scores", "operands", "expected"),
    [
        ((), False, Attention(1.0)),
        ((SCALE,), False, Attention(0.5)),
        ((Binary("divide", 4.0),), True, Attention(0.0625)),
        ((SCALE, Unary("tanh"), Binary("multiply", 3.0)), False, Attention(1.5, softcap=3.0)),
    ],
    ids=["plain", "scale", "scaled operands", "soft cap"],
)
def test_two_products_around_a_softmax_are_attention(order, scores, operands, expected):
    maker = Maker(9, 4)
    x = maker.map(maker.x, Unary("exp"))
    draft = fused(maker, maker.map(attend(maker, x, scores=scores, operands=operands, order=order), Binary("add", x)))
    assert kinds(draft) == ["Map", "Linear", "Attention", "Linear"]
    assert draft.operations[2].kind == expected
    assert draft.operations[3].inputs[0].dims[2] == ((8, 1),)  # heads side by side
    assert words(draft.operations[3].epilogue) == ["add"]


def test_a_mask_is_an_input_of_attention():
    maker = Maker(9, 4)
    mask = maker.weight(9, 9)
    mask = View(mask.buffer, 0, (maker.x.dims[0], ((2, 0),), *mask.dims))
    draft = fused(maker, attend(maker, maker.x, scores=(SCALE, Binary("add", mask))))
    assert kinds(draft) == ["Linear", "Attention", "Linear"]
    assert len(draft.operations[1].inputs) == 4


@pytest.mark.parametrize(
    "scores", [(Unary("relu"),), (Binary("add", 2.0), SCALE), (Norm("standard", (3,), 1, 1e-5),)], ids=["relu", "add", "norm"]
)
def test_other_stages_between_products_are_no_attention(scores):
    maker = Maker(9, 4)
    draft = fused(maker, attend(maker, maker.x, scores=scores))
    assert kinds(draft) == ["Linear", "Product", "Softmax", "Product", "Linear"]


def test_a_softmax_over_queries_is_no_attention():
    maker = Maker(9, 4)
    q, k, v = (heads(maker, maker.x, 8, 2) for _ in range(3))
    s = maker.add(Product(), (q, views.permute(k, (0, 1, 3, 2))), (2, 9, 9), order=range(4))
    p = maker.add(Softmax(2), (s,), (2, 9, 9), order=range(4))
    draft = fused(maker, maker.add(Product(), (p, v), (2, 9, 4), order=range(4)))
    assert kinds(draft) == ["Linear", "Product", "Softmax", "Product"]


def test_a_softmax_across_queries_and_keys_is_no_attention():
    maker = Maker(12, 4)
    q, k, v = maker.linear(maker.x, 4), maker.linear(maker.x, 4), maker.linear(maker.x, 4)
    q, k = views.narrow(q, 1, 0, 4), views.narrow(k, 1, 0, 6)
    s = maker.add(Product(), (q, views.permute(k, (0, 2, 1))), (4, 6), order=range(3))
    s = views.reshape(s, (BATCH, 2, 12))  # two queries in one row
    p = maker.add(Softmax(2), (s,), (2, 12), order=range(3))
    assert "Attention" not in kinds(fused(maker, maker.add(Product(), (p, v), (2, 4), order=range(3))))


def test_scores_that_are_read_again_are_no_attention():
    maker = Maker(9, 4)
    q, k, v = (heads(maker, maker.x, 8, 2) for _ in range(3))
    s = maker.add(Product(), (q, views.permute(k, (0, 1, 3, 2))), (2, 9, 9), order=range(4))
    p = maker.add(Softmax(3), (s,), (2, 9, 9), order=range(4))
    y = maker.add(Product(), (p, v), (2, 9, 4), order=range(4))
    y = maker.map(y, Binary("add", views.narrow(s, 3, 0, 4)))
    assert "Attention" not in kinds(fused(maker, y))


# ---- concatenation --------------------------------------------------------------------------------


def test_the_parts_of_a_concatenation_are_written_in_place():
    maker = Maker(4, 6, 6)
    first = maker.convolution(maker.x, 4)
    second = maker.convolution(silu(maker, group_norm(maker, first, 2)), 8)
    draft = fused(maker, maker.convolution(maker.concatenate([second, first]), 4))
    assert kinds(draft) == ["Convolution"] * 3
    assert draft.operations[0].output.offset == 8
    assert draft.operations[1].inputs[0] == draft.operations[0].output


def test_a_concatenation_of_a_concatenation():
    maker = Maker(4, 6, 6)
    a, b, c = (maker.convolution(maker.x, n) for n in (4, 5, 6))
    inner = maker.concatenate([a, b])
    draft = fused(maker, maker.convolution(maker.concatenate([maker.x, inner, c]), 4))
    assert kinds(draft) == ["Convolution"] * 3 + ["Map", "Convolution"]  # the input is copied


def test_a_part_that_is_concatenated_twice_is_copied_once():
    maker = Maker(4, 6, 6)
    a = maker.convolution(maker.x, 4)
    one = maker.convolution(maker.concatenate([a, maker.convolution(a, 3)]), 4)
    draft = fused(maker, maker.convolution(maker.concatenate([one, a]), 4))
    assert sorted(kinds(draft)) == ["Convolution"] * 4 + ["Map"]


def test_parts_of_another_level_are_copied():
    maker = Maker(4, conditions={"c": (3,)})
    time = maker.linear(views.reshape(maker.t, (BATCH, 1)), 5)
    both = maker.linear(maker.concatenate([time, maker.conditions[0]]), 6)
    draft = fused(maker, maker.linear(maker.concatenate([maker.x, both]), 4))
    assert kinds(draft, Level.TIME) == ["Linear"]
    assert kinds(draft, Level.TIME | Level.CONDITION) == ["Map", "Map", "Linear"]
    assert kinds(draft) == ["Map", "Map", "Linear"]


# ---- scales and shifts ----------------------------------------------------------------------------


def time_vectors(maker, like, count):
    """Vectors per channel that depend on the time, as operands of an image."""
    channels = like.shape[1]
    time = maker.linear(views.reshape(maker.t, (BATCH, 1)), count * channels)
    rest = tuple(map(views.repeated, like.dims[2:]))
    return [View(time.buffer, i * channels, (like.dims[0], ((channels, 1),), *rest)) for i in range(count)]


def test_the_weights_of_a_norm_and_the_scale_and_shift_of_the_time_are_one_scale_and_shift():
    maker = Maker(4, 6, 6)
    h = maker.convolution(maker.x, 4)
    scale, shift = time_vectors(maker, h, 2)
    scale = View(scale.buffer, scale.offset, scale.dims[:2])
    more = maker.map(scale, Binary("add", 1.0))
    more = View(more.buffer, 0, (*more.dims, *map(views.repeated, h.dims[2:])))
    y = maker.map(maker.map(group_norm(maker, h, 2), Binary("multiply", more)), Binary("add", shift))
    draft = fused(maker, maker.convolution(silu(maker, y), 3))
    assert kinds(draft) == ["Convolution", "Convolution"]
    assert words(draft.operations[-1].prologue) == ["norm", "multiply", "add", "silu"]
    assert kinds(draft, Level.TIME)[0] == "Linear"
    assert set(kinds(draft, Level.TIME)[1:]) == {"Map"}


@pytest.mark.parametrize(
    ("functions", "expected"),
    [
        (("add", "add"), ["add"]),
        (("multiply", "multiply", "multiply"), ["multiply"]),
        (("add", "multiply"), ["add", "multiply"]),
        (("add", "multiply", "add", "multiply"), ["multiply", "add"]),
        (("multiply", "subtract", "multiply"), ["multiply", "subtract", "multiply"]),
    ],
)
def test_runs_of_vectors_become_at_most_one_scale_and_one_shift(functions, expected):
    maker = Maker(4, 6, 6)
    h = maker.convolution(maker.x, 4)
    for function, vector in zip(functions, time_vectors(maker, h, len(functions)), strict=True):
        h = maker.map(h, Binary(function, vector))
    draft = fused(maker, h)
    assert words(draft.operations[-1].epilogue) == expected
    assert kinds(draft) == ["Convolution"]


def test_numbers_between_vectors_are_part_of_them():
    maker = Maker(4, 6, 6)
    h = maker.convolution(maker.x, 4)
    a, b = time_vectors(maker, h, 2)
    for stage in (Binary("multiply", 3.0), Binary("add", a), Binary("multiply", 2.0), Binary("add", b), Binary("multiply", 0.5)):
        h = maker.map(h, stage)
    draft = fused(maker, h)
    scale, shift = draft.operations[-1].epilogue
    assert scale == Binary("multiply", 3.0)
    assert shift.function == "add"
    assert words(draft.operations[-2].prologue) == ["multiply", "add", "multiply"]


def test_the_gain_of_a_norm_times_a_number_is_a_constant():
    maker = Maker(4, 6, 6)
    h = maker.convolution(maker.x, 4)
    y = maker.map(maker.map(h, Norm("l2", (1,), 1, 1e-5)), Binary("multiply", per_channel(maker.weight(4), h)))
    draft = fused(maker, maker.convolution(maker.map(y, Binary("multiply", 2.0)), 3))
    assert kinds(draft, Level.CONSTANT) == ["Map"]
    assert words(draft.operations[-1].prologue) == ["norm", "multiply"]


def test_vectors_along_different_dimensions_are_not_composed():
    maker = Maker(5, 4)
    x = maker.map(maker.x, Norm("standard", (2,), 1, 1e-5), order=range(3))
    x = maker.map(x, Binary("multiply", per_channel(maker.weight(4), x, 2)), order=range(3))
    x = maker.map(x, Binary("multiply", per_channel(maker.weight(5), x, 1)), order=range(3))
    assert words(only(fused(maker, maker.linear(x, 3))).prologue) == ["norm", "multiply", "multiply"]


def test_vectors_that_depend_on_the_sample_are_not_composed():
    maker = Maker(4, 6, 6)
    h = maker.convolution(maker.x, 4)
    gate = maker.add(Reduce("mean", (2, 3)), (maker.x,), (4, 1, 1))
    gate = View(gate.buffer, 0, (*gate.dims[:2], *map(views.repeated, h.dims[2:])))
    y = maker.map(maker.map(h, Binary("multiply", gate)), Binary("multiply", time_vectors(maker, h, 1)[0]))
    draft = fused(maker, y)
    assert words(draft.operations[-1].epilogue) == ["multiply", "multiply"]


# ---- the whole ------------------------------------------------------------------------------------


def residual_block(maker, x, time, channels):
    """The block of diffusers' UNets."""
    h = maker.convolution(silu(maker, group_norm(maker, x, 2)), channels)
    shift = maker.linear(silu(maker, time), channels)
    shift = View(shift.buffer, 0, (h.dims[0], shift.dims[1], *map(views.repeated, h.dims[2:])))
    h = maker.map(h, Binary("add", shift))
    h = maker.convolution(silu(maker, group_norm(maker, h, 2)), channels)
    return maker.map(x, Binary("add", h))


def attention_block(maker, x):
    """The attention of diffusers' UNets."""
    rows = views.permute(views.reshape(group_norm(maker, x, 2), (BATCH, x.shape[1], 36)), (0, 2, 1))
    y = attend(maker, rows, scores=(SCALE,))
    y = views.reshape(views.permute(y, (0, 2, 1)), x.shape)
    return maker.map(maker.map(y, Binary("add", x)), Binary("divide", 1.0))


def test_a_residual_block_is_two_convolutions_and_an_attention_block_three_operations():
    maker = Maker(4, 6, 6)
    time = maker.linear(views.reshape(maker.t, (BATCH, 1)), 8)
    x = maker.convolution(maker.x, 4)
    x = attention_block(maker, residual_block(maker, x, time, 4))
    draft = fused(maker, maker.convolution(silu(maker, group_norm(maker, x, 2)), 3))
    assert kinds(draft) == ["Convolution"] * 3 + ["Linear", "Attention", "Linear", "Convolution"]
    assert kinds(draft, Level.TIME) == ["Linear", "Linear"]
    block = [op for op in draft.operations if isinstance(op.kind, Convolution)][1:3]
    assert [words(op.prologue) for op in block] == [["norm", "multiply", "add", "silu"]] * 2
    assert [words(op.epilogue) for op in block] == [["add"], ["add"]]


def test_fusing_again_changes_nothing():
    maker = Maker(4, 6, 6)
    time = maker.linear(views.reshape(maker.t, (BATCH, 1)), 8)
    x = attention_block(maker, residual_block(maker, maker.convolution(maker.x, 4), time, 4))
    once = fuse(maker.finish(x))
    assert fuse(once) == once
    assert all(not isinstance(op.kind, Map) for op in once.operations)


def test_a_graph_that_takes_too_long_is_refused(monkeypatch):
    monkeypatch.setattr(fusing, "MAX_SECONDS", 0.0)
    maker = Maker(4)
    with pytest.raises(ArtifactError, match="more than 0 s to fuse"):
        fuse(maker.finish(maker.linear(maker.x, 4)))
