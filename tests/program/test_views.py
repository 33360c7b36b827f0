"""Views as addresses: each change of a view against the same change of an array of addresses in NumPy."""

from __future__ import annotations

import math

import numpy as np
import pytest

from diffuse_fast.program import views
from diffuse_fast.program.draft import ROW
from diffuse_fast.program.program import View

BATCH = 61
FAR = 1_000_000  # stands for one row
RNG = np.random.default_rng(0)


def addresses(view: View) -> np.ndarray:
    """The address of each element, with the shape of the view."""
    found = np.array(view.offset)
    for dim in view.dims:
        along = np.zeros(1, int)
        for size, stride in dim:
            along = (along[:, None] + np.arange(size) * (FAR if stride == ROW else stride)).ravel()
        found = found[..., None] + along
    return found


def dense(*shape: int, order: list[int] | None = None) -> View:
    """A view of (BATCH, *shape) that fills its buffer, with the dimensions in a memory order."""
    dims, _ = views.new_dims(order or list(range(len(shape) + 1)), [((BATCH, ROW),), *(((n, 1),) for n in shape)])
    return View(0, 0, dims)


def same(view: View | None, expected: np.ndarray) -> None:
    assert view is not None
    assert view.shape == expected.shape
    np.testing.assert_array_equal(addresses(view), expected)
    for dim in view.dims:
        assert views.merged(dim) == dim


IMAGES = {
    "row-major": dense(6, 4, 8),
    "channels last": dense(6, 4, 8, order=[0, 2, 3, 1]),
    "columns first": dense(6, 4, 8, order=[0, 3, 1, 2]),
    "narrowed": views.narrow(dense(6, 6, 8, order=[0, 2, 3, 1]), 2, 1, 4),
    "repeated": views.repeat(dense(6, 2, 8, order=[0, 2, 3, 1]), 2, 2),
}


@pytest.mark.parametrize("name", IMAGES)
def test_a_view_is_what_numpy_makes(name):
    view = IMAGES[name]
    table = addresses(view)
    same(views.permute(view, (0, 3, 1, 2)), table.transpose(0, 3, 1, 2))
    same(views.unsqueeze(view, (1, 5)), table[:, None, :, :, :, None])
    same(views.squeeze(views.unsqueeze(view, (1, 5)), (1, 5)), table)
    same(views.narrow(view, 1, 2, 3), table[:, 2:5])
    same(views.narrow(view, 3, 1, 3, 2), table[:, :, :, 1:6:2])
    same(views.narrow(view, 1, 5, 1), table[:, 5:])
    same(views.tile(view, 3, 3), np.tile(table, 3))
    same(views.repeat(view, 2, 3), table.repeat(3, 2))
    same(views.join(view, ((0, 1), (), (3, 2))), table.transpose(0, 1, 3, 2).reshape(BATCH * 6, 1, 32))


@pytest.mark.parametrize("name", ["row-major", "channels last", "narrowed", "repeated"])
@pytest.mark.parametrize(
    "shape", [(BATCH, 2, 3, 4, 8), (BATCH, 6, 4, 2, 4), (BATCH * 6, 4, 8), (BATCH, 1, 6, 1, 4, 8), (BATCH * 2, 3, 4, 8)]
)
def test_cutting_and_joining_dimensions(name, shape):
    view = IMAGES[name]
    same(views.reshape(view, shape), addresses(view).reshape(shape))


def test_a_reshape_across_dimensions_of_one_stride():
    view = dense(6, 4, 8)
    for shape in [(BATCH, 8, 24), (BATCH, 3, 64), (BATCH, 192), (BATCH, 16, 12)]:
        same(views.reshape(view, shape), addresses(view).reshape(shape))


