"""Grids of pictures."""

import io

import numpy as np
import pytest

from diffuse_fast.errors import ArgumentError, ArgumentTypeError
from diffuse_fast.image_grid import grid, png


@pytest.mark.parametrize("shape", [(5, 4, 3), (5, 1, 4, 3), (5, 3, 4, 3)])
@pytest.mark.parametrize("columns", [None, 1, 2, 9])
def test_every_pixel_lies_where_it_should(shape, columns):
    images = np.random.default_rng(0).integers(1, 256, shape, dtype=np.uint8)
    scale = 2
    picture = grid(images, columns=columns, scale=scale)
    wide = min(columns or 3, 5)
    high = -(-5 // wide)
    assert picture.shape[:2] == (high * 6 * scale, wide * 5 * scale)
    left = picture.copy()
    for i, image in enumerate(images):
        for y in range(4):
            for x in range(3):
                pixel = image[..., y, x] if image.ndim == 3 and len(image) == 3 else image.reshape(4, 3)[y, x]
                down, right = (i // wide * 6 + 1 + y) * scale, (i % wide * 5 + 1 + x) * scale
                block = picture[down : down + scale, right : right + scale]
                assert (block == pixel).all()
                left[down : down + scale, right : right + scale] = 0
    assert not left.any()  # the rest is dark


def test_small_images_are_enlarged_and_large_ones_are_not():
    assert grid(np.zeros((1, 8, 8), np.uint8)).shape == (80, 80)
    assert grid(np.zeros((1, 3, 200, 100), np.uint8)).shape == (202, 102, 3)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_png_holds_the_levels(channels):
    image = pytest.importorskip("PIL.Image")
    levels = grid(np.random.default_rng(1).integers(0, 256, (4, channels, 5, 6), dtype=np.uint8), scale=1)
    with image.open(io.BytesIO(png(levels))) as picture:
        assert picture.format == "PNG"
        np.testing.assert_array_equal(np.asarray(picture), levels)


def test_other_arrays_than_images_are_refused():
    with pytest.raises(ArgumentTypeError, match="to_uint8"):
        grid(np.zeros((1, 8, 8), np.float32))
    for shape in ((1, 2, 8, 8), (1, 8), (1, 1, 1, 8, 8)):
        with pytest.raises(ArgumentError, match="not images"):
            grid(np.zeros(shape, np.uint8))
    for options in ({"columns": 0}, {"scale": 0}):
        with pytest.raises(ArgumentError, match="at least 1"):
            grid(np.zeros((1, 8, 8), np.uint8), **options)
    with pytest.raises(ArgumentError, match="number of images is 0"):
        grid(np.zeros((0, 8, 8), np.uint8))
