"""Monte Carlo estimates of the evidence lower bound, with every term or one term per stratum."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..artifact.document import output_shape
from ..checks import require_int
from ..errors import ArgumentError, NonFiniteError
from ..model import Model
from ..runtimes import network
from ..schedule import Schedule
from ..solver.prediction import convert_prediction
from ..solver.solver import Grid
from ..theory import decoder_term, diffusion_term, marginal, prior_term, simple_loss_weight
from ..theory.bound import log_phi
from ..theory.forward import added, level
from ..theory.gaussian import per_sample

DEFAULT_STEPS = 1000
# The noisiest level of a schedule whose log-SNR has no lower bound: alpha is 1.2e-4.
LEAST_LOG_SNR = -18.0


def estimate_bound(
    model: Any,
    known: Model | None,
    grid: Grid,
    x0: np.ndarray,
    cond: dict[str, np.ndarray],
    noise: Callable[[int, tuple[int, ...]], np.ndarray],
    draws: int,
    runtime: str,
    learned: str,
    by_alpha: bool,
    first: int,
    *,
    steps: int | None,
    evaluations: int | None,
    variance_type: str | None,
    levels: int | None,
    value_range: tuple[float, float],
    evaluated: Callable[[], None],
) -> tuple[list[dict[str, np.ndarray]], int]:
    """The terms of each draw, in nats per sample, and the network evaluations of a sample."""
    schedule, shape = grid.schedule, x0.shape[1:]
    if variance_type is None:
        variance_type = "fixed_large" if learned == "none" else learned
    elif variance_type.startswith("learned") and variance_type != learned:
        raise ArgumentError(f"variance_type is {variance_type!r}, but the model's learned variance is {learned!r}.")
    times = spaced_times(schedule, steps, known)
    strata = _strata(len(times), evaluations)
    # A callable with a discrete schedule receives integer timesteps as int64, as in sampling.
    call = network(model, runtime).bind(len(x0), shape, cond, output_shape(shape, learned))
    scale = grid.initial_scale
    prior = prior_term(schedule, x0, t=float(times[-1]), scale=scale)

    def predict(x_t: np.ndarray, t: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        call.x[...] = x_t / level(schedule, t, x_t.ndim).alpha if by_alpha else x_t
        network_time = np.asarray(schedule.network_time(t, grid.time_convention), np.float64)
        output = call(float(network_time[0]) if (network_time == network_time[0]).all() else network_time)
        evaluated()
        if not np.isfinite(output).all():
            bad = tuple((first + np.flatnonzero(~np.isfinite(output).reshape(len(x0), -1).all(axis=1))).tolist())
            where = f"at time {network_time[bad[0] - first]:g} for sample {bad[0]}"
            raise NonFiniteError(f"the network returned NaN or Inf {where}.", row=0, samples=bad)
        both = output.astype(np.float64)
        return both[:, : shape[0]], both[:, shape[0] :] if learned != "none" else None

    def term_at(t: np.ndarray, s: np.ndarray, epsilon: np.ndarray) -> np.ndarray:
        x_t = marginal(schedule, x0, t).sample(epsilon)
        output, v = predict(x_t, t)
        term = diffusion_term(
            schedule, x0, x_t, output, t=t, s=s, prediction_type=grid.prediction_type, variance_type=variance_type, v=v
        )
        fixed = "fixed_small" if variance_type == "fixed_small" else "fixed_large"
        weight = simple_loss_weight(schedule, t=t, s=s, variance_type=fixed)
        return term - weight * control(schedule, x0, epsilon, t)

    def last(epsilon: np.ndarray) -> np.ndarray:
        t = np.full(len(x0), times[0])
        x_t = marginal(schedule, x0, t).sample(epsilon)
        output, v = predict(x_t, t)
        alpha, sigma = float(schedule.alpha(times[0])), float(schedule.sigma(times[0]))
        data = convert_prediction(
            output, x_t, from_=grid.prediction_type, to="sample", alpha=alpha, sigma=sigma, sigma_data=schedule.sigma_data
        )
        std: Any = sigma / alpha
        if variance_type == "learned":
            assert v is not None
            std = np.exp(0.5 * v)
        elif variance_type == "learned_range":
            assert v is not None
            # As in Improved DDPM's code: β̃ of the step to the data is 0, so that of the next step is used.
            now, before = level(schedule, float(times[1]), x0.ndim), level(schedule, float(times[0]), x0.ndim)
            small = added(now, before)[1] * before.sigma**2
            share = 0.5 * (v + 1.0)
            std = np.exp(share * np.log(sigma) + (1.0 - share) * 0.5 * np.log(small))
        term = decoder_term(x0, data, std, levels=levels, value_range=value_range)
        if levels is None and not variance_type.startswith("learned"):
            term = term - 0.5 * control(schedule, x0, epsilon, t)
        return term

    rows = []
    for draw in range(draws):
        base = draw * (len(times) + 1)
        picks = noise(base, (len(strata),))
        unit = np.exp(log_phi(picks))  # uniform
        diffusion = np.zeros(len(x0))
        for k, (start, stop) in enumerate(strata):
            i = np.minimum(start + (unit[:, k] * (stop - start)).astype(np.int64), stop - 1)
            epsilon = noise(base + 1 + start, shape)
            diffusion += (stop - start) * term_at(times[i], times[i - 1], epsilon)
        rows.append({"prior": prior, "diffusion": diffusion, "decoder": last(noise(base + 1, shape))})
    return rows, draws * (len(strata) + 1)


def spaced_times(schedule: Schedule, steps: int | None, model: Model | None) -> np.ndarray:
    """The times of the bound, increasing."""
    if schedule.family == "discrete":
        count = schedule.num_train_timesteps  # type: ignore[attr-defined]  # checked above
        steps = count if steps is None else require_int("steps", steps, 2)
        if steps > count:
            raise ArgumentError(f"steps is {steps}; the schedule has {count} timesteps.")
        return np.unique(np.round(np.linspace(0.0, count - 1.0, steps)))
    if model is not None and model.time.dtype != "float32":
        raise ArgumentError("the model takes integer timesteps, but the times of this schedule are fractional.")
    steps = DEFAULT_STEPS if steps is None else require_int("steps", steps, 2)
    high, low = schedule.log_snr(schedule.t_min), max(schedule.log_snr(schedule.t_max), LEAST_LOG_SNR)
    times = np.asarray(schedule.timestep_at_log_snr(np.linspace(high, low, steps)))
    if low > LEAST_LOG_SNR:
        times[-1] = schedule.t_max
    times[0] = schedule.t_min
    return times


def _strata(count: int, evaluations: int | None) -> list[tuple[int, int]]:
    """Ranges of the terms 1 to count − 1; one term of each range is evaluated."""
    terms = count - 1
    chosen = terms if evaluations is None else require_int("evaluations", evaluations, 1)
    if chosen > terms:
        raise ArgumentError(f"evaluations is {chosen}; there are {terms} terms.")
    edges = 1 + np.round(np.linspace(0, terms, chosen + 1)).astype(int)
    return list(zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True))


def control(schedule: Schedule, x0: np.ndarray, epsilon: np.ndarray, t: np.ndarray) -> np.ndarray:
    """A control variate: ‖ε − ε̂‖² of the optimal network for data N(0, sigma_data²), minus its mean given x0, (n,).

    Its mean is 0, so the estimate is unbiased for any network and data. At small noise every good network is close to this one, so
    it removes most of the variance.
    """
    now = level(schedule, t, 1)
    data = (now.alpha * schedule.sigma_data) ** 2
    of_noise, of_data = data / (data + now.sigma**2), now.alpha * now.sigma / (data + now.sigma**2)
    squares, products = per_sample(epsilon**2) - epsilon[0].size, per_sample(x0 * epsilon)
    return of_noise**2 * squares - 2.0 * of_noise * of_data * products
