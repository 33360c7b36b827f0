"""Following elements from one view to another, against the addresses of the elements."""

import math

import numpy as np
import pytest

from diffuse_fast.errors import UnsupportedError
from diffuse_fast.program import views
from diffuse_fast.program.draft import ROW
from diffuse_fast.program.fuse.route import Route
from diffuse_fast.program.program import Norm, View

BATCH = 61
FAR = 1_000_000  # stands for one row


def addresses(view):
    """The address of each element, with the shape of the view."""
    found = np.full((), view.offset)
    for dim in view.dims:
        along = np.zeros(1, int)
        for size, stride in dim:
            along = (along[:, None] + np.arange(size) * (FAR if stride == ROW else stride)).ravel()
        found = found[..., None] + along
    return found


def followed(source, other, view):
    """What ``view`` reads, looked up element by element."""
    table = dict(zip(addresses(source).ravel().tolist(), addresses(other).ravel().tolist(), strict=True))
    return np.vectorize(table.__getitem__)(addresses(view))


def image(buffer, *shape, order=None):
    """A dense view of (BATCH, *shape) with the dimensions in a memory order, channels innermost by default."""
    dims, _ = views.new_dims(order or views.channels_last(len(shape) + 1), [((BATCH, ROW),), *(((n, 1),) for n in shape)])
    return View(buffer, 0, dims)


def follow(source, other, view):
    return Route(source, [other], []).follow(view)[0][0]


def norm_of(source, view, axes, groups=1, kind="standard"):
    return Route(source, [], [Norm(kind, axes, groups, 1e-5)]).follow(view)[1][0]


SOURCE = image(0, 6, 4, 8)
ROWS = views.permute(views.reshape(SOURCE, (BATCH, 6, 32)), (0, 2, 1))  # (BATCH, 32, 6)
READERS = {
    "itself": SOURCE,
    "transposed": views.permute(SOURCE, (2, 0, 3, 1)),
    "rows of channels": ROWS,
    "heads": views.reshape(ROWS, (BATCH, 32, 2, 3)),
    "heads with the batch": views.reshape(views.permute(views.reshape(ROWS, (BATCH, 32, 2, 3)), (0, 2, 1, 3)), (BATCH * 2, 32, 3)),
    "slice": views.narrow(SOURCE, 1, 2, 3),
    "every other": views.narrow(SOURCE, 3, 1, 4, 2),
    "patches": views.permute(views.reshape(SOURCE, (BATCH, 6, 2, 2, 4, 2)), (0, 2, 4, 3, 5, 1)),
    "doubled": views.repeat(views.repeat(SOURCE, 2, 2), 3, 2),
    "repeated": views.expand(views.narrow(SOURCE, 2, 3, 1), SOURCE.dims),
}


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("order", [None, [0, 1, 2, 3], [0, 3, 1, 2]], ids=["channels last", "row-major", "other"])
def test_follows_each_element(name, order):
    other = image(1, 6, 4, 8, order=order)
    found = follow(SOURCE, other, READERS[name])
    assert found.buffer == 1
    assert (addresses(found) == followed(SOURCE, other, READERS[name])).all()
    assert found.dims == tuple(views.merged(dim) for dim in found.dims)  # in the one form of a view


def test_follows_into_a_part_of_a_wider_buffer_and_back():
    wide = image(1, 10, 4, 8)
    part = views.narrow(wide, 1, 3, 6)
    for view in READERS.values():
        there = follow(SOURCE, part, view)
        assert (addresses(there) == followed(SOURCE, part, view)).all()
        assert follow(part, SOURCE, there) == view


def test_follows_an_operand_that_repeats():
    bias = views.expand(View(1, 0, (((6, 1),), (), ())), SOURCE.dims)
    for view in READERS.values():
        assert (addresses(follow(SOURCE, bias, view)) == followed(SOURCE, bias, view)).all()


