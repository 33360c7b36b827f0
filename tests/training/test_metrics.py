"""Precision and recall on sets whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest

from diffuse_fast.training.metrics import precision_recall


def test_a_part_of_the_real_is_precise_and_recalls_a_part():
    rng = np.random.default_rng(0)
    left, right = rng.standard_normal((200, 3)), rng.standard_normal((200, 3)) + 50.0
    real, generated = np.concatenate([left, right]), left + rng.standard_normal((200, 3)) * 1e-3
    precision, recall = precision_recall(real, generated)
    assert precision == 1.0
    assert recall == pytest.approx(0.5, abs=0.01)


def test_it_is_the_definition_by_brute_force():
    rng = np.random.default_rng(1)
    real, generated = rng.standard_normal((40, 2)), rng.standard_normal((30, 2)) * 1.5

    def share(points, manifold, k):
        inside = 0
        for p in points:
            for q in manifold:
                radius = sorted(np.linalg.norm(q - other) for other in manifold)[k]  # the 0th is q itself
                if np.linalg.norm(p - q) <= radius:
                    inside += 1
                    break
        return inside / len(points)

    for k in (1, 3, 5):
        assert precision_recall(real, generated, neighbours=k) == pytest.approx(
            (share(generated, real, k), share(real, generated, k)), abs=1e-12
        )


def test_duplicates_have_no_radius_and_still_hold_each_other():
    same = np.zeros((10, 4))
    assert precision_recall(same, same) == (1.0, 1.0)
    assert precision_recall(same, same + 1e-3) == (0.0, 0.0)
