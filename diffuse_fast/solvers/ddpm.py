"""DDPM: Ho, Jain & Abbeel 2020, "Denoising Diffusion Probabilistic Models" (arXiv:2006.11239).

Ancestral sampling from the posterior, equations (6) and (7), on any falling grid: with t' the next timestep of the
grid, β = 1 − alpha²/alpha'² the variance added from t' to t (the paper's β_t where the grid is every timestep)::

    x_{t'} = alpha'·β/sigma²·x0 + (alpha/alpha')·sigma'²/sigma²·x + s·z                                          (7)

and s² by ``variance_type`` (section 3.2):

* ``fixed_small``: s² = β·sigma'²/sigma², the variance of the posterior; a perfect prediction keeps the marginal;
* ``fixed_large``: s² = β; the variance after a step is too large by β·(1 − sigma'²/sigma²).

The last step draws no noise (Algorithm 2, line 3).
"""

from __future__ import annotations

import math

from ..plan import Row
from .prediction import VP_PREDICTION_TYPES, data_prediction
from .solver import Option, Problem, Solver, Table


def table(problem: Problem, *, variance_type: str, steps_offset: int) -> Table:
    large = variance_type == "fixed_large"
    log_alphas, alphas, sigmas = (*problem.log_alpha, 0.0), (*problem.alpha, 1.0), (*problem.sigma, 0.0)
    last = len(problem.timesteps) - 1
    rows, deviation = [], []
    for i, t in enumerate(problem.timesteps):
        alpha, sigma, alpha_next, sigma_next = alphas[i], sigmas[i], alphas[i + 1], sigmas[i + 1]
        beta = -math.expm1(2.0 * (log_alphas[i] - log_alphas[i + 1]))
        posterior_variance = beta * (sigma_next / sigma) ** 2  # eq. (7); 0 at the last
        variance = beta if large and i < last else posterior_variance
        p, q = data_prediction(problem.prediction_type, alpha, sigma)
        row = Row(
            timestep=t, p=p, q=q, lo=problem.lo, hi=problem.hi,
            a=(alpha / alpha_next) * (sigma_next / sigma) ** 2,
            d=alpha_next * beta / sigma**2,
            s=math.sqrt(variance),
        )  # fmt: skip
        rows.append(row.folded())
        deviation.append((0.0, variance - posterior_variance))
    marginals = tuple(zip(alphas, sigmas, strict=True))
    return Table(rows=tuple(rows), marginals=marginals, deviation=tuple(deviation) if large else None)


SOLVER = Solver(
    name="ddpm",
    order=1,
    nfe_per_step=1,
    registers=0,
    stochastic=True,
    paper="Ho, Jain & Abbeel 2020, Denoising Diffusion Probabilistic Models, arXiv:2006.11239",
    prediction_types=VP_PREDICTION_TYPES,
    timestep_spacing="leading",
    options={
        "variance_type": Option("fixed_small", "variance of a step", choices=("fixed_small", "fixed_large")),
        "steps_offset": Option(0, "added to the timesteps of leading spacing", minimum=0),
    },
    table=table,
)
