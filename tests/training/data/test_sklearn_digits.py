"""The digits and their split."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("sklearn")
from diffuse_fast.training.data import digits


def test_the_split_is_complete_disjoint_stratified_and_reproducible():
    split = digits()
    assert split.images.shape == (1437, 1, 8, 8)
    assert split.held_out_images.shape == (360, 1, 8, 8)
    assert split.images.dtype == np.float32
    assert split.labels.dtype == np.int64

    from sklearn.datasets import load_digits

    everything = load_digits()
    together = np.concatenate([split.images, split.held_out_images]).reshape(1797, 64)
    rows = lambda array: sorted(map(bytes, array.astype(np.int8)))  # noqa: E731
    assert rows((together + 1) * 8) == rows(everything.data)
    share = np.bincount(split.held_out_labels) / np.bincount(everything.target)
    assert np.abs(share - 0.2).max() < 0.006  # one digit of about 180
    assert all(np.array_equal(a, b) for a, b in zip(split, digits(), strict=True))


def test_seventeen_levels_from_minus_one_to_one():
    levels = np.unique(np.concatenate([digits().images, digits().held_out_images]))
    np.testing.assert_array_equal(levels, np.linspace(-1, 1, 17, dtype=np.float32))
