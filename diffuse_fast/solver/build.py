"""Make plans: check the arguments, choose the times, and call the solver."""

from __future__ import annotations

import dataclasses
import math
from itertools import pairwise
from typing import Any

import numpy as np

from .. import hints
from ..errors import ArgumentError, ArgumentTypeError, PlanError, suggest
from ..plans.clip import Clip, DynamicThreshold, clip_bounds, resolve_clip, with_threshold
from ..plans.plan import Plan
from ..plans.transforms import with_scaled_result
from ..schedule import Schedule
from . import ends
from .options import require_steps, resolve_options
from .registry import SOLVERS
from .solver import ROUNDINGS, Grid, Solver
from .times import from_sigmas, from_spacing, from_timesteps, reject_spacing_options


def plan(
    schedule: Schedule,
    solver: str,
    steps: int | None = None,
    *,
    prediction_type: str,
    clip: tuple[float, float] | DynamicThreshold | bool | None = None,
    timestep_spacing: str | None = None,
    rho: float | None = None,
    sigma_min: float | None = None,
    sigma_max: float | None = None,
    beta_shape: tuple[float, float] | None = None,
    timesteps: Any = None,
    sigmas: Any = None,
    begin: float | None = None,
    end: float | str | None = None,
    time_convention: str | None = None,
    timestep_rounding: str = "none",
    **solver_options: Any,
) -> Plan:
    """Make the plan of a solver for a schedule: when to call the network, and how to combine its outputs.

    Args:
        schedule: The noise schedule of the model.
        solver: Name of the solver; :func:`solvers` lists them.
        steps: Number of steps, at least 1; on a grid of integer timesteps at most their number. May be left out with ``timesteps``
            or ``sigmas``.
        prediction_type: What the network predicts, one of ``schedule.prediction_types``.
        clip: Bounds ``(lo, hi)`` of the data prediction, or a :class:`~diffuse_fast.DynamicThreshold`; None and False do not
            clip.
        timestep_spacing: ``leading``, ``trailing``, ``linspace``, ``karras``, ``exponential``, ``beta``, ``beta_sigmas``,
            ``log_snr`` or ``power`` (``solver/spacing.py`` has the formulas). None is the schedule's default, or the solver's if
            the schedule has none. Sampling starts from pure noise, so a grid over integer timesteps must start near the last one:
            a default that would start below 0.9·num_train_timesteps is replaced by ``trailing``; a named one is an error.
        rho: Exponent of ``karras`` (default: EDM's own, or 7) and ``power`` (default 2).
        sigma_min, sigma_max: Ends of a spacing over noise levels; None means the schedule's.
        beta_shape: Shape parameters (a, b) of the Beta distribution of the spacing ``beta``, above 0 and at most 10 (default
            (0.6, 0.6)). Below 1 the times are dense at the clean end (a) and at the noisy end (b).
        timesteps: The times themselves, instead of a spacing: decreasing, in the schedule's unit, fractional allowed.
        sigmas: The noise levels (``schedule.noise_level``), instead of a spacing, decreasing. A last 0 is the data, where the plan
            then ends. A list without it is ambiguous, and ``end`` must be ``"data"`` or ``"last"``. Published lists are rounded, so
            a first level at most 0.1 % above the largest of a discrete schedule and a last one at most 1 % below its smallest are
            clamped to it.
        begin: Start in the middle of the schedule: the first call is at this time, and earlier times of the grid are dropped.
            The state there is alpha·data + sigma·noise, so sampling takes ``data=``, or that state as ``noise=``. As in diffusers'
            image-to-image pipelines, ``steps`` counts the full grid; ``plan.steps`` is the number of remaining steps.
        end: Where the last step goes. ``"data"``: the clean data, the default of most solvers. A time: later times of the grid are
            dropped, and the result is alpha·x0 + sigma·ε at that time (x0 + σ·ε in EDM's schedule). ``"last"``: the last of
            ``sigmas``, where the network is not called.
        time_convention: The form in which the network takes the time, one of ``schedule.time_conventions``
            (``schedule.network_time``); None is the first.
        timestep_rounding: ``nearest`` or ``down`` for a network that takes integer timesteps only, else ``none``. It changes the
            times given to the network (as diffusers' multistep schedulers do for ``karras`` and ``exponential``) but no marginal;
            two steps may get the same time.
        **solver_options: Options of the solver, under diffusers' names.

    Returns:
        An immutable :class:`~diffuse_fast.Plan`. Its ``options`` contain every option, defaults included.

    Raises:
        ArgumentError: a value is unknown, out of range or contradicts another; the message names it.
        ArgumentTypeError: a value of the wrong type, or an option that the solver does not have.
        PlanError: solver, schedule and prediction type cannot be combined.

    Example:
        >>> import diffuse_fast as df
        >>> plan = df.plan(df.Schedule.cosine(), "ddpm", 10, prediction_type="v_prediction", clip=(-1, 1),
        ...                timestep_spacing="trailing", variance_type="fixed_large")
        >>> plan.nfe, plan.stochastic, plan.exact_marginal
        (10, True, False)
        >>> df.plan(df.Schedule.edm(), "ddim", 3, prediction_type="edm", time_convention="sigma").timesteps.round(3).tolist()
        [80.0, 2.515, 0.002]
        >>> plan = df.plan(df.Schedule.linear(), "ddim", 10, prediction_type="epsilon", begin=600, end=200)
        >>> plan.timesteps.tolist(), plan.steps
        ([600.0, 500.0, 400.0, 300.0], 4)
    """
    return build_plan(
        schedule,
        solver,
        steps,
        prediction_type=prediction_type,
        clip=clip,
        timestep_spacing=timestep_spacing,
        spacing_options={"rho": rho, "sigma_min": sigma_min, "sigma_max": sigma_max, "beta_shape": beta_shape},
        timesteps=timesteps,
        sigmas=sigmas,
        begin=begin,
        end=end,
        time_convention=time_convention,
        timestep_rounding=timestep_rounding,
        solver_options=solver_options,
    )


