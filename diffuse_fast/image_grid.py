"""Pictures: samples side by side in one grid, and grids as the bytes of PNG, JPEG and GIF files."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from .errors import ArgumentError, ArgumentTypeError, MissingDependencyError, install_hint

TILE = 64  # pixels that a small sample is enlarged towards: 8x8 is hard to see


def check_shape(shape: Sequence[int]) -> None:
    """Whether samples of this shape are pictures: (H, W), (1, H, W) or (3, H, W).

    Raises:
        ArgumentError: they are not.
    """
    if not (len(shape) == 2 or (len(shape) == 3 and shape[0] in (1, 3))):
        raise ArgumentError(f"samples of shape {tuple(shape)} are no pictures, which are (H, W), (1, H, W) or (3, H, W).")


def grid(images: np.ndarray, *, columns: int | None = None, scale: int | None = None) -> np.ndarray:
    """Lay pictures out in rows, with a dark line around each.

    Args:
        images: (n, H, W), (n, 1, H, W) or (n, 3, H, W) uint8, as ``df.to_uint8`` gives them.
        columns: Pictures in a row; None makes the grid as square as it can be.
        scale: Every pixel becomes ``scale`` x ``scale`` of them; None enlarges small pictures to about 64 pixels.

    Returns:
        (H', W') uint8 for grey pictures, (H', W', 3) for colour. Places left over in the last row are dark.

    Raises:
        ArgumentTypeError: images are not uint8. ArgumentError: they are no pictures, or a number is below 1.

    Example:
        >>> import numpy as np
        >>> from diffuse_fast.image_grid import grid
        >>> grid(np.zeros((6, 1, 8, 8), np.uint8), columns=3, scale=2).shape
        (40, 60)
    """
    if images.dtype != np.uint8:
        raise ArgumentTypeError(f"images have the dtype {images.dtype}; df.to_uint8 makes pictures of samples.")
    check_shape(images.shape[1:])
    n, height, width = len(images), *images.shape[-2:]
    columns = math.ceil(math.sqrt(n)) if columns is None else columns
    scale = max(1, TILE // max(height, width)) if scale is None else scale
    for name, value in (("the number of images", n), ("columns", columns), ("scale", scale)):
        if value < 1:
            raise ArgumentError(f"{name} is {value}; it must be at least 1.")
    columns = min(columns, n)
    rows = -(-n // columns)
    channels = images.reshape(n, -1, height, width)
    tiles = np.pad(channels, ((0, rows * columns - n), (0, 0), (1, 1), (1, 1)))
    table = tiles.reshape(rows, columns, -1, height + 2, width + 2).transpose(0, 3, 1, 4, 2)
    whole = table.reshape(rows * (height + 2), columns * (width + 2), -1).repeat(scale, axis=0).repeat(scale, axis=1)
    return whole[..., 0] if whole.shape[-1] == 1 else whole


def png(levels: np.ndarray, recipe: str | None = None) -> bytes:
    """A (H, W) or (H, W, 3) uint8 array as the bytes of a PNG file, with a text under ``recipe``.

    Raises:
        MissingDependencyError: Pillow is not installed.
    """
    needs_pillow()
    from PIL import PngImagePlugin

    info = PngImagePlugin.PngInfo()
    if recipe is not None:
        info.add_text("recipe", recipe)
    return _written([levels], "PNG", optimize=True, pnginfo=info)


def jpeg(levels: np.ndarray, comment: str | None = None) -> bytes:
    """As :func:`png`, of a JPEG file with a comment, at a quality that shows no blocks.

    Raises:
        ArgumentError: the comment is longer than a JPEG can hold.
        MissingDependencyError: Pillow is not installed.
    """
    text = {} if comment is None else {"comment": comment.encode()}
    if comment is not None and len(text["comment"]) > 65_533:
        raise ArgumentError("the recipe is longer than the comment of a JPEG can be, 65,533 bytes; write a .png or .npz.")
    return _written([levels], "JPEG", quality=95, subsampling=0, **text)


def gif(frames: Sequence[np.ndarray], milliseconds: int, comment: str | None = None) -> bytes:
    """Frames as :func:`png` takes them, of one shape, as the bytes of a GIF file that repeats for ever.

    Raises:
        MissingDependencyError: Pillow is not installed.
    """
    text = {} if comment is None else {"comment": comment.encode()}
    return _written(frames, "GIF", save_all=True, duration=milliseconds, loop=0, **text)


def _written(frames: Sequence[np.ndarray], kind: str, **options: Any) -> bytes:
    needs_pillow()
    from PIL import Image

    first, *others = (Image.fromarray(levels) for levels in frames)
    buffer = io.BytesIO()
    first.save(buffer, kind, **options, **({"append_images": others} if others else {}))
    return buffer.getvalue()


def needs_pillow() -> None:
    """Whether pictures can be written here.

    Raises:
        MissingDependencyError: Pillow is not installed.
    """
    try:
        import PIL.Image  # noqa: F401  (asked for here, before anything is drawn)
    except ImportError as error:
        raise MissingDependencyError(f"a PNG needs Pillow ({error}): {install_hint('cli')}") from None
