"""Predictor–corrector sampling with the Langevin corrector: Song et al. 2021, "Score-Based Generative Modeling through SDEs"
(arXiv:2011.13456), Algorithms 2 to 5; diffusers' ScoreSdeVeScheduler.

At every point of the grid the corrector runs ``correct_steps`` times (Algorithms 4 and 5). With g = −ε/sigma the score::

    x ← x + ρ·g + sqrt(2·ρ)·z,    ρ = 2·α·(snr·|z|/|g|)²,    α = (alpha/alpha')²

(α is the paper's α_i = 1 − β_i for VP, and 1 for VE). Then follows the predictor, the reverse diffusion sampler (eq. 46), with
Q = sigma² − (alpha/alpha')²·sigma'² the variance that the forward process adds::

    x' = (2 − alpha/alpha')·x + Q·g + sqrt(Q)·z

The last predictor step, to the clean data, adds no noise. The corrector comes first, as in the authors' code.

The norms are computed per sample when the row runs; the paper and diffusers average them over the batch, which is the same for a
batch of one. They use the raw output, so clipping affects the predictor only, and the network must predict the noise or the score.
The deviation of a corrector row is declared for |z| = |ε|; that of a predictor row is of second order in the step.
"""

from __future__ import annotations

import math
from itertools import pairwise

from ..errors import PlanError
from ..plans.plan import Reduction, Row
from .solver import Grid, Option, Solver, SolverTable
from .stages import noise_row


def table(grid: Grid, *, snr: float, correct_steps: int, steps_offset: int) -> SolverTable:
    if grid.prediction_type not in ("epsilon", "score"):
        raise PlanError(
            f"prediction_type is {grid.prediction_type!r}; the Langevin corrector needs an output that is proportional to "
            f"the score: a network that predicts epsilon or score."
        )
    rows, before, deviation = [], [], []
    for now, then in pairwise((*grid.points, grid.end)):
        shrink = now.alpha / then.alpha
        ratio = snr * shrink
        kappa = -1.0 / now.sigma if grid.prediction_type == "epsilon" else 1.0
        corrector = Row(timestep=now.time, a=1.0, reduce=Reduction("langevin", (ratio, kappa)))
        rows += [corrector] * correct_steps
        deviation += [(0.0, 4.0 * ratio**4 * now.sigma**2)] * correct_steps
        added = -(now.sigma**2) * math.expm1(2.0 * (now.lam - then.lam))
        variance = added if then.sigma > 0.0 else 0.0
        rows.append(noise_row(grid, now, 2.0 - shrink, -added / now.sigma, s=math.sqrt(variance)))
        of_eps = (2.0 - shrink) * now.sigma - added / now.sigma
        deviation.append(((2.0 - shrink) * now.alpha - then.alpha, of_eps**2 + variance - then.sigma**2))
        before += [now] * (correct_steps + 1)
    marginals = tuple((point.alpha, point.sigma) for point in (*before, grid.end))
    return SolverTable(rows=tuple(rows), marginals=marginals, deviation=tuple(deviation))


SOLVER = Solver(
    name="langevin_pc",
    order=1,
    nfe_per_step=2,
    registers=0,
    stochastic=True,
    paper="Song et al. 2021, Score-Based Generative Modeling through Stochastic Differential Equations, arXiv:2011.13456",
    timestep_spacing="linspace",
    options={
        "snr": Option(0.16, "signal-to-noise ratio of a corrector step, the paper's r", minimum=0.0),
        "correct_steps": Option(1, "corrector steps at every point of the grid", minimum=0),
        "steps_offset": Option(0, "added to the timesteps of leading spacing", minimum=0),
    },
    table=table,
)
