"""The handwritten digits of scikit-learn."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ...errors import MissingDependencyError, install_hint

SPLIT_SEED = 0
HELD_OUT = 0.2


class Split(NamedTuple):
    """Images (N, C, H, W) float32 in [-1, 1] and labels (N,) int64, for training and held out.

    ``levels`` is the number of values that an element of the images can have, evenly spaced over [-1, 1].
    """

    images: np.ndarray
    labels: np.ndarray
    held_out_images: np.ndarray
    held_out_labels: np.ndarray
    levels: int = 256


def digits() -> Split:
    """The 1,797 scans of handwritten digits in scikit-learn: 8x8 pixels with 17 levels 0..16, scaled to [-1, 1].

    One fifth of every class is held out: 1,437 training images and 360 held-out ones. The split is always the same.

    Source: E. Alpaydin, C. Kaynak, *Optical Recognition of Handwritten Digits*, UCI Machine Learning Repository, 1998
    (CC BY 4.0).

    Raises:
        MissingDependencyError: scikit-learn is not installed.

    Example:
        >>> digits().images.shape, digits().held_out_images.shape
        ((1437, 1, 8, 8), (360, 1, 8, 8))
    """
    try:
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split
    except ImportError as error:
        raise MissingDependencyError(f"the digits need scikit-learn: {install_hint('train')}") from error
    levels, labels = load_digits(return_X_y=True)
    images = (levels / 8.0 - 1.0).astype(np.float32).reshape(-1, 1, 8, 8)
    labels = labels.astype(np.int64)
    train_images, held_images, train_labels, held_labels = train_test_split(
        images, labels, test_size=HELD_OUT, stratify=labels, random_state=SPLIT_SEED
    )
    return Split(train_images, train_labels, held_images, held_labels, levels=17)
