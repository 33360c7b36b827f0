"""Heun's method with churn: Karras et al. 2022, "Elucidating the Design Space of Diffusion-Based Generative Models"
(arXiv:2206.00364), Algorithm 2.

With σ = sigma/alpha and x/alpha for the state, as the paper keeps them, and N steps::

    σ̂ = (1 + γ)·σ,  γ = min(s_churn/N, √2 − 1) where s_tmin <= σ <= s_tmax, else 0            lines 4, 5
    x̂ = x + sqrt(σ̂² − σ²)·s_noise·z                                                           line 6
    d = (x̂ − D(x̂; σ̂))/σ̂ = ε̂,   x' = x̂ + (σ' − σ̂)·d                                         lines 7, 8
    x' = x̂ + (σ' − σ̂)·(d + d')/2,   d' = ε at (x', σ')                                         lines 10, 11

Churn is a row without a network call, which only raises the noise; Euler's row keeps in a register what the second row
needs of the first. The step to the clean data is Euler's (line 9), and so is one from a point without signal, where σ is
infinite. diffusers' HeunDiscreteScheduler has no churn.
"""

from __future__ import annotations

import math
import sys
from itertools import pairwise

from ..errors import ArgumentError
from ..plan import Row
from .solver import CLEAN, Option, Point, Problem, Solver, Table
from .stages import by_data, by_noise, data_row, noise_row, one_stage


def table(problem: Problem, *, s_churn: float, s_tmin: float, s_tmax: float, s_noise: float, steps_offset: int) -> Table:
    if s_tmin > s_tmax:
        raise ArgumentError(f"s_tmin is {s_tmin:g} and s_tmax {s_tmax:g}; the interval between them, where churn is, is empty.")
    rows, before, deviation = [], [], []
    most = min(s_churn / len(problem.points), math.sqrt(2.0) - 1.0)
    for now, then in pairwise((*problem.points, CLEAN)):
        if most > 0.0 and now.alpha > 0.0 and s_tmin <= now.sigma / now.alpha <= s_tmax:
            hat = _churned(problem, now, most)
            added = hat.sigma * math.sqrt(-math.expm1(-2.0 * math.log1p(most)))
            rows.append(Row(timestep=hat.time, calls_network=False, a=hat.alpha / now.alpha, s=s_noise * added))
            before.append(now)
            deviation.append((0.0, (s_noise - 1.0) * (s_noise + 1.0) * added**2))
            now = hat
        if one_stage(now, then):
            rows.append(data_row(problem, now, *by_data(now, then)))
            before.append(now)
        else:
            x, eps = by_noise(now, then)
            rows.append(noise_row(problem, now, x, eps, keep=(x, eps / 2.0)))
            rows.append(noise_row(problem, then, 0.0, eps / 2.0, c=(1.0,)))
            before += [now, then]
        deviation += [(0.0, 0.0)] * (len(rows) - len(deviation))
    return Table(
        rows=tuple(rows),
        marginals=tuple((point.alpha, point.sigma) for point in (*before, CLEAN)),
        deviation=tuple(deviation) if any(variance for _, variance in deviation) else None,
        registers=int(any(row.write is not None for row in rows)),
    )


def _churned(problem: Problem, now: Point, gamma: float) -> Point:
    try:
        return problem.at(now.lam - math.log1p(gamma))
    except ArgumentError as error:
        sigma = now.sigma / now.alpha
        raise ArgumentError(
            f"s_churn would raise sigma from {sigma:g} to {sigma * (1.0 + gamma):g} at timestep {now.time:g}, and the schedule "
            f"does not reach that: {error} Give s_tmax below {sigma:g}, or a smaller s_churn."
        ) from None


SOLVER = Solver(
    name="heun",
    order=2,
    nfe_per_step=2,
    registers=1,
    stochastic=False,
    paper="Karras et al. 2022, Elucidating the Design Space of Diffusion-Based Generative Models, arXiv:2206.00364",
    timestep_spacing="linspace",
    options={
        "s_churn": Option(0.0, "how much noise the steps add and remove again, in all", minimum=0.0),
        "s_tmin": Option(0.0, "no churn below this sigma/alpha", minimum=0.0),
        "s_tmax": Option(sys.float_info.max, "no churn above this sigma/alpha", minimum=0.0),
        "s_noise": Option(1.0, "factor of the noise that churn adds", minimum=0.0),
        "steps_offset": Option(0, "added to the timesteps of leading spacing", minimum=0),
    },
    table=table,
    grid="fractional",
)
