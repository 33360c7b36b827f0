"""What the tests of solvers share: loops, networks, and what a perfect prediction does to a plan."""

from __future__ import annotations

import dataclasses
from unittest import mock

import numpy as np
import pytest

import diffuse_fast as df
from diffuse_fast.kernels.reference import apply_row
from diffuse_fast.solver import spacing

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
def laid():
    """laid(schedule, solver, spacing, steps, **options) -> the times of a spacing, for ``timesteps=``: also those of a grid that
    `df.plan` refuses by name, as it starts in the middle of the schedule. The peers start there all the same."""

    def times(schedule, solver, name, steps, **options):
        return spacing.grid(spacing.resolve(schedule, name, **options), schedule, steps, df.solvers()[solver].grid)

    return times


@pytest.fixture(scope="session")
def assert_declared_marginals():
    """Every row lands on the next marginal, or deviates from it by exactly what the plan declares, when the state has the
    marginal that the plan says and the network is right. Clipping must not matter.

    States and registers are pairs here, the weights of x0 and of ε: every row is linear in them.
    """

    def check(plan, sigma_data=1.0):
        deviation = plan.deviation or [(0.0, 0.0)] * len(plan.rows)
        registers, held = [None] * plan.registers, 1.0
        for i, row in enumerate(plan.rows):
            alpha, sigma = plan.marginals[i]
            alpha_next, sigma_next = plan.marginals[i + 1]
            truth = {
                "epsilon": (0.0, 1.0),
                "sample": (1.0, 0.0),
                "denoised": (1.0, 0.0),
                "flow": (-1.0, 1.0),
                "v_prediction": (-sigma / sigma_data, sigma_data * alpha),
                "edm": (sigma / sigma_data, -sigma_data * alpha),
                "score": (0.0, -1.0 / max(sigma, 1e-300)),
            }[plan.prediction_type]
            s = row.s
            if row.log_s is not None:  # learned_range: the right variance of a point of data is the lower end, v = -1
                s = np.exp(row.log_s[0] - row.log_s[1])
            if row.reduce is not None:  # Langevin, where |z| = |ε|
                snr, kappa = row.reduce.values
                step = 2.0 * (snr / (kappa * truth[1])) ** 2
                row, s = dataclasses.replace(row, reduce=None, b=step * kappa), np.sqrt(2.0 * step)
            of_x0, of_eps = apply_row(dataclasses.replace(row, log_s=None), [alpha, sigma], [np.array(truth)], registers)
            # 1e-12, times the size of the coefficients before they are combined, of this row and of those that wrote registers:
            # where alpha is small, epsilon has weight 1/alpha or alpha'/alpha, and float64 cannot write that weight better than to
            # EPS/alpha.
            size = max(held, *map(abs, (row.a, row.b, row.p, row.q, row.d, *row.c)), alpha_next / alpha if alpha > 0.0 else 0.0)
            held = size if row.write is not None else held
            assert abs(of_x0 - (alpha_next + deviation[i][0])) <= 1e-12 * size, i
            variance = sigma_next**2 + deviation[i][1]
            assert abs(of_eps**2 + s**2 - variance) <= 1e-12 * size * max(1.0, sigma_next**2), i

    return check


@pytest.fixture(scope="session")
def denoiser():
    """``denoiser(schedule, network, prediction_type, clip) -> D(x, σ)``: the network as Karras et al. and k-diffusion see it,
    on x = state/alpha with σ = sigma/alpha, for a variance-preserving schedule."""

    def wrap(schedule, network, prediction_type, clip=None):
        def denoise(x, sigma):
            scale = 1.0 / np.sqrt(1.0 + sigma**2)
            output = network(x * scale, schedule.timestep_at_log_snr(-2.0 * np.log(sigma)))
            if prediction_type == "epsilon":
                output = x - sigma * output
            elif prediction_type == "v_prediction":
                output = scale**2 * x - sigma * scale * output
            return output if clip is None else np.clip(output, *clip)

        return denoise

    return wrap


@pytest.fixture(scope="session")
def peer_loop():
    """``peer_loop(scheduler, network, x, noises, dtype, **step_options) -> inputs of the network, and the result``, with injected
    noise, as a diffusers pipeline runs a scheduler whose timesteps are set."""
    import torch

    def loop(scheduler, network, x, noises, dtype, **step_options):
        left = [torch.tensor(z, dtype=dtype) for z in noises]
        sample, inputs = torch.tensor(x, dtype=dtype), []
        with mock.patch(f"{type(scheduler).__module__}.randn_tensor", lambda *_, **__: left.pop(0), create=True):
            for t in scheduler.timesteps:
                scale = getattr(scheduler, "scale_model_input", lambda sample, _: sample)
                inputs.append(scale(sample, t).numpy())
                output = torch.tensor(network(inputs[-1].astype(np.float64), float(t)), dtype=dtype)
                sample = scheduler.step(output, t, sample, **step_options).prev_sample
        return [*inputs, sample.numpy()]

    return loop