def build_plan(
    schedule: Schedule,
    solver: str,
    steps: int | None = None,
    *,
    prediction_type: str,
    clip: Any = None,
    timestep_spacing: str | None = None,
    spacing_options: dict[str, Any] | None = None,
    timesteps: Any = None,
    sigmas: Any = None,
    begin: float | None = None,
    end: float | str | None = None,
    time_convention: str | None = None,
    timestep_rounding: str = "none",
    solver_options: dict[str, Any],
    guarded: bool = True,
) -> Plan:
    """:func:`plan`, where ``guarded=False`` keeps the order of steps that are too long for it (``leaps.py``), as the papers do."""
    _check_schedule(schedule)
    chosen = _find(solver)
    _check_families(chosen, schedule, prediction_type)
    if not isinstance(timestep_rounding, str) or timestep_rounding not in ROUNDINGS:
        raise ArgumentError(f"timestep_rounding is {timestep_rounding!r}; it must be one of {', '.join(ROUNDINGS)}.")
    ends.check(chosen, schedule, begin, end, sigmas, solver_options)
    clip = resolve_clip(clip)
    options = resolve_options(chosen, solver_options, schedule.family, clips=_clips(clip))
    spacing_options = {"steps_offset": options.get("steps_offset", 0), **(spacing_options or {})}
    if timesteps is None and sigmas is None:
        spacing, times = from_spacing(schedule, chosen, require_steps(steps), timestep_spacing, spacing_options, begin)
        options["timestep_spacing"] = spacing.name
        for name in ("rho", "sigma_min", "sigma_max", "beta_shape"):
            if (value := getattr(spacing, name)) is not None:
                options[name] = value
    else:
        reject_spacing_options(timesteps, sigmas, timestep_spacing, **spacing_options)
        if sigmas is None:
            times = from_timesteps(schedule, steps, timesteps)
        else:
            ends_itself = not chosen.from_noise or any(name in solver_options for name in ends.OPTIONS)
            times, end = from_sigmas(schedule, steps, sigmas, end, ends_itself)
    times = ends.cut(times, begin, end)
    for name, value in (("begin", begin), ("end", end)):
        if value is not None:
            options[name] = value if isinstance(value, str) else float(value)
    options["time_convention"] = time_convention or schedule.time_conventions[0]
    options["timestep_rounding"] = timestep_rounding
    lo, hi = clip_bounds(clip)
    grid = Grid(
        schedule=schedule,
        points=(),
        prediction_type=prediction_type,
        lo=lo,
        hi=hi,
        time_convention=time_convention,
        timestep_rounding=timestep_rounding,
        guarded=guarded,
    )
    grid = dataclasses.replace(grid, points=grid.at_times(times))
    _check_points(grid, times)
    grid = dataclasses.replace(grid, end=ends.point(grid, chosen, end, options))
    table = chosen.table(grid, **{name: options[name] for name in chosen.options})
    rows = table.rows
    if isinstance(clip, DynamicThreshold):
        rows = tuple(with_threshold(row, clip, solver) for row in rows)
        options.update(dynamic_thresholding_ratio=clip.ratio, sample_max_value=clip.maximum)
    made = Plan(
        solver=solver,
        steps=len(times),
        prediction_type=prediction_type,
        rows=rows,
        registers=table.registers,
        initial_scale=ends.initial_scale(grid, begin) if table.initial_scale is None else table.initial_scale,
        marginals=table.marginals,
        deviation=table.deviation,
        options=tuple(sorted(options.items())),
    )
    # The rows of EDM keep the state on the network's input scale, c_in·(x0 + σ·ε); a result with noise is x0 + σ·ε.
    if schedule.family == "edm" and grid.end.sigma != 0.0:
        return with_scaled_result(made, 1.0 / grid.end.alpha)
    return made