def test_what_is_no_view():
    image = IMAGES["channels last"]
    assert views.reshape(image, (BATCH, 8, 24)) is None
    assert views.reshape(image, (BATCH, 4, 6, 8)) is None
    assert views.reshape(image, (6, BATCH, 4, 8)) is None, "samples would be mixed"
    assert views.reshape(image, (2, BATCH * 96)) is None
    assert views.narrow(image, 0, 0, 1) is None, "a slice of the samples"
    doubled = IMAGES["repeated"]
    assert views.narrow(doubled, 2, 1, 2) is None, "a slice inside of a repetition"
    same(views.narrow(doubled, 2, 2, 2), addresses(doubled)[:, :, 2:])
    tokens = views.join(image, ((0,), (1,), (2, 3)))
    assert views.narrow(tokens, 2, 0, 8) is not None
    heads = views.reshape(views.permute(image, (0, 2, 3, 1)), (BATCH * 4, 8, 6))
    assert views.narrow(heads, 0, 0, BATCH) is None


def test_expanding():
    one = View(0, 5, ((), (), ((4, 2),)))
    image = IMAGES["channels last"]
    wide = views.expand(View(0, 5, (((6, 2),), (), ())), image.dims)
    expected = np.broadcast_to(addresses(View(0, 5, (((6, 2),), (), ()))), (BATCH, 6, 4, 8))
    # A row stands for every sample: the batch has the stride of a row, not 0.
    np.testing.assert_array_equal(addresses(wide)[0], expected[0])
    assert views.batch_place(wide) == (0, 1)
    assert views.expand(one, (((BATCH, ROW), (3, 1)), ((5, 9),), ((4, 1),))).dims[0] == ((BATCH, ROW), (3, 0))


@pytest.mark.parametrize("seed", range(200))
def test_random_reshapes(seed):
    """Cut and joined at random: the result is NumPy's, or no view and NumPy has to copy too."""
    rng = np.random.default_rng(seed)
    shape = rng.choice([1, 2, 3, 4, 6], 4).tolist()
    order = [0, *(rng.permutation(4) + 1).tolist()]
    view = dense(*shape, order=order)
    factors = [p for n in shape for p in {1: [], 4: [2, 2], 6: [2, 3]}.get(n, [n])]
    if rng.random() < 0.5:
        rng.shuffle(factors)
    target, left = [], list(factors)
    while left:
        count = int(rng.integers(1, 3))
        target.append(math.prod(left[:count]))
        left = left[count:]
    found = views.reshape(view, (BATCH, *target))
    table = addresses(view)
    if found is not None:
        same(found, table.reshape(BATCH, *target))
        return
    strided = np.zeros([shape[i - 1] for i in order[1:]]).transpose(np.argsort(order[1:]))
    assert not np.shares_memory(strided.reshape(target), strided), "NumPy needs no copy"


def test_new_buffers():
    """They are filled without gaps, in the memory order of what they are like."""
    for view in IMAGES.values():
        dims, size = views.dims_like(view)
        new = View(0, 0, dims)
        assert sorted(addresses(new)[0].ravel()) == list(range(math.prod(view.shape[1:]))) and size == math.prod(view.shape[1:])
        assert new.shape == view.shape and views.batch_place(new) == views.batch_place(view)
    assert views.dims_like(IMAGES["channels last"])[0] == IMAGES["channels last"].dims
    assert views.dims_like(IMAGES["narrowed"])[0] == IMAGES["channels last"].dims
    heads = views.reshape(views.permute(IMAGES["channels last"], (0, 2, 3, 1)), (BATCH, 32, 2, 3))
    assert views.dims_like(heads)[0] == heads.dims


def test_the_place_of_the_batch():
    image = IMAGES["row-major"]
    assert views.batch_place(image) == (0, 1)
    assert views.batch_place(views.permute(image, (2, 0, 1, 3))) == (1, 1)
    assert views.batch_place(views.reshape(image, (BATCH * 6, 32))) == (0, 6)
    assert views.batch_place(View(0, 0, (((4, 1),),))) is None
    assert views.dim_of(BATCH * 4, 1, BATCH) == ((BATCH, ROW), (4, 1))
    assert views.dim_of(BATCH, 7, BATCH) == ((BATCH, ROW),)
    assert views.dim_of(1, 7, BATCH) == ()
