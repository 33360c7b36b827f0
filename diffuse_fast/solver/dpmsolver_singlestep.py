"""Singlestep DPM-Solvers whose stages are the points of the grid: diffusers' DPMSolverSinglestepScheduler. The methods are those of
Lu et al. 2022, "DPM-Solver" (arXiv:2206.00927), Algorithms 1 and 2, and "DPM-Solver++" (arXiv:2211.01095), Algorithm 1, with r
determined by the grid; a step is one network call.

The steps come in runs of orders 1, 2, .. ``solver_order``. All steps of a run start from the state at its base: the second step
discards the state that the first has reached. With h = λ' − λ from the base, the integrals I_k of ``multistep.py`` over h (over 2h
for ``sde-dpmsolver++``), and r_1 < r_2 the distances from the base to the next points divided by h, a step of order

    1   integrates the prediction at the base;
    2   the line through the predictions at the base and r_1 (``heun``), or I_0/2 times its slope (``midpoint``);
    3   the parabola through all three (``heun``), or the line through the first and the last (``midpoint``).

In the third order with noise the parabola's term has the sign of the formula, not that of diffusers. The step to the clean data, a
step of zero width, and a step whose base has no signal are of first order.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from ..plans.plan import Row
from . import leaps, multistep
from .multistep import Transfer
from .solver import Grid, Option, Point, Solver, SolverTable
from .stages import data_row, noise_row


def table(
    grid: Grid,
    *,
    algorithm_type: str,
    solver_order: int,
    solver_type: str,
    lower_order_final: bool,
    final_sigmas_type: str,
    steps_offset: int,
) -> SolverTable:
    points = (*grid.points, grid.end)
    orders = _orders(points, solver_order, lower_order_final=lower_order_final or grid.end.sigma == 0.0)
    guard = leaps.Guard(grid)
    rows: list[Row] = []
    marginals: list[tuple[float, float]] = []
    for base, order in enumerate(orders):
        if order > 1:
            continue
        length = next((i for i, k in enumerate(orders[base + 1 :], 1) if k == 1), len(orders) - base)
        run = points[base : base + length + 1]
        # A run that is too long is replaced by steps of first order.
        for part in pairwise(run) if _too_long(grid, guard, run, algorithm_type, solver_type) else [run]:
            made = _run(grid, part, algorithm_type, solver_type)
            rows += made
            marginals += [(part[0].alpha, part[0].sigma)] * (len(made) - len(part) + 1)
            marginals += [(point.alpha, point.sigma) for point in part[:-1]]
    marginals.append((points[-1].alpha, points[-1].sigma))
    return SolverTable(
        rows=tuple(rows),
        marginals=tuple(marginals),
        registers=max((row.write + 1 for row in rows if row.write is not None), default=0),
    )


def _orders(points: Sequence[Point], order: int, *, lower_order_final: bool) -> list[int]:
    """1, 2, .. order, 1, 2, .. order, with the end as in diffusers: if the order divides the number of steps, ``lower_order_final``
    makes the last step first order."""
    steps = len(points) - 1
    listed = [i % order + 1 for i in range(steps)]
    if lower_order_final and steps % order == 0:
        listed[-1] = 1
    if points[-1].sigma == 0.0:
        listed[-1] = 1
    for i in range(steps):
        if points[i + 1].lam == points[i].lam:  # the last time of the grid may be the end of the schedule
            listed[i] = 1
        while listed[i] > 1 and (listed[i] > listed[i - 1] + 1 or math.isinf(points[i - listed[i] + 1].lam)):
            listed[i] -= 1
    return listed


def _step(points: Sequence[Point], algorithm_type: str, solver_type: str) -> Transfer:
    """The step from the first point to the last, with a prediction at each point but the last. Weights start with the first
    point."""
    now, then, stages = points[0], points[-1], points[:-1]
    distances = [a.lam - b.lam for a, b in pairwise(stages)]  # ahead, where multistep looks back
    eta = 1.0 if algorithm_type == "sde-dpmsolver++" else 0.0
    if len(stages) == 3 and solver_type == "midpoint":
        distances = [sum(distances)]
    kind = solver_type if len(stages) == 2 else "heun"
    if algorithm_type == "dpmsolver":
        step = multistep.by_noise(now, then, distances, solver_type=kind)
    else:
        step = multistep.by_data(now, then, distances, eta, solver_type=kind)
    if len(step.weights) < len(stages):
        step = Transfer(step.x, [step.weights[0], 0.0, step.weights[1]], step.s)
    return step


def _too_long(grid: Grid, guard: leaps.Guard, points: Sequence[Point], algorithm_type: str, solver_type: str) -> bool:
    """Whether a run is too long (``leaps.py``), compared with as many steps of first order. Noise is ignored."""
    if len(points) == 2 or (len(points) == 3 and algorithm_type != "dpmsolver"):
        return False
    rows = _run(grid, points, "dpmsolver" if algorithm_type == "dpmsolver" else "dpmsolver++", solver_type)
    return guard.stages_too_long(points[-1], rows, points[:-1])


def _run(grid: Grid, points: Sequence[Point], algorithm_type: str, solver_type: str) -> list[Row]:
    """The rows of a run: one per step, and one that keeps the base if it cannot be recovered because the state has new noise."""
    steps = [_step(points[: k + 1], algorithm_type, solver_type) for k in range(1, len(points))]
    row = noise_row if algorithm_type == "dpmsolver" else data_row
    first, *later = steps
    if not later:
        return [row(grid, points[0], first.x, first.weights[0], s=first.s)]
    if len(later) == 1:
        (second,) = later
        return [
            row(grid, points[0], first.x, first.weights[0], s=first.s, keep=(second.x, second.weights[0])),
            row(grid, points[1], 0.0, second.weights[1], c=(1.0,), s=second.s),
        ]
    second, third = later
    if first.s > 0.0:
        # Register 1 holds the base, register 0 the prediction there and then the known part of the third step.
        of_second: tuple[float, ...] = (second.weights[0], second.x)
        of_third: tuple[float, ...] = (third.weights[0], third.x)
        keep_base = [Row(calls_network=False, timestep=points[0].time, a=1.0, write=1, e_x=1.0)]
        x_second = x_third = 0.0
    else:
        # base = (state − first.weights[0]·h_0)/first.x
        x_second, x_third = second.x / first.x, third.x / first.x
        of_second = (second.weights[0] - first.weights[0] * x_second,)
        of_third = (third.weights[0] - first.weights[0] * x_third,)
        keep_base = []
    return [
        *keep_base,
        row(grid, points[0], first.x, first.weights[0], s=first.s, keep=(0.0, 1.0)),
        row(
            grid, points[1], x_second, second.weights[1], c=of_second, s=second.s, keep=(x_third, third.weights[1]), f=of_third
        ),
        row(grid, points[2], 0.0, third.weights[2], c=(1.0,), s=third.s),
    ]  # fmt: skip


SOLVER = Solver(
    name="dpmsolver_singlestep",
    order=2,
    nfe_per_step=1,
    registers=1,
    stochastic=False,
    paper="Lu et al. 2022, DPM-Solver++: Fast Solver for Guided Sampling of Diffusion Probabilistic Models, arXiv:2211.01095",
    timestep_spacing="linspace",
    options={
        "algorithm_type": Option(
            "dpmsolver++", "data form, noise form, or data form with noise", choices=("dpmsolver++", "dpmsolver", "sde-dpmsolver++")
        ),
        "solver_order": Option(2, "order of the longest steps, 1 to 3", minimum=1, maximum=3),
        "solver_type": Option("midpoint", "weights of the stages", choices=("midpoint", "heun")),
        "lower_order_final": Option(False, "end with steps of lower order; always if the grid ends at the data"),
        "final_sigmas_type": multistep.FINAL_SIGMAS_TYPE,
        "steps_offset": multistep.STEPS_OFFSET,
    },
    table=table,
    grid="open",
)