def test_follows_random_views():
    random = np.random.default_rng(0)
    done = 0
    for _ in range(400):
        shape = [int(n) for n in random.choice([1, 2, 3, 4, 6], 4)]
        source, other = (image(b, *shape, order=[0, *(1 + random.permutation(4))]) for b in (0, 1))
        view = views.permute(source, [0, *(1 + random.permutation(4))])
        size = math.prod(shape)
        cut = int(random.choice([n for n in range(1, size + 1) if size % n == 0]))
        view = views.reshape(view, (BATCH, cut, size // cut))
        if view is None:
            continue
        if size // cut > 2 and random.random() < 0.5:
            view = views.narrow(view, 2, 1, (size // cut - 1) // 2, 2) or view
        try:
            found = follow(source, other, view)
        except UnsupportedError:
            continue
        done += 1
        assert (addresses(found) == followed(source, other, view)).all()
    assert done > 200


def test_refuses_elements_outside_the_source():
    part = views.narrow(image(0, 10, 4, 8), 1, 2, 6)
    for view in (image(0, 10, 4, 8), views.narrow(image(0, 10, 4, 8), 1, 0, 2), views.narrow(image(0, 10, 4, 8), 1, 7, 3)):
        with pytest.raises(UnsupportedError):
            follow(part, SOURCE, view)


def test_refuses_a_source_that_repeats():
    with pytest.raises(UnsupportedError):
        follow(READERS["doubled"], READERS["doubled"], READERS["doubled"])


def test_refuses_a_view_across_a_gap():
    part = views.narrow(image(0, 6, 4, 16), 3, 0, 8)  # rows of 8 of 16
    with pytest.raises(UnsupportedError):
        follow(part, SOURCE, View(0, 0, (((BATCH, ROW),), ((16 * 6, 1),))))


# ---- norms: the same moments in other dimensions ----------------------------------------------------


def test_a_group_norm_read_as_rows():
    assert norm_of(SOURCE, ROWS, (1, 2, 3), 2) == Norm("standard", (2, 1), 2, 1e-5)
    assert norm_of(SOURCE, ROWS, (1, 2, 3)) == Norm("standard", (1, 2), 1, 1e-5)


def test_a_group_norm_written_as_a_norm_of_reshaped_groups():
    grouped = views.reshape(image(0, 6, 4, 8, order=[0, 1, 2, 3]), (BATCH, 2, 3 * 32))
    assert norm_of(grouped, image(0, 6, 4, 8, order=[0, 1, 2, 3]), (2,)) == Norm("standard", (1, 2, 3), 2, 1e-5)


def test_a_group_norm_whose_groups_become_a_dimension():
    assert norm_of(SOURCE, views.reshape(SOURCE, (BATCH, 2, 3, 4, 8)), (1, 2, 3), 2) == Norm("standard", (2, 3, 4), 1, 1e-5)


def test_a_norm_of_channels_read_as_an_image():
    assert norm_of(ROWS, SOURCE, (2,)) == Norm("standard", (1,), 1, 1e-5)


def test_a_norm_of_a_doubled_image():
    assert norm_of(SOURCE, READERS["doubled"], (1, 2, 3), 3) == Norm("standard", (1, 2, 3), 3, 1e-5)
    with pytest.raises(UnsupportedError):
        norm_of(SOURCE, READERS["doubled"], (1, 2, 3), 3, "l2")  # a sum would count elements four times


def test_a_norm_needs_all_of_its_elements():
    for name in ("slice", "every other", "repeated"):
        with pytest.raises(UnsupportedError):
            norm_of(SOURCE, READERS[name], (1, 2, 3), 3)
    assert norm_of(SOURCE, READERS["every other"], (1,)) == Norm("standard", (1,), 1, 1e-5)  # of channels: each pixel has them all


def test_a_norm_over_a_part_of_a_dimension_is_refused():
    pixels_outside = views.permute(views.reshape(views.permute(SOURCE, (0, 2, 3, 1)), (BATCH, 32 * 6)), (0, 1))
    assert norm_of(SOURCE, pixels_outside, (1,)) == Norm("standard", (1,), 32, 1e-5)
    with pytest.raises(UnsupportedError):
        norm_of(SOURCE, pixels_outside, (2, 3))  # (pixels, channels) in one dimension: the outer part
