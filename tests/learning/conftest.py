"""A model small enough to learn for in a test: the optimal network of a mixture of two Gaussians."""

from __future__ import annotations

import numpy as np
import pytest

import diffuse_fast as df

SCHEDULE = df.Schedule.cosine()
MEANS = np.array([[1.0, 0.5, -0.5], [-0.8, 0.0, 0.7]])
VARIANCE = np.array([0.05, 0.1, 0.02])


def mixture(x, t):
    """E[ε | x_t] for equal weights: responsibilities by Bayes, and each Gaussian's own answer."""
    alpha, sigma = SCHEDULE.alpha(t)[:, None, None], SCHEDULE.sigma(t)[:, None, None]
    variance = alpha**2 * VARIANCE + sigma**2
    off = np.asarray(x, np.float64)[:, None, :] - alpha * MEANS
    log = -0.5 * (off**2 / variance).sum(-1)
    weight = np.exp(log - log.max(1, keepdims=True))
    weight /= weight.sum(1, keepdims=True)
    return (weight[:, :, None] * sigma * off / variance).sum(1).astype(np.float32)


@pytest.fixture(scope="session")
def known():
    """How the mixture's network is told to df.sample and df.learn_solver."""
    return {"schedule": SCHEDULE, "prediction_type": "epsilon", "shape": (3,)}


@pytest.fixture(scope="session")
def network():
    return mixture
