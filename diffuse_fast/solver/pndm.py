"""PNDM: Liu et al. 2022, "Pseudo Numerical Methods for Diffusion Models on Manifolds" (arXiv:2202.09778).

The transfer is DDIM's (eq. 11), ``φ(x, ε, t, t')``; what is put in for ε is a combination of noise predictions. From the fourth
step on it is the linear multistep one (F-PNDM, eq. 12, section 3.3)::

    ε̂ = (55·ε_t − 59·ε_{t−1} + 37·ε_{t−2} − 9·ε_{t−3})/24

Two ways to start:

* ``skip_prk_steps=True`` (PLMS, as latent diffusion samples): the first step is taken twice, by Euler and then by the mean of the
  predictions at both its ends; the next two use two and three predictions. One evaluation more than steps.
* ``skip_prk_steps=False``: the first three steps by the pseudo Runge-Kutta method (eq. 13), four evaluations each.

Either way a step of the start that is too long (``leaps.py``) is DDIM's, of one evaluation.

diffusers' PNDMScheduler. Where its grid is not even it takes the next timestep to be ``T // steps`` lower all the same; here it
is the next of the grid.
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
BASE, SUM = 3, 4  # registers of the Runge-Kutta start, behind the three of the predictions
WHOLE = 1e-6  # a timestep found by its log-SNR is that close to the one meant


def table(grid: Grid, *, skip_prk_steps: bool, set_alpha_to_one: bool, steps_offset: int) -> SolverTable:
    points = (*grid.points, grid.end)
    return _plms(grid, points) if skip_prk_steps else _runge_kutta(grid, points)


def _plms(grid: Grid, points: tuple[Point, ...]) -> SolverTable:
    guard = leaps.Guard(grid)
    first = multistep.by_noise(points[0], points[1], ())
    rows = [multistep.row(grid, points[0], first, "noise", c=(), write=0 if len(points) > 2 else None)]
    states = [points[0], points[1]]
    if len(points) > 2:
        # The first step again with the mean of both predictions: what that adds to the state.
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
    """Step i by up to three predictions besides the new one, which is kept."""
    now, then = points[i], points[i + 1]
    step = partial(adams_bashforth, multistep.by_noise(now, then, ()))
    transfer = step(multistep.highest(grid, guard, points, i, min(i + 1, 4), "noise", step))
    c = [0.0] * 3
    for j, weight in enumerate(transfer.weights[1:], start=1):
        c[(i - j) % 3] = weight
    return multistep.row(grid, now, transfer, "noise", c=tuple(c), write=i % 3)


def _runge_kutta(grid: Grid, points: tuple[Point, ...]) -> SolverTable:
    steps = len(points) - 1
    if steps <= RUNGE_KUTTA_STEPS:
        raise PlanError(
            f"the Runge-Kutta start takes {RUNGE_KUTTA_STEPS} steps and needs one after it, and there are {steps}; take more, or "
            f"skip_prk_steps=True."
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
    """The point halfway in the schedule's own time (what the network is told may be another). Of a discrete schedule it is at a
    whole timestep where the two are, as diffusers rounds it.

    Raises:
        PlanError: it would be the one that the step starts from, which tells nothing new.
    """
    begin, end = (float(grid.schedule.timestep_at_log_snr(2.0 * point.lam)) for point in (now, then))
    half = 0.5 * (begin - end)
    if grid.schedule.family == "discrete" and all(abs(t - round(t)) < WHOLE for t in (begin, end)):
        begin, half = round(begin), (round(begin) - round(end)) // 2
    if half == 0:
        raise PlanError(
            f"the Runge-Kutta start calls the network halfway between timesteps, and there is no whole one between {begin:g} and "
            f"{end:g}; take fewer steps, or skip_prk_steps=True."
        )
    return grid.at_times(np.array([begin - half]))[0]


def _runge_kutta_step(grid: Grid, now: Point, middle: Point, then: Point, write: int) -> list[Row]:
    """Four evaluations. A row can keep one value, so what is not kept is recovered: the base state from the first stage, and the
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
        # The weights of what is kept, by the same conversion of the noise prediction.
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
    order=2,  # in the log-SNR; its weights are of higher order where ε has no exponential beside it
    nfe_per_step=1,
    registers=5,
    stochastic=False,
    paper="Liu et al. 2022, Pseudo Numerical Methods for Diffusion Models on Manifolds, arXiv:2202.09778",
    timestep_spacing="leading",
    options={
        "skip_prk_steps": Option(False, "start by steps of lower order (PLMS) and not by Runge-Kutta"),
        "set_alpha_to_one": Option(False, "end at the clean data; otherwise at timestep 0", elsewhere=True),
        "steps_offset": multistep.STEPS_OFFSET,
    },
    table=table,
)
