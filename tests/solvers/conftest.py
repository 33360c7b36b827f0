"""What the tests of solvers share: loops, networks, and what a perfect prediction does to a plan."""

from __future__ import annotations

from unittest import mock

import numpy as np
import pytest

import diffuse_fast as df
from diffuse_fast.kernels.reference import apply_row

SCHEDULES = {
    "linear": df.Schedule.linear(),
    "scaled_linear": df.Schedule.scaled_linear(),
    "cosine": df.Schedule.cosine(),
    "short": df.Schedule.linear(60, 0.001, 0.2),
    "zero SNR": df.Schedule.scaled_linear().rescale_zero_terminal_snr(),
}


@pytest.fixture(params=list(SCHEDULES))
def schedule(request):
    return SCHEDULES[request.param]


@pytest.fixture(scope="session")
def run():
    """``run(plan, network, x, noises=None) -> [x before each row, and the result]``, by the float64 oracle."""

    def loop(plan, network, x, noises=None):
        states, registers = [np.asarray(x, np.float64)], [None] * plan.registers
        for i, row in enumerate(plan.rows):
            outputs = [network(states[-1], row.timestep)] if row.calls_network else []
            z = noises[i] if row.stochastic else None
            states.append(apply_row(row, states[-1], outputs, registers, z=z))
        return states

    return loop


@pytest.fixture(scope="session")
def landing():
    """``landing(plan, i) -> (alpha, variance)`` where row i lands when the state has the marginal that the plan says
    and the network is right. Clipping must not matter."""

    def land(plan, i):
        row, (alpha, sigma) = plan.rows[i], plan.marginals[i]
        truth = {"epsilon": (0.0, 1.0), "sample": (1.0, 0.0), "v_prediction": (-sigma, alpha)}[plan.prediction_type]
        of_x0, of_eps = (
            row.a * x + row.b * m + row.d * row.r * (row.p * x + row.q * m)
            for x, m in zip((alpha, sigma), truth, strict=True)
        )
        return of_x0, of_eps**2 + row.s**2

    return land


@pytest.fixture(scope="session")
def assert_declared_marginals(landing):
    """Every row lands on the next marginal, or deviates from it by exactly what the plan declares."""

    def check(plan):
        deviation = plan.deviation or [(0.0, 0.0)] * len(plan.rows)
        for i, row in enumerate(plan.rows):
            alpha, variance = landing(plan, i)
            alpha_next, sigma_next = plan.marginals[i + 1]
            # 1e-12, times the size of the coefficients: where alpha is small, epsilon has weight 1/alpha, and float64
            # cannot write that weight better than to EPS/alpha.
            tolerance = 1e-12 * max(1.0, abs(row.a), abs(row.b), abs(row.p), abs(row.q))
            assert alpha == pytest.approx(alpha_next + deviation[i][0], rel=0, abs=tolerance)
            assert variance == pytest.approx(sigma_next**2 + deviation[i][1], rel=0, abs=tolerance)

    return check


@pytest.fixture
def gaussian():
    """Data N(mean, diag(variance)), whose optimal network is known in closed form."""
    return Gaussian(mean=np.array([0.5, -1.0, 0.0, 2.0]), variance=np.array([0.04, 0.5, 1.0, 2.0]))


class Gaussian:
    def __init__(self, mean, variance):
        self.mean, self.variance = mean, variance

    def marginal(self, alpha, sigma):
        """Mean and variance of x_t."""
        return alpha * self.mean, alpha**2 * self.variance + sigma**2

    def network(self, schedule, prediction_type="epsilon"):
        """The optimal prediction: E[ε | x_t] = sigma·(x_t − alpha·mean)/(alpha²·variance + sigma²), and the others."""

        def predict(x, t):
            alpha, sigma = schedule.alpha(t), schedule.sigma(t)
            mean, variance = self.marginal(alpha, sigma)
            epsilon = sigma * (x - mean) / variance
            x0 = self.mean + alpha * self.variance * (x - mean) / variance
            return {"epsilon": epsilon, "sample": x0, "v_prediction": alpha * epsilon - sigma * x0}[prediction_type]

        return predict

    def flow(self, x, alpha, sigma, alpha_next, sigma_next):
        """The exact solution of the probability-flow ODE: a Gaussian is carried to a Gaussian, quantile by quantile."""
        mean, variance = self.marginal(alpha, sigma)
        mean_next, variance_next = self.marginal(alpha_next, sigma_next)
        return mean_next + np.sqrt(variance_next / variance) * (x - mean)


@pytest.fixture(scope="session")
def diffusers_loop():
    """``diffusers_loop(scheduler, steps, network, x, noises, dtype, **step_options) -> states`` with injected noise."""
    import torch

    def loop(scheduler, steps, network, x, noises, dtype, **step_options):
        scheduler.set_timesteps(steps)
        states = [torch.tensor(x, dtype=dtype)]
        for t, z in zip(scheduler.timesteps, noises, strict=True):
            noise = torch.tensor(z, dtype=dtype)
            output = torch.tensor(network(states[-1].numpy().astype(np.float64), float(t)), dtype=dtype)
            module = type(scheduler).__module__
            with mock.patch(f"{module}.randn_tensor", lambda *_, noise=noise, **__: noise):
                states.append(scheduler.step(output, int(t), states[-1], **step_options).prev_sample)
        return [state.numpy() for state in states]

    return loop
