"""PNDM: Liu et al. 2022, "Pseudo Numerical Methods for Diffusion Models on Manifolds" (arXiv:2202.09778).

Every step is DDIM's (eq. 11), ``φ(x, ε, t, t')``, with a combination of noise predictions in place of ε. From the fourth step on it
is the linear multistep combination (F-PNDM, eq. 12, section 3.3)::

    ε̂ = (55·ε_t − 59·ε_{t−1} + 37·ε_{t−2} − 9·ε_{t−3})/24

There are two ways to start:

* ``skip_prk_steps=True`` (PLMS, as in latent diffusion): the first step is taken twice, by Euler and then with the mean of the
  predictions at both its ends; the next two steps use two and three predictions. One evaluation more than steps.
* ``skip_prk_steps=False``: the first three steps by the pseudo Runge-Kutta method (eq. 13), four evaluations each.

A step of the start that is too long (``leaps.py``) is DDIM's, with one evaluation.

diffusers' PNDMScheduler always assumes that the next timestep is ``T // steps`` lower, also on a nonuniform grid; here it is the
next of the grid.
"""

from __future__ import annotations

import dataclasses
from functools import partial

import numpy as np

from ..errors import PlanError
from ..plans.plan import Row
from . import leaps, multistep
from .ipndm import adams_bashforth
from .multistep import Transfer
from .solver import Grid, Option, Point, Solver, SolverTable

RUNGE_KUTTA_STEPS = 3
BASE, SUM = 3, 4  # registers of the Runge-Kutta start, after the three for the predictions
INTEGER_TOLERANCE = 1e-6  # error of a timestep that was computed from its log-SNR


def table(grid: Grid, *, skip_prk_steps: bool, set_alpha_to_one: bool, steps_offset: int) -> SolverTable:
    points = (*grid.points, grid.end)
    return _plms(grid, points) if skip_prk_steps else _runge_kutta(grid, points)


def _plms(grid: Grid, points: tuple[Point, ...]) -> SolverTable:
    guard = leaps.Guard(grid)
    first = multistep.by_noise(points[0], points[1], ())
    rows = [multistep.row(grid, points[0], first, "noise", c=(), write=0 if len(points) > 2 else None)]
    states = [points[0], points[1]]
    if len(points) > 2:
        # The first step again with the mean of both predictions, as a correction of the state.
        half = 0.5 * first.weights[0]
        again = multistep.row(grid, points[1], Transfer(1.0, [half]), "noise", c=(-half,), write=None)
        if not guard.stages_too_long(points[1], [rows[0], again], points[:2]):
            rows.append(again)
            states.append(points[1])
    for i in range(1, len(points) - 1):
        rows.append(_multistep(grid, guard, points, i))
        states.append(points[i + 1])
    return SolverTable(rows=tuple(rows), marginals=tuple((p.alpha, p.sigma) for p in states), registers=3 if len(points) > 2 else 0)


def _multistep(grid: Grid, guard: leaps.Guard, points: tuple[Point, ...], i: int) -> Row:
    """Step i with the new prediction, which is kept, and up to three earlier ones."""
    now, then = points[i], points[i + 1]
    step = partial(adams_bashforth, multistep.by_noise(now, then, ()))
    exact = multistep.exact_past(grid, points, i, "noise")
    transfer = step(multistep.highest(guard, now, then, min(i + 1, 4), step, exact))
    c = [0.0] * 3
    for j, weight in enumerate(transfer.weights[1:], start=1):
        c[(i - j) % 3] = weight
    return multistep.row(grid, now, transfer, "noise", c=tuple(c), write=i % 3)


def _runge_kutta(grid: Grid, points: tuple[Point, ...]) -> SolverTable:
    steps = len(points) - 1
    if steps <= RUNGE_KUTTA_STEPS:
        raise PlanError(
            f"the Runge-Kutta start takes {RUNGE_KUTTA_STEPS} steps and needs one after it, but there are {steps}; use more steps, "
            f"or skip_prk_steps=True."
        )
    guard = leaps.Guard(grid)
    rows: list[Row] = []
    states = [points[0]]
    for i in range(RUNGE_KUTTA_STEPS):
        now, then = points[i], points[i + 1]
        middle = _middle(grid, now, then)
        staged = _runge_kutta_step(grid, now, middle, then, write=i)
        called: tuple[Point, ...] = (now, middle, middle, then)
        if guard.stages_too_long(then, staged, called):
            staged = [multistep.row(grid, now, multistep.by_noise(now, then, ()), "noise", c=(), write=i)]
            called = (now,)
        rows += staged
        states += [*called[1:], then]
    for i in range(RUNGE_KUTTA_STEPS, steps):
        rows.append(_multistep(grid, guard, points, i))
        states.append(points[i + 1])
    registers = 1 + max(row.write for row in rows if row.write is not None)
    return SolverTable(rows=tuple(rows), marginals=tuple((p.alpha, p.sigma) for p in states), registers=registers)


