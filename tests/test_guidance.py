"""Classifier guidance, against the one case in which the guided answer is known: two Gaussians and Bayes' rule."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import diffuse_fast as df
from diffuse_fast.errors import ArgumentError

SCHEDULE = df.Schedule.linear()
MEANS, VARIANCE = (-1.0, 1.0), 0.1  # two classes of the same weight


def parts(x, t):
    t = t.double().numpy()
    alpha, sigma = (torch.tensor(f(t))[:, None] for f in (SCHEDULE.alpha, SCHEDULE.sigma))
    return alpha, sigma, alpha**2 * VARIANCE + sigma**2, x.double()


def log_posterior(x, t, label):
    alpha, _, variance, x = parts(x, t)
    log = torch.stack([-0.5 * ((x - alpha * m) ** 2 / variance).sum(1) for m in MEANS], dim=1)
    return torch.log_softmax(log, dim=1)[torch.arange(len(x)), label]


def epsilon(x, t, mean):
    alpha, sigma, variance, x = parts(x, t)
    return sigma * (x - alpha * mean) / variance


def unconditional(prediction_type):
    def network(x, t):
        alpha, sigma, _, _ = parts(x, t)
        label = torch.zeros(len(x), dtype=torch.long)
        share = torch.exp(log_posterior(x, t, label))[:, None]
        eps = share * epsilon(x, t, MEANS[0]) + (1 - share) * epsilon(x, t, MEANS[1])
        x0 = (x.double() - sigma * eps) / alpha
        return {"epsilon": eps, "sample": x0, "v_prediction": alpha * eps - sigma * x0}[prediction_type].float()

    return network


@pytest.mark.parametrize("prediction_type", ["epsilon", "sample", "v_prediction"])
def test_guidance_of_scale_one_is_the_conditional_model(prediction_type):
    """∇log p(x|y) = ∇log p(x) + ∇log p(y|x): guided by the exact posterior, the network is that of the class."""
    guided = df.ClassifierGuidance(
        unconditional(prediction_type), log_posterior, 1.0, schedule=SCHEDULE, prediction_type=prediction_type
    )
    rng = np.random.default_rng(0)
    label = np.array([0, 1, 1, 0, 1, 0])
    common = {"shape": (2,), "schedule": SCHEDULE, "solver": "ddim"}
    noise = rng.standard_normal((6, 2)).astype(np.float32)
    x = df.sample(guided, 6, 50, prediction_type=prediction_type, cond={"label": label}, noise=noise, **common)

    def of_the_class(x, t, label):
        means = torch.tensor(MEANS, dtype=torch.float64)[label][:, None]
        return epsilon(x, t, means).float()

    class Module(torch.nn.Module):
        def forward(self, x, t, label):
            return of_the_class(x, t, label)

    expected = df.sample(Module(), 6, 50, prediction_type="epsilon", cond={"label": label}, noise=noise, **common)
    np.testing.assert_allclose(x, expected, atol=1e-3)


def test_a_scale_of_zero_is_the_network_itself():
    network = unconditional("epsilon")
    guided = df.ClassifierGuidance(network, log_posterior, 0.0, schedule=SCHEDULE, prediction_type="epsilon")
    x, t = torch.randn(3, 2), torch.tensor([10, 500, 900])
    torch.testing.assert_close(guided(x, t, label=torch.tensor([0, 1, 0])), network(x, t))


@pytest.mark.parametrize(
    ("log_prob", "message"), [(lambda x, t: x.sum(), "one per sample"), (lambda x, t: torch.zeros(len(x)), "does not depend")]
)
def test_an_invalid_classifier_is_refused(log_prob, message):
    guided = df.ClassifierGuidance(lambda x, t: x, log_prob, 1.0, schedule=SCHEDULE, prediction_type="epsilon")
    with pytest.raises(ArgumentError, match=message):
        df.sample(guided, 2, 3, shape=(4,), schedule=SCHEDULE, prediction_type="epsilon")
