"""The figures: the distance against its closed form, and the judge on digits whose worth is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch

pytest.importorskip("sklearn")
from diffuse_fast.training.data import digits
from diffuse_fast.training.evaluation.classifier import train_judge
from diffuse_fast.training.evaluation.metrics import frechet_distance
from diffuse_fast.training.quality import measure, table


@pytest.fixture(scope="module")
def judge():
    split = digits()
    return train_judge(split.images, split.labels, passes=6)


def whitened(rng: np.random.Generator, count: int, width: int) -> np.ndarray:
    """Points whose sample mean is 0 and whose sample covariance is the identity, exactly."""
    x = rng.standard_normal((count, width))
    x -= x.mean(0)
    return x @ np.linalg.inv(np.linalg.cholesky(np.cov(x, rowvar=False))).T


def test_frechet_distance_in_closed_form():
    rng = np.random.default_rng(0)
    a, b = whitened(rng, 200, 5), whitened(rng, 90, 5)
    assert frechet_distance(a, b) == pytest.approx(0.0, abs=1e-9)
    shift, scales = rng.standard_normal(5), np.array([0.5, 1.0, 2.0, 3.0, 0.0])
    # Covariances that commute: Σ (√λ_a − √λ_b)² + ‖μ_a − μ_b‖².
    expected = ((scales - 1) ** 2).sum() + (shift**2).sum()
    assert frechet_distance(a, b * scales + shift) == pytest.approx(expected, rel=1e-9)
    assert frechet_distance(b * scales + shift, a) == pytest.approx(expected, rel=1e-9)


def test_frechet_distance_does_not_turn_with_the_axes():
    scipy_linalg = pytest.importorskip("scipy.linalg")
    rng = np.random.default_rng(1)
    a, b = (rng.standard_normal((100, 4)) @ rng.standard_normal((4, 4)) for _ in range(2))
    turn = np.linalg.qr(rng.standard_normal((4, 4)))[0]
    assert frechet_distance(a @ turn, b @ turn) == pytest.approx(frechet_distance(a, b), rel=1e-9)
    cov_a, cov_b = np.cov(a.T), np.cov(b.T)
    root = scipy_linalg.sqrtm(cov_a @ cov_b).real
    expected = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(cov_a + cov_b - 2 * root)
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-6)


@pytest.mark.slow  # trains a judge
def test_the_judge_reads_digits_it_has_not_seen(judge):
    split = digits()
    figures = measure(split.held_out_images, split.held_out_labels, split, judge, set_size=360)
    assert figures.accuracy > 95
    assert figures.copies == 0
    wrong = measure(split.held_out_images, (split.held_out_labels + 1) % 10, split, judge, set_size=360)
    assert wrong.accuracy < 5
    assert wrong.frechet_distance == figures.frechet_distance


@pytest.mark.slow  # trains a judge
def test_the_judge_is_the_same_twice():
    split = digits()
    one, two = (train_judge(split.images[:128], split.labels[:128], passes=1) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))


@pytest.mark.slow  # trains a judge
def test_memorised_and_spoilt_digits_are_told_apart(judge):
    split = digits()
    copied = measure(split.images[:360], split.labels[:360], split, judge, set_size=360)
    assert copied.copies == 360
    assert copied.nearest == 0.0
    # Off by less than half a level is still the same digit, at the data's levels.
    nearly = measure(split.images[:360] + np.float32(0.04), split.labels[:360], split, judge, set_size=360)
    assert nearly.copies == 360
    rng = np.random.default_rng(0)
    noise = rng.uniform(-1, 1, (360, 1, 8, 8)).astype(np.float32)
    spoilt = measure(noise, split.labels[:360], split, judge, set_size=360)
    assert spoilt.accuracy < 40
    assert spoilt.copies == 0
    assert spoilt.frechet_distance > 3 * copied.frechet_distance


@pytest.mark.slow  # trains a judge
def test_accuracy_per_class_and_sets(judge):
    split = digits()
    labels = split.held_out_labels.copy()
    labels[split.held_out_labels == 7] = 3  # sevens that claim to be threes
    labels[np.flatnonzero(split.held_out_labels == 8)[0]] = 7
    figures = measure(split.held_out_images, labels, split, judge, set_size=120)
    assert figures.accuracy_per_class[7] == 0.0
    assert 40 < figures.accuracy_per_class[3] < 60
    assert figures.frechet_distance_std > 0
    held_out = vars(figures)
    guided = {"guidance_scale": 1.5, **held_out}
    text = table({"held_out": held_out, "generated": [guided], "set_size": 120})
    assert "generated, guidance 1.5 |" in text
    assert len({line.count("|") for line in text.splitlines()}) == 1