def _check_schedule(schedule: Any) -> None:
    if not isinstance(schedule, Schedule):
        raise ArgumentTypeError(f"schedule is {schedule!r}; it must be a diffuse_fast.Schedule, such as Schedule.linear().")


def _find(solver: Any) -> Solver:
    if not isinstance(solver, str) or solver not in SOLVERS:
        raise ArgumentError(f"unknown solver {solver!r}.{hints.of_solver(solver, SOLVERS)}{suggest(str(solver), SOLVERS)}")
    return SOLVERS[solver]


def _check_families(solver: Solver, schedule: Schedule, prediction_type: Any) -> None:
    if schedule.family not in solver.families:
        raise PlanError(
            f"the solver {solver.name} is for schedules of the families {', '.join(solver.families)}; this one is "
            f"{schedule.family}."
        )
    if prediction_type not in schedule.prediction_types:
        raise ArgumentError(
            f"prediction_type is {prediction_type!r}; with a schedule of the family {schedule.family} it must be one of "
            f"{', '.join(schedule.prediction_types)}.{hints.of_prediction(prediction_type)}"
        )


def _clips(clip: Clip | None) -> bool:
    return clip_bounds(clip) != (-math.inf, math.inf)


def _check_points(grid: Grid, times: np.ndarray) -> None:
    first, last = grid.points[0], grid.points[-1]
    if first.alpha == 0.0 and grid.prediction_type in ("epsilon", "score"):
        raise PlanError(
            f"at the first time ({times[0]:g}) the schedule has zero signal-to-noise ratio, where a network that predicts "
            f"{grid.prediction_type} carries no information about the data. Use a model that predicts v, the flow or the sample, "
            f"another schedule, or a grid that starts later."
        )
    if last.sigma == 0.0:
        raise ArgumentError(f"at time {times[-1]:g} there is no noise left to predict; leave it out.")
    if not all(math.isfinite(point.time) for point in grid.points):
        raise ArgumentError(
            f"at time {times[0]:g} there is no signal, and the network would be called with time {first.time}; use another "
            f"time_convention, or a grid that starts later."
        )
    for i, (now, then) in enumerate(pairwise(grid.points)):
        if not then.lam > now.lam:
            raise ArgumentError(
                f"times {float(times[i])!r} and {float(times[i + 1])!r} have the same log-SNR; choose times farther apart."
            )
