"""UniPC: Zhao et al. 2023, "UniPC: A Unified Predictor-Corrector Framework for Fast Sampling of Diffusion Models"
(arXiv:2302.04867), Algorithms 5 to 8, multistep.

With the integrals I_k of ``multistep.py`` over the step, h = λ' − λ, B = h (``bh1``) or I_0 (``bh2``), and differences
D_j = (m_j − m_0)/r_j of predictions made at λ + r_j·h, the step is (data form; the noise form has (alpha'/alpha)·x and −sigma')::

    x' = (sigma'/sigma)·x + alpha'·(I_0·m_0 + B·Σ ρ_j·D_j),    Σ_j ρ_j·r_j^(i−1) = I_i/B,  i = 1, 2, ...        (eq. 9, 11)

The predictor uses past predictions. After the network was called at the new point, the corrector repeats the step with that
prediction too (r = 1) and replaces the state. The correction is a combination of predictions, so one row contains it and the
predictor of the next step: order k needs k registers. If h is infinite (a state without signal), B is I_0 for both.

diffusers' UniPCMultistepScheduler.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from . import leaps, multistep
from .multistep import Past, Transfer
from .solver import Grid, Option, Point, Solver, SolverTable


def table(
    grid: Grid,
    *,
    solver_order: int,
    solver_type: str,
    predict_x0: bool,
    disable_corrector: tuple[int, ...],
    lower_order_final: bool,
    final_sigmas_type: str,
    steps_offset: int,
) -> SolverTable:
    points = (*grid.points, grid.end)
    orders = multistep.orders(points, solver_order, lower_order_final=lower_order_final, euler_at_final=False, short=len(points))
    form = "data" if predict_x0 else "noise"
    corrects = [i not in disable_corrector and i < len(orders) - 1 for i in range(len(orders))]
    if not (form == "data" and solver_type == "bh2"):  # whose weights are bounded
        _shorten(grid, points, orders, corrects, solver_type, form)
    transfers: list[Transfer] = []
    predictors: list[Transfer] = []
    for i, order in enumerate(orders):
        back = multistep.steps_back(points, i, order)
        predictor = _step(points[i], points[i + 1], back, solver_type, form, corrector=False)
        predictors.append(predictor)
        if i == 0 or not corrects[i - 1]:
            transfers.append(predictor)
            continue
        back = multistep.steps_back(points, i - 1, orders[i - 1])
        corrector = _step(points[i - 1], points[i], back, solver_type, form, corrector=True)
        # Corrected state minus predicted state; the newest prediction is the one just made.
        correction = np.array(corrector.weights)
        correction[1:] -= predictors[i - 1].weights
        weights = np.zeros(max(len(correction), order))
        weights[:order] = predictor.weights
        weights[: len(correction)] += predictor.x * correction
        transfers.append(Transfer(predictor.x, weights.tolist()))
    return multistep.table(grid, points, transfers, form)


def _shorten(grid: Grid, points: Sequence[Point], orders: list[int], corrects: list[bool], solver_type: str, form: str) -> None:
    """Lowers the orders of the steps that are too long (``leaps.py``), and does not correct those that still are at first order."""
    guard = leaps.Guard(grid)

    def steps(i: int) -> list[Transfer]:
        """The predictor of step i and, if it is corrected, the corrector."""
        ends, back = (points[i], points[i + 1]), multistep.steps_back(points, i, orders[i])
        return [_step(*ends, back, solver_type, form, corrector=corrector) for corrector in (False, True)[: 1 + corrects[i]]]

    def states(i: int, made: Sequence[Transfer], past: Past) -> list[float]:
        """The states after these."""
        landed = [past.after(made[0])]
        for corrector in made[1:]:
            at_end = multistep.call(grid, points[i + 1], landed[0], form, past.predictions)
            landed.append(Past(past.state, at_end.predictions).after(corrector))
        return landed

    past = multistep.call(grid, points[0], leaps.spread(grid, points[0]), form)
    for i in range(len(orders)):
        now, then, exact = points[i], points[i + 1], multistep.exact_past(grid, points, i, form)
        made = steps(i)
        while (orders[i] > 1 or corrects[i]) and any(
            guard.too_long(now, then, p.state, landed) for p in (exact, past) for landed in states(i, made, p)
        ):
            if orders[i] > 1:
                orders[i] -= 1
            else:
                corrects[i] = False
            made = steps(i)
        landed = states(i, made, past)
        # The prediction at the end is made before the correction, and is kept.
        past = Past(landed[-1], multistep.call(grid, then, landed[0], form, past.predictions).predictions)


def _step(now: Point, then: Point, back: Sequence[float], solver_type: str, form: str, *, corrector: bool) -> Transfer:
    """A step. The weights of the corrector start with that of the prediction at the end of the step."""
    h = then.lam - now.lam
    # First order if the width is zero, or infinite with nothing to correct.
    if h == 0.0 or then.sigma == 0.0 or (form == "noise" and now.alpha == 0.0):
        return multistep.by_data(now, then, ()) if form == "data" else multistep.by_noise(now, then, ())
    order = len(back) + 1
    integrals = (multistep.data_integrals if form == "data" else multistep.noise_integrals)(h, order + 1)
    scale = h if solver_type == "bh1" and math.isfinite(h) else integrals[0]
    r = [-sum(back[: j + 1]) / h for j in range(len(back))] + ([1.0] if corrector else [])
    rho = _rho(np.array(r), [integrals[i] / scale for i in range(1, order + 1)])
    weights = np.zeros(order + corrector)  # of m_0 and the past predictions, then of the new point
    weights[0] = integrals[0]
    for j, (weight, distance) in enumerate(zip(rho, r, strict=True), start=1):
        weights[j] += scale * weight / distance
        weights[0] -= scale * weight / distance
    if corrector:
        weights = np.roll(weights, 1)
    if form == "data":
        return Transfer(then.sigma / now.sigma, (then.alpha * weights).tolist())
    return Transfer(then.alpha / now.alpha, (-then.sigma * weights).tolist())


def _rho(r: np.ndarray, b: list[float]) -> np.ndarray:
    # For one difference the paper uses 1/2, which keeps the order without solving an equation (section 3.2).
    if len(r) <= 1:
        return np.full(len(r), 0.5)
    return np.linalg.solve(np.vander(r, increasing=True).T, b[: len(r)])


SOLVER = Solver(
    name="unipc",
    order=3,
    nfe_per_step=1,
    registers=3,
    stochastic=False,
    paper="Zhao et al. 2023, UniPC: A Unified Predictor-Corrector Framework for Fast Sampling of Diffusion Models, "
    "arXiv:2302.04867",
    timestep_spacing="linspace",
    options={
        "solver_order": Option(2, "order of the predictor, 1 to 3; the corrector adds one", minimum=1, maximum=3),
        "solver_type": Option("bh2", "B(h): h, or e^h − 1", choices=("bh1", "bh2")),
        "predict_x0": Option(True, "the data form, not the noise form"),
        "disable_corrector": Option((), "indices of steps that are not corrected; range(steps) disables the corrector", minimum=0),
        "lower_order_final": Option(True, "end with steps of lower order"),
        "final_sigmas_type": multistep.FINAL_SIGMAS_TYPE,
        "steps_offset": multistep.STEPS_OFFSET,
    },
    table=table,
    grid="open",
)
