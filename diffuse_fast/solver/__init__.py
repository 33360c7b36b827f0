"""Solvers: pure functions that write plans. One small file per solver; this page only finds them and checks arguments.

>>> import diffuse_fast as df
>>> plan = df.plan(df.Schedule.linear(), "ddim", 4, prediction_type="epsilon")
>>> plan.timesteps.tolist()
[999.0, 749.0, 499.0, 249.0]
"""

from __future__ import annotations

import dataclasses
import math
from itertools import pairwise
from typing import Any

import numpy as np

from .. import hints
from ..errors import ArgumentError, ArgumentTypeError, PlanError, suggest
from ..plans.plan import DynamicThreshold, Plan, Reduction, Row
from ..schedule import Schedule
from . import (
    consistency,
    ddim,
    ddim_inverse,
    ddpm,
    deis,
    dpm_2,
    dpmpp_2m,
    dpmpp_2m_sde,
    dpmpp_2s,
    dpmpp_3m,
    dpmpp_3m_sde,
    dpmpp_3s,
    dpmsolver_1s,
    dpmsolver_2m,
    dpmsolver_2s,
    dpmsolver_3m,
    dpmsolver_3s,
    dpmsolver_singlestep,
    ends,
    euler,
    euler_ancestral,
    euler_maruyama,
    flow_euler,
    flow_heun,
    heun,
    ipndm,
    langevin_pc,
    lcm,
    lms,
    pndm,
    spacing,
    tcd,
    unipc,
)
from .solver import ROUNDINGS, Option, Problem, Solver

WHOLE = (int, np.integer)
NUMBER = (int, float, np.integer, np.floating)

MODULES = (
    consistency, ddim, ddim_inverse, ddpm, deis, dpm_2, dpmpp_2m, dpmpp_2m_sde, dpmpp_2s, dpmpp_3m, dpmpp_3m_sde, dpmpp_3s,
    dpmsolver_1s, dpmsolver_2m, dpmsolver_2s, dpmsolver_3m, dpmsolver_3s, dpmsolver_singlestep, euler, euler_ancestral,
    euler_maruyama, flow_euler, flow_heun, heun, ipndm, langevin_pc, lcm, lms, pndm, tcd, unipc,
)  # fmt: skip
SOLVERS: dict[str, Solver] = {module.SOLVER.name: module.SOLVER for module in MODULES}