@pytest.fixture(scope="session")
def measured_order(run):
    """``measured_order(solver, counts, prediction_type, exact, network, **options)``: the slope of the error against the steps,
    on a grid uniform in log-SNR from timestep 990 to 5 of the linear schedule."""

    def measure(problem, solver, counts, prediction_type, **options):
        schedule = df.Schedule.linear()
        high, low = schedule.log_snr(5), schedule.log_snr(990)
        ends = [(schedule.alpha(t), schedule.sigma(t)) for t in (990, 5)]
        x = problem.start(*ends[0])
        exact = problem.flow(x, *ends[0], *ends[1])
        errors = []
        for count in counts:
            grid = schedule.timestep_at_log_snr(np.linspace(low, high, count + 1))
            grid[[0, -1]] = 990, 5
            plan = df.plan(schedule, solver, prediction_type=prediction_type, timesteps=grid, **options)
            # the state at t = 5, before the last row
            errors.append(np.abs(run(plan, problem.network(schedule, prediction_type), x)[-2] - exact).max())
        return -np.polyfit(np.log(counts), np.log(errors), 1)[0], errors

    return measure


@pytest.fixture
def gaussian():
    """Data N(mean, diag(variance)), whose optimal network is known in closed form."""
    return Gaussian(mean=np.array([0.5, -1.0, 0.0, 2.0]), variance=np.array([0.04, 0.5, 1.0, 2.0]))


class Gaussian:
    def __init__(self, mean, variance):
        self.mean, self.variance = mean, variance

    def start(self, alpha, sigma):
        """States to start from: quantiles from -2 to 2 standard deviations about the mean."""
        return self.marginal(alpha, sigma)[0] + np.linspace(-2, 2, 9)[:, None]

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


@pytest.fixture
def mixture():
    """Data from Σ w_k·N(mean_k, variance_k) in every coordinate, whose optimal network is known in closed form."""
    return Mixture(weight=np.array([0.3, 0.5, 0.2]), mean=np.array([-1.5, 0.2, 1.1]), variance=np.array([0.1, 0.3, 0.05]))


class Mixture:
    def __init__(self, weight, mean, variance):
        self.weight, self.mean, self.variance = weight, mean, variance

    def start(self, alpha, sigma):
        return sigma * np.linspace(-2, 2, 9) + alpha * 0.1

    def epsilon(self, x, alpha, sigma):
        """E[ε | x_t]: the posterior mean over components."""
        x = np.asarray(x)[..., None]
        variance = alpha**2 * self.variance + sigma**2
        z = (x - alpha * self.mean) / variance
        logits = np.log(self.weight) - 0.5 * np.log(variance) - 0.5 * z * (x - alpha * self.mean)
        posterior = np.exp(logits - logits.max(-1, keepdims=True))
        return sigma * (posterior * z).sum(-1) / posterior.sum(-1)

    def network(self, schedule, prediction_type="epsilon"):
        def predict(x, t):
            alpha, sigma = schedule.alpha(t), schedule.sigma(t)
            epsilon = self.epsilon(x, alpha, sigma)
            x0 = (x - sigma * epsilon) / alpha
            return {"epsilon": epsilon, "sample": x0, "v_prediction": alpha * epsilon - sigma * x0}[prediction_type]

        return predict

    def flow(self, x, alpha, sigma, alpha_next, sigma_next):
        """The solution of the probability-flow ODE, d(x/alpha)/dσ = ε with σ = sigma/alpha, to 1e-11."""
        from scipy.integrate import solve_ivp

        def slope(log_sigma, y):  # the variance-preserving state with this σ
            scale = 1.0 / np.sqrt(1.0 + np.exp(2.0 * log_sigma))
            return np.exp(log_sigma) * self.epsilon(y * scale, scale, np.exp(log_sigma) * scale)

        span = np.log(sigma / alpha), np.log(sigma_next / alpha_next)
        solution = solve_ivp(slope, span, x / alpha, method="DOP853", rtol=1e-12, atol=1e-12)
        return alpha_next * solution.y[:, -1]


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
