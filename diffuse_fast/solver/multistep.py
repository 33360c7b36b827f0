"""Building blocks of multistep solvers: exponential integrators of a polynomial through past predictions, as rows.

Between two points, with h = λ' − λ > 0 and τ in [0, h], the path x = alpha·x0 + sigma·ε moves by (Lu et al. 2022,
DPM-Solver++, arXiv:2211.01095, eq. 8, and DPM-Solver, arXiv:2206.00927, eq. 3.4)::

    x' = (sigma'/sigma)·x + alpha'·∫ e^−(h−τ)·x0(τ) dτ        data form
    x' = (alpha'/alpha)·x − sigma'·∫ e^(h−τ)·ε(τ) dτ          noise form

A solver of order k replaces x0(τ) or ε(τ) by the polynomial through the last k predictions and integrates it. The integrals of
the monomials, ∫ e^∓(h−τ)·(τ/h)^k dτ, are :func:`data_integrals` and :func:`noise_integrals`.

alpha² + sigma² = 1 is not assumed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from ..errors import PlanError
from ..plans.plan import Row
from . import leaps
from .solver import Grid, Option, Point, SolverTable

# The first omitted term of the series below is less than half a unit in the last place for h up to 1.
_SERIES_TERMS = 18
# PNDM's steps and UniPC's corrector use four predictions; no other step uses more.
_MOST_PREDICTIONS = 4


def data_integrals(h: float, count: int) -> list[float]:
    """∫₀ʰ e^−(h−τ)·(τ/h)^k dτ for k = 0 .. count − 1; h may be infinite, where all are 1."""
    if h < 1.0:
        return [_series(-h, h, k) for k in range(count)]
    integrals = [-math.expm1(-h)]
    for k in range(1, count):
        integrals.append(1.0 - k * integrals[-1] / h)
    return integrals


def noise_integrals(h: float, count: int) -> list[float]:
    """∫₀ʰ e^(h−τ)·(τ/h)^k dτ for k = 0 .. count − 1; h must be finite."""
    if h < 1.0:
        return [_series(h, h, k) for k in range(count)]
    integrals = [math.expm1(h)]
    for k in range(1, count):
        integrals.append(k * integrals[-1] / h - 1.0)
    return integrals


def _series(z: float, h: float, k: int) -> float:
    """h·Σ_n z^n·k!/(n + k + 1)!: the integrals without cancellation at small h."""
    term = h / (k + 1)
    total = term
    for n in range(1, _SERIES_TERMS):
        term *= z / (n + k + 1)
        total += term
    return total


def polynomial(
    integrals: Sequence[float], h: float, back: Sequence[float], *, solver_type: str = "heun", halved: bool = False
) -> list[float]:
    """Weights of the last predictions, newest first, in the integral of the polynomial through them.

    Args:
        integrals: Of the monomials over the step, as many as there are predictions.
        h: Width of the step.
        back: Widths of the steps before it, newest first: ``len(integrals) − 1`` of them.
        solver_type: For two predictions, ``heun`` integrates the straight line; ``midpoint`` uses its value in the middle,
            which is of the same order.
        halved: For three predictions, half the quadratic term, as in the code of DPM-Solver's authors and in diffusers. The exact
            term is twice that; with half of it the order is 2.
    """
    if not back:
        return [integrals[0]]
    # Newton's divided differences with respect to τ/h, as combinations of the predictions.
    r0 = back[0] / h
    first = [1.0 / r0, -1.0 / r0]
    if len(back) == 1:
        line = 0.5 * integrals[0] if solver_type == "midpoint" else integrals[1]
        return [integrals[0] + line * first[0], line * first[1]]
    r1 = back[1] / h
    before = [0.0, 1.0 / r1, -1.0 / r1]
    second = [(a - b) / (r0 + r1) for a, b in zip([*first, 0.0], before, strict=True)]
    slopes = [a + r0 * b for a, b in zip([*first, 0.0], second, strict=True)]
    curvature = 0.5 * integrals[2] if halved else integrals[2]
    weights = [integrals[1] * a + curvature * b for a, b in zip(slopes, second, strict=True)]
    weights[0] += integrals[0]
    return weights


@dataclass(frozen=True)
class Transfer:
    """One step: ``x' = x·state + Σ_j weights[j]·prediction_j + s·z``, predictions newest first."""

    x: float
    weights: Sequence[float]
    s: float = 0.0


