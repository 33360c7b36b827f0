"""A model small enough to learn for in a test: the optimal network of a mixture of two Gaussians."""

from __future__ import annotations

import numpy as np
import pytest

import diffuse_fast as df

SCHEDULE = df.Schedule.cosine()
MEANS = np.array([[1.0, 0.5, -0.5], [-0.8, 0.0, 0.7]])
VARIANCE = np.array([0.05, 0.1, 0.02])


def mixture(schedule, prediction_type):
    """The optimal network of equal weights: responsibilities by Bayes, and each Gaussian's own E[x0 | x_t]."""

    def network(x, t):
        time = np.exp(4.0 * np.float64(t[0])) if schedule.family == "edm" else np.float64(t[0])  # EDM's network is told log(σ)/4
        time = np.clip(time, schedule.t_min, schedule.t_max)
        alpha, sigma = schedule.alpha(time), schedule.sigma(time)
        variance = alpha**2 * VARIANCE + sigma**2
        x = np.asarray(x, np.float64)
        off = x[:, None, :] - alpha * MEANS
        log = -0.5 * (off**2 / variance).sum(-1)
        weight = np.exp(log - log.max(1, keepdims=True))
        weight /= weight.sum(1, keepdims=True)
        x0 = (weight[:, :, None] * (MEANS + alpha * VARIANCE * off / variance)).sum(1)
        epsilon = (x - alpha * x0) / sigma
        return {"epsilon": epsilon, "denoised": x0, "flow": epsilon - x0}[prediction_type].astype(np.float32)

    return network


@pytest.fixture(scope="session")
def known():
    """How the mixture's network is told to df.sample and df.learn_solver."""
    return {"schedule": SCHEDULE, "prediction_type": "epsilon", "shape": (3,)}


@pytest.fixture(scope="session")
def network():
    return mixture(SCHEDULE, "epsilon")


@pytest.fixture(scope="session")
def gaussians():
    """``gaussians(schedule, prediction_type)``: the same mixture's network for another schedule."""
    return mixture
