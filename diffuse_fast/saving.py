"""Samples as pictures and files: ``df.grid`` and ``df.save``."""

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

PICTURES = (".png", ".jpg", ".jpeg", ".gif")
SUFFIXES = (*PICTURES, ".npy", ".npz")
FRAME = 200  # milliseconds


def grid(x: Any, model: Model | Range = (-1.0, 1.0), *, columns: int | None = None, scale: int | None = None) -> np.ndarray:
    """Arrange a batch in rows as one picture, with a dark line around each sample.

    Args:
        x: (n, H, W), (n, 1, H, W) or (n, 3, H, W): floating samples, or uint8; a NumPy array or a torch tensor.
        model: The model that floating samples came from, or their value range ``(lo, hi)``, as for :func:`~diffuse_fast.to_uint8`.
        columns: Samples in a row; None makes the picture as square as it can be.
        scale: Every pixel becomes ``scale`` x ``scale`` of them; None enlarges small samples to about 64 pixels.

    Returns:
        (H', W') uint8 for grey samples, (H', W', 3) for colour.

    Raises:
        ArgumentError, ArgumentTypeError: x is no batch of pictures, the model has no value range, or a number is below 1.

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
    """Write samples to a file, in the format that its name ends in.

    ==================  ==================================================================================================
    ``.png``, ``.jpg``  one image of the batch, laid out as by :func:`grid`
    ``.gif``            an animation with a frame for every x[i], which is an image or a batch that is laid out
    ``.npy``            the numbers, unchanged
    ``.npz``            the numbers under ``samples``, and the recipe as JSON under ``recipe``
    ==================  ==================================================================================================

    Args:
        path: Where to write. An existing file is replaced, once the new one is complete.
        x: Samples, (n, ...): a NumPy array or a torch tensor.
        model: As for :func:`grid`; numbers are written as they are.
        recipe: How the samples were drawn, anything that JSON can hold: a PNG has it in its text under ``recipe``, JPEG and GIF
            as their comment. A ``.npy`` has no place for it.
        columns, scale: As for :func:`grid`; a frame that is a single picture is enlarged alike.

    Raises:
        ArgumentError, ArgumentTypeError: the name ends in something else, or as for :func:`grid`.
        OutputError: the file cannot be written.
        MissingDependencyError: a picture needs Pillow, which is not installed.

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
    if suffix in PICTURES:
        content = _encoded(suffix, x, model, text, columns, scale)
    elif columns is not None or scale is not None:
        raise ArgumentError("columns and scale lay out a picture; leave them out.")
    writable(target)
    with replacing(target) as partial:
        if suffix in PICTURES:
            partial.write_bytes(content)
        elif suffix == ".npy":
            np.save(partial, _array(x))
        else:
            arrays: dict[str, Any] = {"samples": _array(x)} if text is None else {"samples": _array(x), "recipe": np.array(text)}
            np.savez(partial, **arrays)


def check_suffix(path: Path) -> None:
    """Whether the name says a format; and that Pillow is there, where it takes it.

    Raises:
        ArgumentError: it does not. MissingDependencyError: it is not.
    """
    if path.suffix.lower() not in PICTURES and path.suffix not in SUFFIXES:  # NumPy knows its own in small letters
        raise ArgumentError(f"the file {str(path)!r} must end in one of {', '.join(SUFFIXES)}: that is its format.")
    if path.suffix.lower() in PICTURES:
        image_grid.needs_pillow()


def check_pictures(model: Model) -> None:
    """Whether a model's samples are pictures.

    Raises:
        ArgumentError: they are not.
    """
    image_grid.check_shape(model.shape)
    if model.value_range is None:
        raise ArgumentError(f"the samples of {model.name} are no pictures: it has no value range. Write an .npy or .npz.")


def _encoded(suffix: str, x: Any, model: Model | Range, text: str | None, columns: int | None, scale: int | None) -> bytes:
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
    """On the host."""
    if type(x).__module__.partition(".")[0] == "torch":
        x = x.detach().cpu()
        x = x.float() if str(x.dtype) == "torch.bfloat16" else x  # NumPy has no bfloat16
    array = np.asarray(x)
    if array.dtype.kind not in "fiub" or array.ndim == 0:
        raise ArgumentTypeError(f"x is a {type(x).__name__} of {array.dtype}; give an array of samples.")
    return array