def by_data(
    now: Point, then: Point, back: Sequence[float], eta: float = 0.0, *, solver_type: str = "heun", halved: bool = False
) -> Transfer:
    """A step in the data form; with ``eta`` of the SDE whose noise variance is eta² times that of the reverse SDE
    (SDE-DPM-Solver++)."""
    h = then.lam - now.lam
    wide = (1.0 + eta) * h
    weights = polynomial(data_integrals(wide, len(back) + 1), h, back, solver_type=solver_type, halved=halved)
    decay = math.exp(-eta * h) if eta > 0.0 else 1.0
    s = then.sigma * math.sqrt(-math.expm1(-2.0 * eta * h)) if eta > 0.0 and then.sigma > 0.0 else 0.0
    return Transfer((then.sigma / now.sigma) * decay, [then.alpha * w for w in weights], s)


def by_noise(now: Point, then: Point, back: Sequence[float], *, solver_type: str = "heun", halved: bool = False) -> Transfer:
    """A step in the noise form. A step that ends without noise has infinite width and is of first order."""
    if now.alpha == 0.0:
        raise PlanError(
            "at zero signal-to-noise ratio the noise form has no step, because ε carries no information about the data. Use "
            "a solver in the data form, such as dpmpp_2m, or another grid."
        )
    if then.sigma == 0.0:
        return Transfer(then.alpha / now.alpha, [-then.alpha * now.sigma / now.alpha])
    h = then.lam - now.lam
    weights = polynomial(noise_integrals(h, len(back) + 1), h, back, solver_type=solver_type, halved=halved)
    return Transfer(then.alpha / now.alpha, [-then.sigma * w for w in weights])


def orders(points: Sequence[Point], order: int, *, lower_order_final: bool, euler_at_final: bool, short: int = 15) -> list[int]:
    """The order of each step between ``points``: limited by the number of predictions so far, and at the end as in diffusers.

    A step that ends without noise or starts without signal has infinite width in λ, and a step may have zero width; these are of
    first order. ``lower_order_final`` lowers the orders of the last steps to 2 and 1 if there are fewer than ``short`` steps.
    """
    steps = len(points) - 1
    out = []
    for i in range(steps):
        k = min(order, i + 1)
        if lower_order_final and steps < short:
            k = min(k, steps - i)
        if i == steps - 1 and euler_at_final:
            k = 1
        if points[i + 1].sigma == 0.0 or points[i + 1].lam == points[i].lam:  # the last time may be the end of the schedule
            k = 1
        # A prediction made without signal is at an infinite distance in λ.
        while k > 1 and math.isinf(points[i - k + 1].lam):
            k -= 1
        out.append(k)
    return out


def steps_back(points: Sequence[Point], i: int, order: int) -> list[float]:
    """Widths in λ of the steps before step i, newest first, as many as a step of this order looks back."""
    return [points[i - j].lam - points[i - j - 1].lam for j in range(order - 1)]


@dataclass(frozen=True)
class Past:
    """The state before a step and the predictions so far, newest first, for the data of ``leaps.py``."""

    state: float
    predictions: tuple[float, ...]

    def after(self, transfer: Transfer) -> float:
        """The state after a step."""
        return transfer.x * self.state + sum(w * m for w, m in zip(transfer.weights, self.predictions, strict=False))


def call(grid: Grid, point: Point, state: float, form: str, before: tuple[float, ...] = ()) -> Past:
    """The past of a step that starts in this state, once the network was called there, after predictions ``before``."""
    return Past(state, (leaps.predicted(grid, point, state)[form == "noise"], *before[: _MOST_PREDICTIONS - 1]))


def exact_past(grid: Grid, points: Sequence[Point], i: int, form: str) -> Past:
    """The past of step i if all states were exact (``leaps.spread``)."""
    past = Past(math.nan, ())
    for point in points[max(0, i + 1 - _MOST_PREDICTIONS) : i + 1]:
        past = call(grid, point, leaps.spread(grid, point), form, past.predictions)
    return past


def highest(guard: leaps.Guard, now: Point, then: Point, order: int, step: Callable[[int], Transfer], *pasts: Past) -> int:
    """The highest order up to ``order`` for which a step is not too long from any of these pasts (``leaps.py``); ``step`` makes the
    step of an order."""
    while order > 1 and any(guard.too_long(now, then, past.state, past.after(step(order))) for past in pasts):
        order -= 1
    return order


