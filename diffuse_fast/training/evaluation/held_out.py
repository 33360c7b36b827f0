"""Labelled real images from an .npz file, with a fifth of every class held out."""

from __future__ import annotations

import os
import zipfile

import numpy as np

from ...errors import ArgumentError, ArgumentTypeError
from ..data import Split
from ..data.sklearn_digits import HELD_OUT, SPLIT_SEED


def split_npz(path: str | os.PathLike[str]) -> Split:
    """Read the arrays ``images`` (N, C, H, W), floats in [-1, 1], and ``labels`` (N,), integers from 0.

    The split depends on the labels alone: the same fifth of every class (at least one image) is held out each time.

    Raises:
        ArgumentError, ArgumentTypeError: the file is not an .npz, or an array is missing or has a wrong shape, type or range.
    """
    try:
        with zipfile.ZipFile(path):
            pass  # np.load reads other files too
        with np.load(path, allow_pickle=False) as file:
            missing = {"images", "labels"} - set(file.files)
            if missing:
                raise ArgumentError(f"{path} lacks {' and '.join(sorted(missing))}; it has {', '.join(file.files) or 'nothing'}.")
            images, labels = file["images"], file["labels"]
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        if isinstance(error, ArgumentError):
            raise
        raise ArgumentError(f"{path} is not an .npz file with images and labels: {error}") from error
    if images.dtype.kind != "f":
        raise ArgumentTypeError(f"images in {path} have dtype {images.dtype}; they must be floats.")
    if images.ndim != 4 or not len(images):
        raise ArgumentError(f"images in {path} have shape {images.shape}; it must be (N, C, H, W), with at least one image.")
    if labels.dtype.kind not in "iu":
        raise ArgumentTypeError(f"labels in {path} have dtype {labels.dtype}; they must be integers.")
    if labels.shape != (len(images),) or labels.min() < 0:
        raise ArgumentError(f"labels in {path} must be {len(images)} integers from 0, one per image.")
    if not (np.abs(images) <= 1.0).all():
        raise ArgumentError(f"images in {path} have values outside [-1, 1]; scale them.")
    if images.min() >= 0.0 and images.max() > 0.0:
        raise ArgumentError(f"images in {path} have no value below 0, so they are not in [-1, 1]. Scale 0..1 by 2 * images - 1.")
    rng = np.random.default_rng(SPLIT_SEED)
    held = np.zeros(len(images), bool)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        held[rng.permutation(members)[: max(1, round(HELD_OUT * len(members)))]] = True
    if held.all():
        classes = len(np.unique(labels))
        raise ArgumentError(f"{path} has {len(images)} images of {classes} classes, which leaves none to train on.")
    images, labels = images.astype(np.float32), labels.astype(np.int64)
    return Split(images[~held], labels[~held], images[held], labels[held])
