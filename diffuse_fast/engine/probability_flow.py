"""The probability-flow ODE by an adaptive solver: slow and accurate, the reference for few-step solvers."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .. import hints
from ..artifact.document import VARIANCES, clear_input_scale, output_shape
from ..checks import require_int, require_positive
from ..errors import ArgumentError, MissingDependencyError, NonFiniteError, install_hint
from ..kernels import get_kernel
from ..kernels.reference import STREAM_INITIAL
from ..model import Model
from ..planning import resolve_prediction_type, resolve_schedule
from ..plans.plan import INPUT_SCALES
from ..runtimes import network
from ..schedule import Schedule
from ..solver.solver import CLEAN, Grid, Point
from .arguments import Seed, noise_array, seeds_of, shape_of_sample, trait
from .conditioning import conditions
from .sample import load_cached

# The network's prediction for a state at a point.
Predict = Callable[[np.ndarray, Point], np.ndarray]


def probability_flow(
    model: Any,
    n: int,
    *,
    rtol: float = 1e-5,
    atol: float = 1e-5,
    seed: Seed = None,
    first_index: int = 0,
    noise: Any = None,
    cond: Mapping[str, Any] | None = None,
    shape: Sequence[int] | None = None,
    schedule: Schedule | None = None,
    prediction_type: str | None = None,
    variance: str | None = None,
    input_scale: str | None = None,
    runtime: str = "auto",
) -> tuple[np.ndarray, int]:
    """Draw ``n`` samples by solving the probability-flow ODE to a tolerance (Song et al. 2021, "Score-Based Generative Modeling
    through SDEs", arXiv:2011.13456, section 4.3), with the explicit Runge-Kutta method of order 8 (DOP853) of SciPy.

    Solved in half the log-SNR λ, for x/alpha, which moves by ``−(sigma/alpha)·ε`` (Lu et al. 2022, eq. 3.4), from the noisiest
    to the cleanest time of the schedule; the last step, to the data, is Euler's. Nothing is clipped. A flow starts without signal,
    where λ is infinite: it is solved in s = sigma/(alpha + sigma), for x/(alpha + sigma), which moves by ``ε − x0`` (Liu et al.
    2022, arXiv:2209.03003, eq. 1) and is regular there.

    Args:
        model: As for :func:`~diffuse_fast.sample`; it must take fractional times.
        n: Number of samples.
        rtol, atol: Relative and absolute tolerance of a step's error. The network's float32 sets a floor of about 1e-6.
        seed, first_index, noise, cond, shape, schedule, prediction_type, variance, input_scale, runtime: As for
            :func:`~diffuse_fast.sample`; the same seed starts from the same noise.

    Returns:
        The samples (n, *shape), float64, and the number of network evaluations.

    Raises:
        ArgumentError: the model takes integer timesteps only; the start has no signal, and the network predicts ε or the score, or
            the schedule is a table, which has no times between its last two; or an argument is missing or does not fit.
        NonFiniteError: the network returned NaN or Inf, or the solver could not continue.
        MissingDependencyError: SciPy is not installed.

    Example:
        >>> import numpy as np, diffuse_fast as df
        >>> schedule = df.Schedule.vp_sde()
        >>> def network(x, t):  # the exact one for data N(0, 1)
        ...     return x * schedule.sigma(np.asarray(t, np.float64))[:, None].astype(np.float32)
        >>> x, nfe = df.probability_flow(network, 4, shape=(2,), schedule=schedule, prediction_type="epsilon", seed=0)
        >>> x.shape, nfe > 20
        ((4, 2), True)
    """
    if isinstance(model, str | Path):
        model = load_cached(model)
    known = model if isinstance(model, Model) else None
    if known is not None and known.time.dtype != "float32":
        raise ArgumentError("the model takes integer timesteps, but an adaptive solver calls it at any time.")
    require_int("n", n, 1)
    for name, tolerance in (("rtol", rtol), ("atol", atol)):
        require_positive(name, tolerance)
    schedule = resolve_schedule(schedule, known)
    predicts = resolve_prediction_type(prediction_type, known)
    if predicts not in schedule.prediction_types:
        raise ArgumentError(
            f"prediction_type is {predicts!r}; a network of a schedule of the family {schedule.family} predicts one of "
            f"{', '.join(schedule.prediction_types)}.{hints.of_prediction(predicts)}"
        )
    grid = Grid(
        schedule=schedule,
        points=(),
        prediction_type=predicts,
        lo=-np.inf,
        hi=np.inf,
        time_convention=known.time.convention if known else None,
    )
    grid = dataclasses.replace(grid, points=grid.at_times(np.array([schedule.t_max, schedule.t_min])))
    if grid.points[0].alpha == 0.0:
        _check_start(grid)
    sample_shape = shape_of_sample(shape, known)
    given = conditions("cond", cond, n, known.conditioning if known else None)
    returned = output_shape(sample_shape, trait("variance", variance, known, VARIANCES) or "none")
    by_alpha = takes_by_alpha(input_scale, known, grid)
    call = network(model, runtime, float_times=known is None).bind(n, sample_shape, given, returned)
    seeds, indices = seeds_of(seed, n, first_index)
    scale = grid.initial_scale
    if noise is None:
        get_kernel().normals(call.x, seeds=seeds, indices=indices, row=0, stream=STREAM_INITIAL, scale=scale)
    else:
        np.multiply(noise_array("noise", noise, (n, *sample_shape)), np.float32(scale), out=call.x, casting="same_kind")
    evaluations = 0

    def predict(state: np.ndarray, point: Point) -> np.ndarray:
        """Return the network's prediction at a point, in float64."""
        nonlocal evaluations
        evaluations += 1
        call.x[...] = state / point.alpha if by_alpha else state
        output = call(float(point.time))[:, : sample_shape[0]]  # without the variance, if there is one
        if not np.isfinite(output).all():
            bad = tuple(np.flatnonzero(~np.isfinite(output).reshape(n, -1).all(axis=1)).tolist())
            raise NonFiniteError(f"the network returned NaN or Inf at time {point.time:g} for sample {bad[0]}.", row=0, samples=bad)
        return output.astype(np.float64)

    return integrate(grid, predict, call.x.astype(np.float64), rtol, atol), evaluations


def takes_by_alpha(input_scale: str | None, known: Model | None, grid: Grid) -> bool:
    """Return whether the network takes the state divided by alpha.

    Raises:
        ArgumentError: the scale is unknown, contradicts the model or is ambiguous; or alpha is 0 at the start.
    """
    given = trait("input_scale", input_scale, known, INPUT_SCALES)
    by_alpha = clear_input_scale(given, grid.prediction_type, scaled=grid.schedule.family == "edm") == "1/alpha"
    if by_alpha and grid.schedule.alpha(grid.schedule.t_max) == 0.0:
        raise ArgumentError(
            "input_scale is '1/alpha', but the schedule starts without any signal (alpha is 0), where x/alpha is infinite."
        )
    return by_alpha


def integrate(grid: Grid, predict: Predict, state: np.ndarray, rtol: float, atol: float) -> np.ndarray:
    """Carry the state from the first of the two points of the grid to the last, and from there to the data by a step of Euler's.

    Raises:
        NonFiniteError: the solver could not continue.
        MissingDependencyError: SciPy is not installed.
    """
    try:
        from scipy.integrate import solve_ivp
    except ImportError:
        raise MissingDependencyError(f"probability_flow needs SciPy: {install_hint('likelihood')}") from None
    first, last = grid.points

    def in_lam(lam: float, flat: np.ndarray) -> np.ndarray:
        point = grid.at(lam)
        x = flat.reshape(state.shape) * point.alpha
        p, q = grid.noise(point)
        return (-(point.sigma / point.alpha) * (p * x + q * predict(x, point))).ravel()

    def in_s(s: float, flat: np.ndarray) -> np.ndarray:
        point = first if s >= 1.0 else grid.at(math.log1p(-s) - math.log(s))
        x = flat.reshape(state.shape) * (point.alpha + point.sigma)
        (p, q), (p_0, q_0) = grid.noise(point), grid.data(point)
        return ((p - p_0) * x + (q - q_0) * predict(x, point)).ravel()

    change: Callable[[float, np.ndarray], np.ndarray]
    if first.alpha == 0.0:
        change, scales = in_s, [point.alpha + point.sigma for point in (first, last)]
        ends = 1.0, last.sigma / scales[1]
    else:
        change, scales = in_lam, [first.alpha, last.alpha]
        # Rounding must not ask for a λ beyond the ends of the schedule.
        ends = float(np.nextafter(first.lam, np.inf)), float(np.nextafter(last.lam, -np.inf))
    solved = solve_ivp(change, ends, (state / scales[0]).ravel(), "DOP853", rtol=rtol, atol=atol, t_eval=ends[1:])
    if not solved.success:
        raise NonFiniteError(f"the adaptive solver could not go on: {solved.message}", row=0, samples=())
    x = solved.y[:, -1].reshape(state.shape) * scales[1]
    p, q = grid.data(last)
    return CLEAN.alpha * (p * x + q * predict(x, last))


def _check_start(grid: Grid) -> None:
    """Refuse a start without signal where the ODE is singular."""
    if grid.prediction_type in ("epsilon", "score"):
        raise ArgumentError(
            f"the schedule starts with no signal at all, where a network that predicts {grid.prediction_type} says nothing of "
            f"the data, and the ODE is singular. Use a model that predicts v, the flow or the sample."
        )
    if grid.schedule.family == "discrete":
        raise ArgumentError(
            "the schedule's last timestep has no signal at all (zero terminal SNR), and between it and the one before the table "
            "says nothing of the path that an adaptive solver would follow; take many steps of dpmpp_2m for a reference."
        )
