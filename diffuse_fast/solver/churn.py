"""Churn: Karras et al. 2022, "Elucidating the Design Space of Diffusion-Based Generative Models" (arXiv:2206.00364),
Algorithm 2, lines 4 to 6: noise that is added before a step, and that the step removes again.

In the paper's variables, σ = sigma/alpha and the state x/alpha, with N steps::

    σ̂ = (1 + γ)·σ,  γ = min(s_churn/N, √2 − 1) where s_tmin <= σ <= s_tmax, else 0
    x̂ = x + sqrt(σ̂² − σ²)·s_noise·z

It is a row without a network call; the step that follows starts at σ̂.
"""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass

from ..errors import ArgumentError
from ..plans.plan import Row
from .solver import Grid, Option, Point

OPTIONS = {
    "s_churn": Option(0.0, "total amount of noise that the steps add and remove again", minimum=0.0),
    "s_tmin": Option(0.0, "no churn below this sigma/alpha", minimum=0.0),
    "s_tmax": Option(sys.float_info.max, "no churn above this sigma/alpha", minimum=0.0),
    "s_noise": Option(1.0, "factor of the added noise", minimum=0.0),
}


@dataclass(frozen=True)
class Raised:
    """A point with raised noise: the new point, the row that adds the noise, and the excess of the state's variance over that of
    the marginal (0 if ``s_noise`` is 1)."""

    point: Point
    row: Row
    excess: float


class Churn:
    """Churn with a solver's options.

    Raises:
        ArgumentError: the interval of sigma/alpha is empty.
    """

    def __init__(self, grid: Grid, *, s_churn: float, s_tmin: float, s_tmax: float, s_noise: float):
        if s_tmin > s_tmax:
            raise ArgumentError(f"s_tmin is {s_tmin:g} and s_tmax {s_tmax:g}; the interval between them is empty.")
        self._grid, self._s_tmin, self._s_tmax, self._s_noise = grid, s_tmin, s_tmax, s_noise
        self._gamma = min(s_churn / len(grid.points), math.sqrt(2.0) - 1.0)

    def at(self, now: Point) -> Raised | None:
        """The raised point, or None outside the interval and without signal.

        Raises:
            ArgumentError: the schedule has no such noise level.
        """
        if self._gamma == 0.0 or now.alpha == 0.0 or not self._s_tmin <= now.sigma / now.alpha <= self._s_tmax:
            return None
        hat = self._hat(now)
        added = hat.sigma * math.sqrt(-math.expm1(-2.0 * math.log1p(self._gamma)))
        row = Row(timestep=hat.time, calls_network=False, a=hat.alpha / now.alpha, s=self._s_noise * added)
        return Raised(hat, row, (self._s_noise - 1.0) * (self._s_noise + 1.0) * added**2)

    def _hat(self, now: Point) -> Point:
        try:
            return self._grid.at(now.lam - math.log1p(self._gamma))
        except ArgumentError as error:
            sigma = now.sigma / now.alpha
            raise ArgumentError(
                f"s_churn would raise sigma from {sigma:g} to {sigma * (1.0 + self._gamma):g} at timestep {now.time:g}, which is "
                f"outside the schedule: {error} Use s_tmax below {sigma:g}, or a smaller s_churn."
            ) from None
