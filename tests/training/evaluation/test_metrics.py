"""Precision and recall on sets whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest

from diffuse_fast.errors import ArgumentError
from diffuse_fast.training.evaluation.metrics import frechet_distance, precision_recall


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

    def draw_part(points, manifold, k):
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
            (draw_part(generated, real, k), draw_part(real, generated, k)), abs=1e-12
        )


def test_duplicates_have_no_radius_and_still_hold_each_other():
    same = np.zeros((10, 4))
    assert precision_recall(same, same) == (1.0, 1.0)
    assert precision_recall(same, same + 1e-3) == (0.0, 0.0)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda x: x[:1], r"\(1, 3\) and \(20, 3\); they must be .* each of \d rows or more"),
        (lambda x: x[:0], r"rows or more"),
        (lambda x: x[0], r"\(3,\)"),
        (lambda x: x[:, :2], r"\(20, 2\) and \(20, 3\)"),
        (lambda x: np.where(np.arange(20)[:, None] == 4, np.nan, x), "1 of 20 rows of features are not finite; the first is row 4"),
        (lambda x: np.where(np.arange(20)[:, None] > 17, np.inf, x), "2 of 20 rows"),
    ],
)
def test_features_that_have_no_distance_are_refused(change, told):
    x = np.random.default_rng(0).standard_normal((20, 3))
    for measure in (frechet_distance, precision_recall):
        for pair in ((change(x), x), (x, change(x))):
            with pytest.raises(ArgumentError, match=told if pair[1] is x else "features"):
                measure(*pair)


def test_the_distance_of_two_gaussians_is_the_closed_form():
    """Of N(m, S) and N(n, T) with S·T = T·S: ‖m − n‖² + tr(S + T − 2·(S·T)^½)."""
    rng = np.random.default_rng(0)
    a = rng.standard_normal((4000, 2)) @ np.diag([1.0, 2.0])
    b = rng.standard_normal((4000, 2)) @ np.diag([3.0, 0.5]) + [1.0, -2.0]
    assert frechet_distance(a, b) == pytest.approx(5.0 + (1 - 3) ** 2 + (2 - 0.5) ** 2, rel=0.05)
    assert frechet_distance(a[:, :1], b[:, :1]) == pytest.approx(1.0 + (1 - 3) ** 2, rel=0.08)  # one feature
