"""Heun on a flow: the trapezoidal rule for the velocity of Lipman et al. 2023, "Flow Matching" (arXiv:2210.02747), in σ, as in
diffusers' FlowMatchHeunDiscreteScheduler.

On the straight path x = (1 − σ)·x0 + σ·ε with velocity v = dx/dσ = ε − x0::

    x_1 = x + (σ' − σ)·v(x, σ),    x' = x + (σ' − σ)·(v(x, σ) + v(x_1, σ'))/2

The step to the clean data is Euler's. ``heun`` on the same schedule integrates in sigma/alpha instead. diffusers' churn is not
implemented: on this path it would add noise without removing signal.
"""

from __future__ import annotations

from itertools import pairwise

from ..plans.plan import Row
from .solver import Grid, Point, Solver, SolverTable


def table(grid: Grid) -> SolverTable:
    rows, before = [], []
    for now, then in pairwise((*grid.points, grid.end)):
        step = then.sigma - now.sigma
        before.append(now)
        if then.sigma == 0.0:
            rows.append(_row(grid, now, 1.0, step))
        else:
            rows.append(_row(grid, now, 1.0, step, keep=(1.0, step / 2.0)))
            rows.append(_row(grid, then, 0.0, step / 2.0, c=(1.0,)))
            before.append(then)
    return SolverTable(
        rows=tuple(rows), marginals=tuple((point.alpha, point.sigma) for point in (*before, grid.end)), registers=int(len(rows) > 1)
    )


def _row(
    grid: Grid, point: Point, x: float, v: float, *, c: tuple[float, ...] = (), keep: tuple[float, float] | None = None
) -> Row:
    """``x' = x·state + v·velocity + Σ c·h``; ``keep`` are the weights of state and velocity that go to register 0."""
    k_x, k_v = keep or (0.0, 0.0)
    write = None if keep is None else 0
    if grid.clips:  # v = (x − x0)/σ
        p, q = grid.data(point)
        return Row(
            timestep=point.time,
            p=p,
            q=q,
            lo=grid.lo,
            hi=grid.hi,
            a=x + v / point.sigma,
            d=-v / point.sigma,
            c=c,
            write=write,
            e_x=k_x + k_v / point.sigma,
            e_0=-k_v / point.sigma,
        )
    (d_x, d_m), (n_x, n_m) = grid.data(point), grid.noise(point)
    v_x, v_m = n_x - d_x, n_m - d_m
    return Row(timestep=point.time, a=x + v * v_x, b=v * v_m, c=c, write=write, e_x=k_x + k_v * v_x, e_m=k_v * v_m)


SOLVER = Solver(
    name="flow_heun",
    order=2,
    nfe_per_step=2,
    registers=1,
    stochastic=False,
    paper="Lipman et al. 2023, Flow Matching for Generative Modeling, arXiv:2210.02747",
    timestep_spacing="linspace",
    options={},
    table=table,
    families=("flow",),
)
