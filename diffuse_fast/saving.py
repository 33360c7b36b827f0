"""Samples as images and files: ``df.grid`` and ``df.save``."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from . import image_grid
from .artifact.document import Range
from .errors import ArgumentError, ArgumentTypeError
from .files import replacing, writable
from .model import Model, to_uint8

IMAGES = (".png", ".jpg", ".jpeg", ".gif")
SUFFIXES = (*IMAGES, ".npy", ".npz")
FRAME = 200  # milliseconds per frame


def grid(x: Any, model: Model | Range = (-1.0, 1.0), *, columns: int | None = None, scale: int | None = None) -> np.ndarray:
    """Arrange a batch in rows as one image, with a dark line around each sample.

    Args:
        x: (n, H, W), (n, 1, H, W) or (n, 3, H, W), floating-point samples or uint8; a NumPy array or a torch tensor.
        model: The model that samples came from, or their value range ``(lo, hi)``, as for :func:`~diffuse_fast.to_uint8`.
        columns: Samples per row; None makes the image as square as possible.
        scale: Every pixel becomes ``scale`` x ``scale`` pixels; None enlarges small samples to about 64 pixels.

    Returns:
        (H', W') uint8 for grayscale samples, (H', W', 3) for color.

    Raises:
        ArgumentError, ArgumentTypeError: x is not a batch of images, the model has no value range, or a number is below 1.

    Example:
        >>> import diffuse_fast as df
        >>> x = df.sample("digits", 6, 5, seed=0)
        >>> df.grid(x, columns=3, scale=2).shape
        (40, 60)
    """
    return image_grid.grid(_levels(x, model), columns=columns, scale=scale)


def save(
    path: str | os.PathLike[str],
    x: Any,
    model: Model | Range = (-1.0, 1.0),
    *,
    recipe: Mapping[str, Any] | None = None,
    columns: int | None = None,
    scale: int | None = None,
) -> None:
    """Write samples to a file, in the format of its suffix.

    ==================  ==================================================================================================
    ``.png``, ``.jpg``  one image of the batch, laid out as by :func:`grid`
    ``.gif``            an animation with a frame for every x[i], which is an image or a batch that is laid out
    ``.npy``            the numbers, unchanged
    ``.npz``            the numbers under ``samples``, and the recipe as JSON under ``recipe``
    ==================  ==================================================================================================

    Args:
        path: The file to write. An existing file is replaced when the new one is complete.
        x: Samples, (n, ...): a NumPy array or a torch tensor.
        model: As for :func:`grid`; not used for arrays.
        recipe: How the samples were drawn, anything that JSON can hold. It is stored in the text field ``recipe`` of a PNG and in
            the comment of a JPEG or GIF. A ``.npy`` cannot store it.
        columns, scale: As for :func:`grid`; ``scale`` also enlarges single-image frames.

    Raises:
        ArgumentError, ArgumentTypeError: an unknown suffix, or as for :func:`grid`.
        OutputError: the file cannot be written.
        MissingDependencyError: an image needs Pillow, which is not installed.

    Example:
        >>> import diffuse_fast as df
        >>> x = df.sample("digits", 16, 20, seed=0)
        >>> df.save("digits.png", x, recipe={"seed": 0, "steps": 20})
    """
    target = Path(path)
    check_suffix(target)
    text = None
    if recipe is not None:
        try:
            text = json.dumps(dict(recipe))
        except (TypeError, ValueError) as error:
            raise ArgumentTypeError(f"recipe cannot be written as JSON: {error}.") from None
    suffix = target.suffix.lower()
    if suffix in IMAGES:
        content = _encode(suffix, x, model, text, columns, scale)
    elif columns is not None or scale is not None:
        raise ArgumentError("columns and scale are for images; leave them out.")
    writable(target)
    with replacing(target) as partial:
        if suffix in IMAGES:
            partial.write_bytes(content)
        elif suffix == ".npy":
            np.save(partial, _array(x))
        else:
            arrays: dict[str, Any] = {"samples": _array(x)} if text is None else {"samples": _array(x), "recipe": np.array(text)}
            np.savez(partial, **arrays)


def check_suffix(path: Path) -> None:
    """Check that the suffix is known, and that Pillow is installed if the format needs it.

    Raises:
        ArgumentError: unknown suffix. MissingDependencyError: Pillow is missing.
    """
    if path.suffix.lower() not in IMAGES and path.suffix not in SUFFIXES:  # NumPy's suffixes are lowercase
        raise ArgumentError(f"the file {str(path)!r} must end in one of {', '.join(SUFFIXES)}.")
    if path.suffix.lower() in IMAGES:
        image_grid.require_pillow()


def check_images(model: Model) -> None:
    """Check that a model's samples are images.

    Raises:
        ArgumentError: they are not.
    """
    image_grid.check_shape(model.shape)
    if model.value_range is None:
        raise ArgumentError(f"the samples of {model.name} are not images: it has no value range. Write an .npy or .npz.")


def _encode(suffix: str, x: Any, model: Model | Range, text: str | None, columns: int | None, scale: int | None) -> bytes:
    if suffix == ".png":
        return image_grid.png(grid(x, model, columns=columns, scale=scale), text)
    if suffix != ".gif":
        return image_grid.jpeg(grid(x, model, columns=columns, scale=scale), text)
    levels = _levels(x, model)
    batches = levels if levels.ndim == 5 else levels[:, None]
    return image_grid.gif([image_grid.grid(frame, columns=columns, scale=scale) for frame in batches], FRAME, text)


def _levels(x: Any, model: Model | Range) -> np.ndarray:
    array = _array(x)
    return array if array.dtype == np.uint8 else to_uint8(array, model)


def _array(x: Any) -> np.ndarray:
    """The samples as a NumPy array."""
    if type(x).__module__.partition(".")[0] == "torch":
        x = x.detach().cpu()
        x = x.float() if str(x.dtype) == "torch.bfloat16" else x  # NumPy has no bfloat16
    array = np.asarray(x)
    if array.dtype.kind not in "fiub" or array.ndim == 0:
        raise ArgumentTypeError(f"x is a {type(x).__name__} of {array.dtype}; give an array of samples.")
    return array
