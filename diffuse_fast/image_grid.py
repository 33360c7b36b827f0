"""Image grids: samples side by side in one image, and images as the bytes of PNG, JPEG and GIF files."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from .checks import require_int
from .errors import ArgumentError, ArgumentTypeError, MissingDependencyError, install_hint

TILE = 64  # small samples are enlarged to about this many pixels


def check_shape(shape: Sequence[int]) -> None:
    """Check that samples of this shape are images: (H, W), (1, H, W) or (3, H, W).

    Raises:
        ArgumentError: they are not.
    """
    if not (len(shape) == 2 or (len(shape) == 3 and shape[0] in (1, 3))):
        raise ArgumentError(f"samples of shape {tuple(shape)} are not images, which have shape (H, W), (1, H, W) or (3, H, W).")


def grid(images: np.ndarray, *, columns: int | None = None, scale: int | None = None) -> np.ndarray:
    """Arrange images in rows, with a dark line around each.

    Args:
        images: (n, H, W), (n, 1, H, W) or (n, 3, H, W) uint8, as ``df.to_uint8`` gives them.
        columns: Images per row; None makes the grid as square as possible.
        scale: Every pixel becomes ``scale`` x ``scale`` pixels; None enlarges small images to about 64 pixels.

    Returns:
        (H', W') uint8 for grayscale images, (H', W', 3) for color. Unused places in the last row are dark.

    Raises:
        ArgumentTypeError: the dtype is not uint8. ArgumentError: the shape is not that of images, or a number is below 1.

    Example:
        >>> import numpy as np
        >>> from diffuse_fast.image_grid import grid
        >>> grid(np.zeros((6, 1, 8, 8), np.uint8), columns=3, scale=2).shape
        (40, 60)
    """
    if images.dtype != np.uint8:
        raise ArgumentTypeError(f"images have the dtype {images.dtype}; it must be uint8; df.to_uint8 converts samples.")
    check_shape(images.shape[1:])
    n, height, width = len(images), *images.shape[-2:]
    columns = math.ceil(math.sqrt(n)) if columns is None else columns
    scale = max(1, TILE // max(height, width)) if scale is None else scale
    for name, value in (("the number of images", n), ("columns", columns), ("scale", scale)):
        require_int(name, value, 1)
    columns = min(columns, n)
    rows = -(-n // columns)
    channels = images.reshape(n, -1, height, width)
    tiles = np.pad(channels, ((0, rows * columns - n), (0, 0), (1, 1), (1, 1)))
    table = tiles.reshape(rows, columns, -1, height + 2, width + 2).transpose(0, 3, 1, 4, 2)
    image = table.reshape(rows * (height + 2), columns * (width + 2), -1).repeat(scale, axis=0).repeat(scale, axis=1)
    return image[..., 0] if image.shape[-1] == 1 else image


def png(levels: np.ndarray, recipe: str | None = None) -> bytes:
    """A (H, W) or (H, W, 3) uint8 array as the bytes of a PNG file, with a text field ``recipe`` (compressed if it is
    long).

    Raises:
        MissingDependencyError: Pillow is not installed.
    """
    require_pillow()
    from PIL import PngImagePlugin

    info = PngImagePlugin.PngInfo()
    if recipe is not None:
        info.add_text("recipe", recipe, zip=len(recipe) > 1024)
    return _encode([levels], "PNG", optimize=True, pnginfo=info)


def jpeg(levels: np.ndarray, comment: str | None = None) -> bytes:
    """As :func:`png`, for a JPEG file with a comment, at a quality without visible blocks.

    Raises:
        ArgumentError: the comment is longer than a JPEG can hold.
        MissingDependencyError: Pillow is not installed.
    """
    text = {} if comment is None else {"comment": comment.encode()}
    if comment is not None and len(text["comment"]) > 65_533:
        raise ArgumentError("the recipe is longer than 65,533 bytes, the limit of a JPEG comment; write a .png or .npz.")
    return _encode([levels], "JPEG", quality=95, subsampling=0, **text)


def gif(frames: Sequence[np.ndarray], milliseconds: int, comment: str | None = None) -> bytes:
    """Frames of the same shape, as for :func:`png`, as the bytes of a GIF file that repeats forever.

    Raises:
        MissingDependencyError: Pillow is not installed.
    """
    text = {} if comment is None else {"comment": comment.encode()}
    return _encode(frames, "GIF", save_all=True, duration=milliseconds, loop=0, **text)


def _encode(frames: Sequence[np.ndarray], kind: str, **options: Any) -> bytes:
    require_pillow()
    from PIL import Image

    first, *others = (Image.fromarray(levels) for levels in frames)
    buffer = io.BytesIO()
    first.save(buffer, kind, **options, **({"append_images": others} if others else {}))
    return buffer.getvalue()


def require_pillow() -> None:
    """Check that images can be written.

    Raises:
        MissingDependencyError: Pillow is not installed.
    """
    try:
        import PIL.Image  # noqa: F401  (only checks that it is installed)
    except ImportError as error:
        raise MissingDependencyError(f"a PNG needs Pillow ({error}): {install_hint('cli')}") from None