def solvers() -> dict[str, Solver]:
    """The solvers there are, by name: order, network evaluations per step, registers, stochastic or not, paper,
    options.

    Example:
        >>> import diffuse_fast as df
        >>> df.solvers()["ddim"].order, sorted(df.solvers()["ddpm"].options)
        (1, ['steps_offset', 'variance_type'])
    """
    return dict(SOLVERS)


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
    _guarded: bool = True,
    **solver_options: Any,
) -> Plan:
    """The table of a solver for a schedule: when to call the network, and what to do with each answer.

    Everything about the endpoints is resolved here; sampling only applies the rows.

    Args:
        schedule: The noise schedule of the model.
        solver: Name of the solver; :func:`solvers` lists them.
        steps: Number of steps, from 1; where the grid is made of integer timesteps at most as many as there are. May be left
            out where ``timesteps`` or ``sigmas`` says it.
        prediction_type: What the network predicts, one of ``schedule.prediction_types``.
        clip: Bounds ``(lo, hi)`` of the data prediction, or a :class:`~diffuse_fast.DynamicThreshold`; None and False do not
            clip.
        timestep_spacing: ``leading``, ``trailing``, ``linspace``, ``karras``, ``exponential``, ``beta``, ``beta_sigmas``,
            ``log_snr`` or ``power`` (``solver/spacing.py`` has the formulas); None is the schedule's default, or else the
            solver's. Sampling starts from pure noise, so a grid over integer timesteps has to start near the last of them: where
            the default would start below 0.9·num_train_timesteps, it is ``trailing`` instead, and where the spacing is named, it
            is an error.
        rho: Exponent of ``karras`` (default: EDM's own, or 7) and ``power`` (default 2).
        sigma_min, sigma_max: Ends of a spacing over noise levels; None are the schedule's.
        beta_shape: Shape parameters (a, b) of the Beta distribution of the spacing ``beta``, above 0 and at most 10 (default
            (0.6, 0.6)). Below 1 the times are dense at the clean end (a) and at the noisy end (b).
        timesteps: Instead of a spacing, the times themselves: falling, in the schedule's own unit, fractional allowed.
        sigmas: Or the noise levels (``schedule.noise_level``), falling. A last 0 is the data, where the plan then ends. Without
            it a list can mean two things, and ``end`` says which: ``"data"`` or ``"last"``. What is less than 0.1 % above the
            largest of a discrete schedule, or 1 % below its smallest, is taken for it, as published lists are rounded.
        begin: Start in the middle of the schedule: the first call is at this time, and the times of the grid above it are left
            out. The state there is alpha·data + sigma·noise, so sampling takes ``data=``, or that state as ``noise=``. As in
            diffusers' image-to-image pipelines ``steps`` counts the whole grid; ``plan.steps`` says how many are left.
        end: ``"data"``: the last step goes to the clean data, as it does by default with most solvers. A time: it goes there,
            the times of the grid below it are left out, and the result is alpha·x0 + sigma·ε at that time (in EDM's schedule
            x0 + σ·ε). ``"last"``: it goes to the last of ``sigmas``, where the network is not called.
        time_convention: What the network is told, one of ``schedule.time_conventions`` (``schedule.network_time``); None is
            the first.
        timestep_rounding: ``nearest`` or ``down`` where the network takes whole timesteps only, else ``none``. It changes
            what the network is told (as diffusers' multistep schedulers do for ``karras`` and ``exponential``), and no
            marginal; two steps may then be told the same.
        **solver_options: Options of the solver, under diffusers' names.

    Returns:
        An immutable :class:`~diffuse_fast.Plan`. Its ``options`` record every option, defaults included.

    Raises:
        ArgumentError: a value is unknown, out of range or contradicts another; the message names it.
        ArgumentTypeError: a value of the wrong type, or an option that the solver does not have.
        PlanError: solver, schedule and prediction type make no sense together.

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
    if not isinstance(schedule, Schedule):
        raise ArgumentTypeError(f"schedule is {schedule!r}; it must be a diffuse_fast.Schedule, such as Schedule.linear().")
    if not isinstance(solver, str) or solver not in SOLVERS:
        raise ArgumentError(f"solver {solver!r} is not known.{hints.of_solver(solver, SOLVERS)}{suggest(str(solver), SOLVERS)}")
    chosen = SOLVERS[solver]
    if schedule.family not in chosen.families:
        raise PlanError(
            f"the solver {solver} is for schedules of the families {', '.join(chosen.families)}; this one is {schedule.family}."
        )
    if prediction_type not in schedule.prediction_types:
        raise ArgumentError(
            f"prediction_type is {prediction_type!r}; a network of a schedule of the family {schedule.family} predicts one of "
            f"{', '.join(schedule.prediction_types)}.{hints.of_prediction(prediction_type)}"
        )
    if not isinstance(timestep_rounding, str) or timestep_rounding not in ROUNDINGS:
        raise ArgumentError(f"timestep_rounding is {timestep_rounding!r}; it must be one of {', '.join(ROUNDINGS)}.")
    ends.check(chosen, schedule, begin, end, sigmas, solver_options)
    clip = checked_clip(clip)
    lo, hi = _bounds(clip)
    options = _options(chosen, solver_options, schedule.family, clips=(lo, hi) != (-math.inf, math.inf))
    offset = options.get("steps_offset", 0)
    if timesteps is None and sigmas is None:
        of_spacing = {"rho": rho, "sigma_min": sigma_min, "sigma_max": sigma_max, "beta_shape": beta_shape}
        laid, times = _spaced(schedule, chosen, _steps(steps), timestep_spacing, {"steps_offset": offset, **of_spacing}, begin)
        options["timestep_spacing"] = laid.name
        options.update({name: value for name in of_spacing if (value := getattr(laid, name)) is not None})
    else:
        _alone(
            timesteps,
            sigmas,
            timestep_spacing,
            steps_offset=offset,
            rho=rho,
            sigma_min=sigma_min,
            sigma_max=sigma_max,
            beta_shape=beta_shape,
        )
        if sigmas is None:
            times = _custom(schedule, steps, timesteps)
        else:
            ends_itself = not chosen.from_noise or any(name in solver_options for name in ends.OPTIONS)
            times, end = _of_sigmas(schedule, steps, sigmas, end, ends_itself)
    times = ends.cut(times, begin, end)
    for name, value in (("begin", begin), ("end", end)):
        if value is not None:
            options[name] = value if isinstance(value, str) else float(value)
    options["time_convention"] = time_convention or schedule.time_conventions[0]
    options["timestep_rounding"] = timestep_rounding
    problem = Problem(
        schedule=schedule,
        points=(),
        prediction_type=prediction_type,
        lo=lo,
        hi=hi,
        time_convention=time_convention,
        timestep_rounding=timestep_rounding,
        guarded=_guarded,
    )
    problem = dataclasses.replace(problem, points=problem.at_times(times))
    _check_points(problem, times)
    problem = dataclasses.replace(problem, end=ends.point(problem, chosen, end, options))
    table = chosen.table(problem, **{name: options[name] for name in chosen.options})
    rows = table.rows
    if isinstance(clip, DynamicThreshold):
        rows = tuple(_thresholded(row, clip, solver) for row in rows)
        options.update(dynamic_thresholding_ratio=clip.ratio, sample_max_value=clip.maximum)
    made = Plan(
        solver=solver,
        steps=len(times),
        prediction_type=prediction_type,
        rows=rows,
        registers=table.registers,
        initial_scale=ends.initial_scale(problem, begin) if table.initial_scale is None else table.initial_scale,
        marginals=table.marginals,
        deviation=table.deviation,
        options=tuple(sorted(options.items())),
    )
    # The rows of EDM keep the state in the network's input scale, c_in·(x0 + σ·ε), which is not that of a result.
    in_scale = schedule.family != "edm" or problem.end.sigma == 0.0
    return made if in_scale else ends.scaled(made, 1.0 / problem.end.alpha)


def _spaced(
    schedule: Schedule, solver: Solver, steps: int, name: str | None, of_spacing: dict[str, Any], begin: float | None
) -> tuple[spacing.Spacing, np.ndarray]:
    """The named spacing, or the default one, and its times."""
    default = schedule.timestep_spacing or solver.timestep_spacing
    laid = spacing.checked(schedule, default if name is None else name, **of_spacing)
    times = spacing.grid(laid, schedule, steps, solver.grid)
    if begin is not None or not spacing.starts_in_the_middle(laid, schedule, times):
        return laid, times
    if name is None and not laid.steps_offset:
        laid = spacing.checked(schedule, "trailing", **of_spacing)
        return laid, spacing.grid(laid, schedule, steps, solver.grid)
    count = schedule.num_train_timesteps  # type: ignore[attr-defined]  # only a discrete schedule starts in the middle
    advice = "timestep_spacing='trailing'" + (", and leave steps_offset out" if laid.steps_offset else "")
    raise ArgumentError(
        f"with {laid.name} spacing and {steps} steps, sampling would start at timestep {times[0]:g} of {count}, in the middle of "
        f"the schedule, and from pure noise. Take {advice}; or begin={times[0]:g}, to start there from data plus noise."
    )


def _options(solver: Solver, given: dict[str, Any], family: str, *, clips: bool) -> dict[str, Any]:
    for name in given:
        if name not in solver.options:
            known = suggest(name, solver.options) if solver.options else " It has none."
            raise ArgumentTypeError(f"{solver.name} has no option {name!r}.{hints.of_keyword(name) or known}")
    values = {name: given.get(name, _default(option, family)) for name, option in solver.options.items()}
    return {
        name: clips if option.default is None and values[name] is None else _option(name, option, values[name])
        for name, option in solver.options.items()
    }


def _default(option: Option, family: str) -> Any:
    return option.default if family == "discrete" or option.elsewhere is None else option.elsewhere


def _option(name: str, option: Option, value: Any) -> bool | int | float | str | tuple[int, ...]:
    default = option.default
    if isinstance(default, tuple):
        if not isinstance(value, list | tuple | range | np.ndarray):
            raise ArgumentTypeError(f"{name} is {value!r}; it must be a list of whole numbers.")
        return tuple(sorted({int(_number(name, option, v, whole=True)) for v in value}))
    if option.kind is bool:
        if not isinstance(value, bool | np.bool_):
            allowed = "True, False or None" if default is None else "True or False"
            raise ArgumentTypeError(f"{name} is {value!r}; it must be {allowed}.")
        return bool(value)
    if isinstance(default, str):
        if value not in option.choices:
            raise ArgumentError(f"{name} is {value!r}; it must be one of {', '.join(option.choices)}.")
        return value
    whole = isinstance(default, int)
    number = _number(name, option, value, whole=whole)
    return int(number) if whole else float(number)


def _number(name: str, option: Option, value: Any, *, whole: bool) -> Any:
    if isinstance(value, bool) or not isinstance(value, WHOLE if whole else NUMBER):
        raise ArgumentTypeError(f"{name} is {value!r}; it must be a {'whole ' if whole else ''}number.")
    if not math.isfinite(value) or (option.minimum is not None and value < option.minimum):
        raise ArgumentError(f"{name} is {value!r}; it must be finite, and at least {option.minimum}.")
    if option.maximum is not None and value > option.maximum:
        raise ArgumentError(f"{name} is {value!r}; it must be at most {option.maximum}.")
    return value


def checked_clip(clip: Any) -> tuple[float, float] | DynamicThreshold | None:
    """``clip`` as :func:`plan` and :func:`diffuse_fast.sample` take it; False is None.

    Raises:
        ArgumentError: the bounds are not in order.
        ArgumentTypeError: neither None, False, a pair of numbers nor a dynamic threshold.
    """
    if clip is None or clip is False or isinstance(clip, DynamicThreshold):
        return clip or None
    try:
        lo, hi = (float(bound) for bound in clip)
    except (TypeError, ValueError):
        raise ArgumentTypeError(
            f"clip is {clip!r}; it must be a pair (lo, hi) of numbers, a df.DynamicThreshold, or False for no clip."
        ) from None
    if not lo < hi:
        raise ArgumentError(f"clip is {clip!r}; its lower bound must be below its upper bound.")
    return lo, hi


def _bounds(clip: tuple[float, float] | DynamicThreshold | None) -> tuple[float, float]:
    if clip is None:
        return -math.inf, math.inf
    # A threshold's stand in the place of the bounds that each sample will have.
    return (-1.0, 1.0) if isinstance(clip, DynamicThreshold) else clip


def _thresholded(row: Row, threshold: DynamicThreshold, solver: str) -> Row:
    """The row with bounds from the sample, where it has bounds."""
    if not row.clips:
        return row
    if row.reduce is not None:
        raise PlanError(f"dynamic thresholding and {solver} both need the one reduction of a row; clip statically, or not.")
    return dataclasses.replace(row, reduce=Reduction("dynamic_threshold", (float(threshold.ratio), float(threshold.maximum))))


def _steps(steps: Any) -> int:
    if steps is None:
        raise ArgumentError("neither steps nor timesteps nor sigmas is given; say one of them.")
    if isinstance(steps, bool) or not isinstance(steps, WHOLE):
        raise ArgumentTypeError(f"steps is {steps!r}; it must be a whole number.")
    return int(steps)


def _alone(timesteps: Any, sigmas: Any, timestep_spacing: Any, *, steps_offset: int, **of_spacing: Any) -> None:
    """Whether a custom grid is the only one."""
    given = [n for n, v in (("timesteps", timesteps), ("sigmas", sigmas), ("timestep_spacing", timestep_spacing)) if v is not None]
    if len(given) > 1:
        raise ArgumentError(f"{' and '.join(given)} all say where the network is called; give one of them.")
    if steps_offset != 0:
        raise ArgumentError(f"steps_offset shifts a leading spacing; with {given[0]}, shift them yourself.")
    for name, value in of_spacing.items():
        if value is not None:
            raise ArgumentError(f"{name} is an option of a spacing; leave it out with {given[0]}.")


def _custom(schedule: Schedule, steps: Any, timesteps: Any) -> np.ndarray:
    times = _falling("timesteps", timesteps)
    _same_count(steps, "timesteps", times)
    # Named here and not left to the schedule: this is the argument that is wrong.
    try:
        schedule.log_alpha(times)
    except ArgumentError as error:
        raise ArgumentError(f"timesteps are from {float(times[-1])!r} to {float(times[0])!r}: {error}") from None
    return times


def _of_sigmas(
    schedule: Schedule, steps: Any, sigmas: Any, end: float | str | None, ends_itself: bool
) -> tuple[np.ndarray, float | str | None]:
    """The times of a list of noise levels, and where the plan ends. ``ends_itself``: the solver knows."""
    levels = _falling("sigmas", sigmas)
    if levels[-1] == 0.0:
        if end not in (None, *ends.WORDS):
            raise ArgumentError(f"sigmas ends in 0, which is the data, and end is {end!r}; leave one of them out.")
        levels, end = levels[:-1], end if ends_itself else "data"
    elif end is None and not ends_itself:
        raise ArgumentError(
            f"sigmas ends in {float(levels[-1])!r}, which can mean two things. Give end='data' to call the network there and go "
            f"on to the clean data, or end='last' to stop there; a last 0 says end='data' too."
        )
    if levels.size == 0:
        raise ArgumentError(f"sigmas is {sigmas!r}; it must have a noise level above 0.")
    if schedule.family == "discrete" and math.isfinite(high := schedule.noise_level(schedule.t_max)):
        # Published lists are rounded, to 14.615 and 0.029 for 14.6146 and 0.02917: their ends are the schedule's.
        low = schedule.noise_level(schedule.t_min)
        levels[0] = high if high < levels[0] < 1.001 * high else levels[0]
        levels[-1] = low if 0.99 * low < levels[-1] < low else levels[-1]
    try:
        times = schedule.timestep_at_noise_level(levels)
    except ArgumentError as error:
        raise ArgumentError(f"sigmas are from {float(levels[-1])!r} to {float(levels[0])!r}: {error}") from None
    if end == "last":
        if times.size == 1:
            raise ArgumentError(f"sigmas is {sigmas!r} and end is 'last'; there must be a noise level to start from before it.")
        times, end = times[:-1], float(times[-1])
    _same_count(steps, "sigmas", times)
    return times, end


def _falling(name: str, values: Any) -> np.ndarray:
    try:
        array = np.asarray(values)
        if array.dtype.kind not in "iuf":
            raise TypeError
        array = array.astype(np.float64)
    except (TypeError, ValueError):
        raise ArgumentTypeError(f"{name} is {values!r}; it must be a sequence of numbers.") from None
    if array.ndim != 1 or array.size == 0:
        raise ArgumentError(f"{name} has shape {array.shape}; it must be a sequence of at least one number.")
    for before, after in pairwise(array):
        if not after < before:
            raise ArgumentError(f"{name} must fall; {float(after)!r} comes after {float(before)!r}.")
    return array


def _same_count(steps: Any, name: str, values: np.ndarray) -> None:
    if steps is not None and _steps(steps) != values.size:
        raise ArgumentError(f"steps is {steps}, but {name} has {values.size}; leave one of them out.")


def _check_points(problem: Problem, times: np.ndarray) -> None:
    first, last = problem.points[0], problem.points[-1]
    if first.alpha == 0.0 and problem.prediction_type in ("epsilon", "score"):
        raise PlanError(
            f"at the first time ({times[0]:g}) the schedule has zero signal-to-noise ratio: a network that predicts "
            f"{problem.prediction_type} says nothing of the data there. Use a model that predicts v, the flow or the sample, "
            f"another schedule, or a grid that starts below."
        )
    if last.sigma == 0.0:
        raise ArgumentError(f"at time {times[-1]:g} no noise is left, so there is nothing to ask the network; leave it out.")
    if not all(math.isfinite(point.time) for point in problem.points):
        raise ArgumentError(
            f"at time {times[0]:g} there is no signal, and the network would be told {first.time}; take another time_convention or "
            f"a grid that starts below."
        )
    for i, (now, then) in enumerate(pairwise(problem.points)):
        if not then.lam > now.lam:
            raise ArgumentError(
                f"times {float(times[i])!r} and {float(times[i + 1])!r} have the same log-SNR; take them farther apart."
            )
