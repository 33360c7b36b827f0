"""The guard against long steps: a step that is too long in the log-SNR for its order is taken at first order.

A method of higher order adds differences of predictions to Euler's step. With σ = sigma/alpha, x/alpha for the state and
r = σ/σ' = e^h for a step, a difference of two data predictions enters

* with the weight (r − 1)/2 in Heun's method,
* with √r − 1/√r if the second stage is in the middle (DPM-2, DPM-Solver-2),
* with weights of the order of (h/h')² where a polynomial through predictions h' apart is extended over a step of width h.

None of these is bounded, although the exact weight is below 1. The allowed length also depends on the noise level: the difference
is of the order of the data's standard deviation s if σ' is about s, and small far above and far below. For data N(0, s²), whose
optimal network is linear in the state, the result of a step can be computed::

    x0 = alpha·s²/n²·x,    ε = sigma/n²·x,    n² = alpha²·s² + sigma²,    exact solution: x'/x = n'/n

The relative errors of the steps add up to that of the sample. Euler's step has the error −s²/(2·σ'²)·(1 − 1/r)² for σ' ≫ s, and
Heun's r − 1 times as much. A step is too long if one of these holds:

1. Its error alone exceeds a fraction of E, the error of Euler's method on the full grid and from its end to the data: E/2, or E/k
   for k > 2 network calls, because Euler's method with k times as many calls has an error of about E/k.
2. An error of a later stage's prediction by the standard deviation of the data given its state, s·sigma/n, would move the state by
   more than n', and so the sample by more than s. In Euler's step no prediction can do that. (The first rule assumes a perfect
   network, for which the difference that has the weight √r vanishes at a stage far above s.)

A multistep method also extends the errors of the states in which its past predictions were made. The prediction follows the state
where σ ≪ s, so the errors grow with the weights from step to step if each step is wider than the one before. There the first rule
must hold both from exact states and from those that the plan's own steps lead to: the step may add no more than E/2 to the relative
error.

Here s is the schedule's ``sigma_data``: EDM's, or 1 for data scaled to [−1, 1] or to unit variance. The tests require of every
solver an error of at most 5 times DDIM's + 0.001 for data of half that deviation (``tests/solver/test_leaps.py``). Solvers that
satisfy this without a guard have none: DPM-Solver++ 2S and 3S, whose weights are bounded; ``flow_heun``, which steps in σ from 1 to
0; and the multistep solvers that look back one step (``midpoint``) or combine noise predictions, where older predictions have
larger σ.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

from ..plans.plan import Row
from .prediction import target_weights
from .solver import CLEAN, Grid, Point
from .stages import by_data, data_row, one_stage


def spread(grid: Grid, point: Point) -> float:
    """Standard deviation of the state at this point, for data N(0, sigma_data²)."""
    return math.hypot(point.alpha * grid.schedule.sigma_data, point.sigma)


def predicted(grid: Grid, point: Point, state: float) -> tuple[float, float]:
    """``(x0, ε)`` of the optimal network in a state at this point."""
    variance = spread(grid, point) ** 2
    return point.alpha * grid.schedule.sigma_data**2 / variance * state, point.sigma / variance * state


def euler(grid: Grid, now: Point, then: Point, state: float) -> float:
    """The state after a step of first order."""
    x, x0 = by_data(now, then)
    return x * state + x0 * predicted(grid, now, state)[0]


def through(grid: Grid, rows: Sequence[Row], points: Sequence[Point], wrong: int | None = None) -> float:
    """The state after rows whose network is called at these points, starting from :func:`spread`, without clip and noise.

    The prediction of row ``wrong`` has an error of the standard deviation of the data given the state.
    """
    state = spread(grid, points[0])
    registers: dict[int, float] = {}
    for i, (row, point) in enumerate(zip(rows, points, strict=True)):
        x0, eps = predicted(grid, point, state)
        if i == wrong:
            x0 += grid.schedule.sigma_data * point.sigma / spread(grid, point)
            eps -= grid.schedule.sigma_data * point.alpha / spread(grid, point)
        of_x0, of_eps = target_weights(grid.prediction_type, point.alpha, point.sigma, grid.schedule.sigma_data)
        m = of_x0 * x0 + of_eps * eps
        data = row.p * state + row.q * m
        after = row.a * state + row.b * m + row.d * data + _sum(row.c, registers)
        if row.write is not None:
            registers[row.write] = row.e_x * state + row.e_m * m + row.e_0 * data + _sum(row.f, registers)
        state = after
    return state


def _sum(weights: Sequence[float], registers: dict[int, float]) -> float:
    return sum(weight * registers[k] for k, weight in enumerate(weights) if weight != 0.0)


# The rows of a step, and the points at which they call the network.
Step = tuple[tuple[Point, ...], tuple[Row, ...]]


class Guard:
    """Finds the steps of a plan that are too long.

    Args:
        grid: The solver's input. If it is not ``guarded``, no step is too long.
    """

    def __init__(self, grid: Grid):
        self._grid = grid
        points = [*grid.points, grid.end]
        if grid.end.sigma > 0.0:
            points.append(CLEAN)
        state = spread(grid, points[0])
        for now, then in pairwise(points):
            state = euler(grid, now, then, state)
        self._limit = abs(state / spread(grid, CLEAN) - 1.0) if grid.guarded else math.inf

    def too_long(self, now: Point, then: Point, state: float, landed: float, calls: int = 1) -> bool:
        """Whether a step adds so much to the relative error of the state that it must be taken at first order.

        Args:
            now, then: The ends of the step.
            state, landed: The states there. The exact states are :func:`spread`.
            calls: Network calls of the step.
        """
        added = landed / spread(self._grid, then) - state / spread(self._grid, now)
        return abs(added) > self._limit / max(2, calls)

    def stages_too_long(self, then: Point, rows: Sequence[Row], points: Sequence[Point]) -> bool:
        """:meth:`too_long` for the rows of a step in stages, whose network is called at these points."""
        landed = through(self._grid, rows, points)
        if self.too_long(points[0], then, spread(self._grid, points[0]), landed, calls=len(rows)):
            return True
        moved = (through(self._grid, rows, points, wrong=i) - landed for i in range(1, len(rows)))
        return self._grid.guarded and any(abs(by) > spread(self._grid, then) for by in moved)

    def step(self, now: Point, then: Point, staged: Callable[[], Step], s: float = 0.0) -> Step:
        """A step in stages, or of first order if that is too long or not possible.

        Args:
            now, then: The ends of the step.
            staged: Makes the step in stages; not called if there is no intermediate stage (``stages.one_stage``).
            s: Standard deviation of the noise in the step of first order.
        """
        if not one_stage(now, then):
            points, rows = staged()
            if not self.stages_too_long(then, rows, points):
                return points, rows
        return (now,), (data_row(self._grid, now, *by_data(now, then), s=s),)