def dpm_solver(
    grid: Grid,
    form: str,
    order: int,
    *,
    solver_type: str,
    lower_order_final: bool,
    euler_at_final: bool,
    final_sigmas_type: str,
    steps_offset: int,
    eta: float = 0.0,
    halved_curvature: bool = False,
) -> SolverTable:
    """The table of a multistep DPM-Solver of this form and order, with its options. ``steps_offset`` and ``final_sigmas_type``
    have no effect here: they are part of the grid."""
    points = (*grid.points, grid.end)

    def step(i: int, k: int, eta: float = 0.0) -> Transfer:
        now, then, back = points[i], points[i + 1], steps_back(points, i, k)
        if form == "data":
            return by_data(now, then, back, eta, solver_type=solver_type, halved=halved_curvature)
        return by_noise(now, then, back, solver_type=solver_type, halved=halved_curvature)

    guard = leaps.Guard(grid)
    guarded = form == "data" and (order == 3 or solver_type == "heun")
    transfers = []
    past = call(grid, points[0], leaps.spread(grid, points[0]), form)
    for i, k in enumerate(orders(points, order, lower_order_final=lower_order_final, euler_at_final=euler_at_final)):
        if guarded:  # the SDE extrapolates the same polynomial as the ODE
            then = points[i + 1]
            k = highest(guard, points[i], then, k, partial(step, i), exact_past(grid, points, i, form), past)
            past = call(grid, then, past.after(step(i, k)), form, past.predictions)
        transfers.append(step(i, k, eta))
    return table(grid, points, transfers, form)


def table(grid: Grid, points: Sequence[Point], transfers: Sequence[Transfer], form: str) -> SolverTable:
    """Rows of a multistep solver. Predictions that later rows use are kept in a ring of registers.

    Args:
        grid: The solver's input.
        points: Where the network is called, and the point after the last.
        transfers: One step between each two.
        form: ``data`` keeps data predictions, ``noise`` noise predictions. If x0 is clipped, ε is computed from the clipped x0.
    """
    depth = max(len(t.weights) for t in transfers) - 1
    rows = []
    for i, (point, transfer) in enumerate(zip(points, transfers, strict=False)):
        c = [0.0] * depth
        for j, weight in enumerate(transfer.weights[1:], start=1):
            c[(i - j) % depth] = weight
        kept = any(i + j < len(transfers) and len(transfers[i + j].weights) > j for j in range(1, depth + 1))
        rows.append(row(grid, point, transfer, form, c=tuple(c) if any(c) else (), write=i % depth if kept else None))
    return SolverTable(rows=tuple(rows), marginals=tuple((point.alpha, point.sigma) for point in points), registers=depth)


def row(grid: Grid, point: Point, transfer: Transfer, form: str, *, c: tuple[float, ...], write: int | None) -> Row:
    """One row, called at ``point``, that keeps its prediction in register ``write``."""
    weight = transfer.weights[0]
    keep = 0.0 if write is None else 1.0
    if form == "data":
        p, q = grid.data(point)
        direct = Row(
            timestep=point.time, p=p, q=q, lo=grid.lo, hi=grid.hi, a=transfer.x, d=weight, c=c, s=transfer.s, write=write, e_0=keep
        )
        return direct.folded()
    if grid.clips:
        p, q = grid.data(point)
        of_x, of_x0 = 1.0 / point.sigma, -point.alpha / point.sigma
        return Row(
            timestep=point.time,
            p=p,
            q=q,
            lo=grid.lo,
            hi=grid.hi,
            a=transfer.x + weight * of_x,
            d=weight * of_x0,
            c=c,
            s=transfer.s,
            write=write,
            e_x=keep * of_x,
            e_0=keep * of_x0,
        )
    of_x, of_m = grid.noise(point)
    return Row(
        timestep=point.time,
        a=transfer.x + weight * of_x,
        b=weight * of_m,
        c=c,
        s=transfer.s,
        write=write,
        e_x=keep * of_x,
        e_m=keep * of_m,
    )


# Options that several multistep solvers have, under diffusers' names.
STEPS_OFFSET = Option(0, "added to the timesteps of leading spacing", minimum=0)
LOWER_ORDER_FINAL = Option(True, "with fewer than 15 steps, end with steps of lower order")
EULER_AT_FINAL = Option(False, "end with a step of first order")
FINAL_SIGMAS_TYPE = Option("zero", "end at the data, or at the end of the schedule (t_min)", choices=("zero", "sigma_min"))
SOLVER_TYPE = Option("midpoint", "second order: the line's value in the middle, or its integral", choices=("midpoint", "heun"))
HALVED = Option(False, "third order: half the quadratic term, as in diffusers (reduces the order to 2)")
