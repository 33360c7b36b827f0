"""The figures: the distance against its closed form, and the classifier on digits of known quality."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch

pytest.importorskip("sklearn")
from diffuse_fast.training.data import digits
from diffuse_fast.training.evaluation.classifier import train_classifier
from diffuse_fast.training.evaluation.image_quality import features, measure, to_csv
from diffuse_fast.training.evaluation.metrics import frechet_distance


@pytest.fixture(scope="module")
def figures():
    """``figures(images, labels, sets=1)``: what a classifier of six passes measures."""
    split = digits()
    classifier = train_classifier(split.images, split.labels, passes=6)
    return functools.partial(measure, classifier, features(classifier, split.images), split)


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


@pytest.mark.slow  # trains a classifier
def test_the_classifier_recognises_held_out_digits(figures):
    split = digits()
    right = figures(split.held_out_images, split.held_out_labels)
    assert right.accuracy > 95
    assert (right.copies, right.samples, right.frechet_distance_std) == (0, 360, 0.0)
    wrong = figures(split.held_out_images, (split.held_out_labels + 1) % 10)
    assert wrong.accuracy < 5
    assert wrong.frechet_distance == right.frechet_distance


def test_the_classifier_is_the_same_twice_and_with_any_number_of_threads():
    split = digits()
    before = torch.get_num_threads()
    trained = []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            trained.append(train_classifier(split.images[:128], split.labels[:128], passes=1))
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(*(c.parameters() for c in trained), strict=True))


@pytest.mark.slow  # trains a classifier
def test_memorised_and_spoilt_digits_differ_in_their_figures(figures):
    split = digits()
    copied = figures(split.images[:360], split.labels[:360])
    assert copied.copies == 360
    assert copied.nearest == pytest.approx(0.0, abs=5e-4)
    # Off by less than half a level is still the same digit, at the data's levels.
    nearly = figures(split.images[:360] + np.float32(0.04), split.labels[:360])
    assert nearly.copies == 360
    rng = np.random.default_rng(0)
    noise = rng.uniform(-1, 1, (360, 1, 8, 8)).astype(np.float32)
    spoilt = figures(noise, split.labels[:360])
    assert spoilt.accuracy < 40
    assert spoilt.copies == 0
    assert spoilt.frechet_distance > 3 * copied.frechet_distance


@pytest.mark.slow  # trains a classifier
def test_accuracy_per_class_and_sets(figures, tmp_path):
    split = digits()
    labels = split.held_out_labels.copy()
    labels[split.held_out_labels == 7] = 3  # sevens that claim to be threes
    labels[np.flatnonzero(split.held_out_labels == 8)[0]] = 7
    found = figures(split.held_out_images, labels, sets=3)
    assert found.accuracy_per_class[7] == 0.0
    assert 40 < found.accuracy_per_class[3] < 60
    each = [figures(split.held_out_images[i : i + 120], labels[i : i + 120]) for i in (0, 120, 240)]
    for name in ("accuracy", "score", "frechet_distance", "precision", "recall"):
        assert getattr(found, name) == pytest.approx(np.mean([getattr(one, name) for one in each]), rel=1e-6)
    assert found.frechet_distance_std == pytest.approx(np.std([one.frechet_distance for one in each]), rel=1e-6)
    assert found.copies == sum(one.copies for one in each)
    to_csv([found], tmp_path / "q.csv")
    head, line = (text.split(",") for text in (tmp_path / "q.csv").read_text().splitlines())
    assert dict(zip(head, line, strict=True))["accuracy_7"] == "0"