def _middle(grid: Grid, now: Point, then: Point) -> Point:
    """The point halfway in the schedule's time. Between two integer timesteps it is an integer timestep too, rounded as in
    diffusers.

    Raises:
        PlanError: it would be the start of the step.
    """
    begin, end = (float(grid.schedule.timestep_at_log_snr(2.0 * point.lam)) for point in (now, then))
    half = 0.5 * (begin - end)
    if grid.schedule.family == "discrete" and all(abs(t - round(t)) < INTEGER_TOLERANCE for t in (begin, end)):
        begin, half = round(begin), (round(begin) - round(end)) // 2
    if half == 0:
        raise PlanError(
            f"the Runge-Kutta start calls the network halfway between timesteps, but there is no integer between {begin:g} and "
            f"{end:g}; use fewer steps, or skip_prk_steps=True."
        )
    return grid.at_times(np.array([begin - half]))[0]


def _runge_kutta_step(grid: Grid, now: Point, middle: Point, then: Point, write: int) -> list[Row]:
    """Four evaluations. A row can keep one value, so other values are recovered: the base state from the first stage, and the
    second prediction from the state it led to."""
    (ax, (ae,)), (bx, (be,)) = ((t.x, t.weights) for t in (multistep.by_noise(now, p, ()) for p in (middle, then)))

    def build(
        point: Point,
        x: float,
        eps: float,
        registers: dict[int, float],
        target: int | None,
        kept: tuple[float, float],
        keeps: dict[int, float],
    ) -> Row:
        row = multistep.row(grid, point, Transfer(x, [eps]), "noise", c=_at(registers), write=None)
        if target is None:
            return row
        # The weights of the kept value, with the same conversion of the noise prediction.
        other = multistep.row(grid, point, Transfer(kept[0], [kept[1]]), "noise", c=(), write=None)
        return dataclasses.replace(row, write=target, e_x=other.a, e_m=other.b, e_0=other.d, f=_at(keeps))

    return [
        # x₁ = A·x + a·ε₁; ε₁ kept
        build(now, ax, ae, {}, write, (0.0, 1.0), {}),
        # x₂ = A·x + a·ε₂ with A·x = x₁ − a·ε₁; x kept
        build(middle, 1.0, ae, {write: -ae}, BASE, (1.0 / ax, 0.0), {write: -ae / ax}),
        # x₃ = B·x + b·ε₃; ε₂ + ε₃ kept, with ε₂ = (x₂ − A·x)/a
        build(middle, 0.0, be, {BASE: bx}, SUM, (1.0 / ae, 1.0), {BASE: -ax / ae}),
        # x' = B·x + b·(ε₁ + 2·(ε₂ + ε₃) + ε₄)/6
        build(then, 0.0, be / 6, {BASE: bx, write: be / 6, SUM: be / 3}, None, (0.0, 0.0), {}),
    ]


def _at(weights: dict[int, float]) -> tuple[float, ...]:
    return tuple(weights.get(k, 0.0) for k in range(max(weights) + 1)) if weights else ()


SOLVER = Solver(
    name="pndm",
    order=2,  # in the log-SNR; the weights are of higher order for integrals of ε without an exponential factor
    nfe_per_step=1,
    registers=5,
    stochastic=False,
    paper="Liu et al. 2022, Pseudo Numerical Methods for Diffusion Models on Manifolds, arXiv:2202.09778",
    timestep_spacing="leading",
    options={
        "skip_prk_steps": Option(False, "start with steps of lower order (PLMS) instead of Runge-Kutta"),
        "set_alpha_to_one": Option(False, "end at the clean data, not at timestep 0", elsewhere=True),
        "steps_offset": multistep.STEPS_OFFSET,
    },
    table=table,
)
