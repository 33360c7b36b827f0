"""What a solver is to this package: a record of plain data, and a function that turns a problem into a table of
rows."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ..plan import Row
from ..schedule import Schedule
from .prediction import data_prediction, noise_prediction


@dataclass(frozen=True)
class Option:
    """One option of a solver. The type of ``default`` is the type of the option: bool, int, float or str.

    Attributes:
        default: Its value where none is given.
        about: What it does, in a line.
        minimum, maximum: The smallest and the largest number allowed, if there is one.
        choices: The strings allowed, for a str.
    """

    default: bool | int | float | str
    about: str
    minimum: float | None = None
    maximum: float | None = None
    choices: tuple[str, ...] = ()


@dataclass(frozen=True)
class Point:
    """A time of the grid, and the marginal of the state there: ``alpha·x0 + sigma·ε``.

    Attributes:
        time: What the network is told.
        log_alpha: log(alpha), with full accuracy where alpha is close to 1; −inf where it is 0.
        alpha, sigma: The marginal, in the scale in which the state is kept.
    """

    time: float
    log_alpha: float
    alpha: float
    sigma: float

    @property
    def lam(self) -> float:
        """Half the log-SNR, log(alpha/sigma): the λ of the DPM-Solver papers. +inf without noise, −inf without data."""
        return math.inf if self.sigma == 0.0 else self.log_alpha - math.log(self.sigma)


# The data itself, where every solver that goes to the end arrives.
CLEAN = Point(time=0.0, log_alpha=0.0, alpha=1.0, sigma=0.0)


@dataclass(frozen=True)
class Problem:
    """What a solver is asked to solve, with every argument already checked.

    Attributes:
        schedule: The noise schedule.
        points: Where the network is called, from noise to data: log-SNR rises strictly.
        prediction_type: What the network predicts.
        lo, hi: Bounds of the data prediction, infinite where it is not clipped.
    """

    schedule: Schedule
    points: tuple[Point, ...]
    prediction_type: str
    lo: float
    hi: float

    @property
    def clips(self) -> bool:
        """Whether the data prediction is clipped."""
        return self.lo > -math.inf or self.hi < math.inf

    def data(self, point: Point) -> tuple[float, float]:
        """``(p, q)`` with x0 = p·x + q·m for a network called at this point."""
        return data_prediction(self.prediction_type, point.alpha, point.sigma)

    def noise(self, point: Point) -> tuple[float, float]:
        """``(p, q)`` with ε = p·x + q·m for a network called at this point."""
        return noise_prediction(self.prediction_type, point.alpha, point.sigma)

    def at(self, lam: float) -> Point:
        """The point of the schedule with this half log-SNR; its time is fractional.

        Raises:
            ArgumentError: the schedule does not reach it.
        """
        alpha, sigma = math.sqrt(_logistic(2.0 * lam)), math.sqrt(_logistic(-2.0 * lam))
        log_alpha = -0.5 * math.log1p(math.exp(-2.0 * lam)) if lam > 0.0 else lam - 0.5 * math.log1p(math.exp(2.0 * lam))
        return Point(self.schedule.timestep_at_log_snr(2.0 * lam), log_alpha, alpha, sigma)


def _logistic(x: float) -> float:
    return 1.0 / (1.0 + math.exp(-x)) if x > -700.0 else 0.0


@dataclass(frozen=True)
class Table:
    """What a solver answers; the fields mean what they mean in :class:`~diffuse_fast.plan.Plan`."""

    rows: tuple[Row, ...]
    marginals: tuple[tuple[float, float], ...]
    deviation: tuple[tuple[float, float], ...] | None = None
    registers: int = 0
    initial_scale: float = 1.0


@dataclass(frozen=True)
class Solver:
    """A solver: what it is called, what it needs, where it comes from, and its table.

    Attributes:
        name: The name given to :func:`~diffuse_fast.plan`.
        order: Order of convergence of the deterministic part, in the log-SNR.
        nfe_per_step: Network evaluations per step.
        registers: Registers its plans use (at most).
        stochastic: Whether it draws noise, with the options at their defaults.
        paper: Where it is from.
        prediction_types: What the network may predict.
        timestep_spacing: The default spacing.
        options: Its options by name.
        table: ``table(problem, **options) -> Table``, called with every option.
    """

    name: str
    order: int
    nfe_per_step: int
    registers: int
    stochastic: bool
    paper: str
    prediction_types: tuple[str, ...]
    timestep_spacing: str
    options: Mapping[str, Option]
    table: Callable[..., Table]
