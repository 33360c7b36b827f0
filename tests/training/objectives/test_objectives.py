"""The objectives against what is known in closed form."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import diffuse_fast as df
from diffuse_fast.training import TrainConfig
from diffuse_fast.training.objectives import TARGETS, ForwardProcess, evaluate_loss, simple_loss

MEAN, STD = 0.5, 0.8


def optimum(prediction_type: str, alpha: float, sigma: float) -> tuple[float, float, float]:
    """Slope, intercept and least loss of the best prediction from x_t = alpha·x0 + sigma·ε for x0 ~ N(MEAN, STD²).

    x_t and the target are jointly Gaussian, so E[target | x_t] is linear: the slope is Cov(target, x_t) / Var(x_t).
    """
    on_x0, on_noise = {"epsilon": (0.0, 1.0), "sample": (1.0, 0.0), "v_prediction": (-sigma, alpha)}[prediction_type]
    variance = alpha**2 * STD**2 + sigma**2
    covariance = on_x0 * alpha * STD**2 + on_noise * sigma
    slope = covariance / variance
    least = on_x0**2 * STD**2 + on_noise**2 - covariance**2 / variance
    return slope, on_x0 * MEAN - slope * alpha * MEAN, least


@pytest.mark.parametrize("prediction_type", TARGETS)
@pytest.mark.parametrize("t", [5, 300, 700, 990])
def test_the_best_prediction_of_a_gaussian(prediction_type, t):
    schedule = df.Schedule.cosine()
    count = 200_000
    generator = torch.Generator().manual_seed(t)
    x0 = MEAN + STD * torch.randn(count, 1, generator=generator)
    noise = torch.randn(count, 1, generator=generator)
    x_t, target = ForwardProcess(schedule, prediction_type)(x0, torch.full((count,), t), noise)

    alpha, sigma = schedule.alphas_cumprod[t] ** 0.5, (1 - schedule.alphas_cumprod[t]) ** 0.5
    slope, intercept, least = optimum(prediction_type, alpha, sigma)
    design = np.stack([x_t[:, 0].double(), np.ones(count)], axis=1)
    (fitted_slope, fitted_intercept), (residual,), *_ = np.linalg.lstsq(design, target[:, 0].double().numpy(), rcond=None)
    # Five standard errors of a least-squares fit; Var(x_t) >= STD² and E[x_t²] <= 1.
    error = 5 * np.sqrt(least / count) / STD
    assert abs(fitted_slope - slope) < error + 1e-6
    assert abs(fitted_intercept - intercept) < error + 1e-6
    assert abs(residual / count - least) < 5 * least * np.sqrt(2 / count) + 1e-6


def test_the_losses_of_one_prediction_differ_by_known_weights():
    # From x_t = alpha·x0 + sigma·ε: x0's error is -sigma/alpha times that of ε, and v's error is 1/alpha times it.
    schedule = df.Schedule.linear(num_train_timesteps=50)
    generator = torch.Generator().manual_seed(0)
    x0, noise, guess = torch.randn(3, 50, 2, 3, dtype=torch.float64, generator=generator).float()
    t = torch.arange(50)
    alpha2 = torch.tensor(np.array(schedule.alphas_cumprod), dtype=torch.float32).reshape(-1, 1, 1)
    alpha, sigma = alpha2.sqrt(), (1 - alpha2).sqrt()
    errors = {}
    for name in TARGETS:
        x_t, target = ForwardProcess(schedule, name)(x0, t, noise)
        guess_x0 = (x_t - sigma * guess) / alpha
        predicted = {"epsilon": guess, "sample": guess_x0, "v_prediction": alpha * guess - sigma * guess_x0}[name]
        errors[name] = (predicted - target).square().mean((1, 2))
    weight = alpha2[:, 0, 0]
    torch.testing.assert_close(errors["sample"], errors["epsilon"] * (1 - weight) / weight, rtol=1e-3, atol=1e-6)
    torch.testing.assert_close(errors["v_prediction"], errors["epsilon"] / weight, rtol=1e-3, atol=1e-6)


def test_the_loss_is_the_mean_square_and_labels_reach_the_network():
    class Constant(torch.nn.Module):
        def forward(self, x, t, label=None):
            return torch.zeros_like(x) if label is None else label.float()[:, None].expand_as(x)

    x, t, target = torch.zeros(2, 3), torch.tensor([0, 1]), torch.full((2, 3), 2.0)
    assert simple_loss(Constant(), x, t, target).item() == 4.0
    assert simple_loss(Constant(), x, t, target, torch.tensor([1, 3])).item() == 1.0


def test_evaluating_the_exact_network_gives_the_least_loss():
    schedule = df.Schedule.cosine(num_train_timesteps=20)

    class Exact(torch.nn.Module):
        def forward(self, x, t):
            alpha = torch.tensor(np.sqrt(schedule.alphas_cumprod))[t]
            rows = [optimum("v_prediction", a.item(), (1 - a.item() ** 2) ** 0.5)[:2] for a in alpha]
            slope, intercept = torch.tensor(rows).T
            return (x[:, 0] * slope + intercept)[:, None]

    data = MEAN + STD * torch.randn(2000, 1, generator=torch.Generator().manual_seed(0))
    process = ForwardProcess(schedule, "v_prediction")
    found = evaluate_loss(Exact(), data, None, process, draws=4, seed=0)
    expected = np.mean([optimum("v_prediction", a**0.5, (1 - a) ** 0.5)[2] for a in schedule.alphas_cumprod])
    # 8,000 squared errors, each with a deviation of about sqrt(2) of the mean: five standard errors are 8 %.
    assert abs(found / expected - 1) < 0.08
    assert found == evaluate_loss(Exact(), data, None, process, draws=4, seed=0)


@pytest.mark.parametrize(
    "prediction_type", ["v_prediction", *(pytest.param(name, marks=pytest.mark.slow) for name in TARGETS if name != "v_prediction")]
)
def test_training_finds_the_best_prediction_of_a_gaussian(prediction_type):
    """A network with a free line per time, trained by ``df.train``, must end at the closed form."""
    times = 4
    schedule = df.Schedule.cosine(num_train_timesteps=times)

    class Lines(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.slope, self.intercept = (torch.nn.Parameter(torch.zeros(times)) for _ in range(2))

        def forward(self, x, t):
            return x * self.slope[t][:, None] + self.intercept[t][:, None]

    rng = np.random.default_rng(0)
    data = rng.standard_normal((4096, 1))
    data = MEAN + STD * (data - data.mean()) / data.std()
    config = TrainConfig(
        steps=700, batch_size=512, prediction_type=prediction_type, learning_rate=0.02, gradient_clip=None, ema_decay=0.99
    )
    trained = df.train(Lines(), data, schedule=schedule, config=config).network
    for t, alphas_cumprod in enumerate(schedule.alphas_cumprod):
        slope, intercept, _ = optimum(prediction_type, alphas_cumprod**0.5, (1 - alphas_cumprod) ** 0.5)
        # 90,000 draws of each time, of which the decaying rate and the average let the last part count: errors of 0.01.
        assert trained.slope[t].item() == pytest.approx(slope, abs=0.03)
        assert trained.intercept[t].item() == pytest.approx(intercept, abs=0.03)
