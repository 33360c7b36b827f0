"""What a solver is to this package: a record of plain data, and a function that turns a problem into a table of
rows."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from ..plans.plan import Row
from ..schedule import FAMILIES, Schedule
from .prediction import data_prediction, noise_prediction


@dataclass(frozen=True)
class Option:
    """One option of a solver. The type of ``default`` is the type of the option: bool, int, float, str, or
    tuple (of whole numbers). A default of None stands for a bool.

    Attributes:
        default: Its value where none is given. None means True where the plan clips or thresholds, else False.
        about: What it does, in a line.
        minimum, maximum: The smallest and the largest number allowed, if there is one.
        choices: The strings allowed, for a str.
        elsewhere: The default for schedules that are not of the discrete family, where it is another.
    """

    default: bool | int | float | str | tuple[int, ...] | None
    about: str
    minimum: float | None = None
    maximum: float | None = None
    choices: tuple[str, ...] = ()
    elsewhere: bool | str | None = None

    @property
    def kind(self) -> type:
        """The type of its values."""
        return bool if self.default is None else type(self.default)


REDERIVE_EPSILON = Option(None, "take the noise from the clipped data prediction; false is diffusers' way")


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


# What may be done to a time before a network is told it: one that takes whole timesteps only cannot be told others. The
# marginals stay those of the unrounded time.
ROUNDINGS: Mapping[str, Callable[[np.ndarray], np.ndarray]] = {
    "none": np.asarray,
    "nearest": np.round,  # halves to even, as diffusers does
    "down": lambda times: np.floor(times + 1e-6),  # what is whole but for its rounding stays
}

# The data itself, where a solver arrives unless it is told to end before.
CLEAN = Point(time=0.0, log_alpha=0.0, alpha=1.0, sigma=0.0)


@dataclass(frozen=True)
class Problem:
    """What a solver is asked to solve, with every argument already checked.

    Attributes:
        schedule: The noise schedule.
        points: Where the network is called, from noise to data: log-SNR rises strictly.
        end: Where the last step goes: the clean data, or a point before it.
        prediction_type: What the network predicts.
        lo, hi: Bounds of the data prediction, infinite where it is not clipped.
        time_convention: What the network is told of the time (``Schedule.network_time``); None is the schedule's default.
        timestep_rounding: ``none``, or what is done to make it whole: ``nearest`` or ``down``.
        guarded: Whether a step that is too long for a higher order is taken at first order (``leaps.py``). False has the rows
            of the papers and of the peers, whatever they do.
    """

    schedule: Schedule
    points: tuple[Point, ...]
    prediction_type: str
    lo: float
    hi: float
    time_convention: str | None = None
    timestep_rounding: str = "none"
    end: Point = CLEAN
    guarded: bool = True

    @property
    def clips(self) -> bool:
        """Whether the data prediction is clipped."""
        return self.lo > -math.inf or self.hi < math.inf

    def data(self, point: Point) -> tuple[float, float]:
        """``(p, q)`` with x0 = p·x + q·m for a network called at this point."""
        return data_prediction(self.prediction_type, point.alpha, point.sigma, self.schedule.sigma_data)

    def noise(self, point: Point) -> tuple[float, float]:
        """``(p, q)`` with ε = p·x + q·m for a network called at this point."""
        return noise_prediction(self.prediction_type, point.alpha, point.sigma, self.schedule.sigma_data)

    def noise_terms(self, point: Point, weight: float, *, rederive: bool) -> tuple[float, float, float]:
        """``(a, b, d)`` with weight·ε = a·x + b·m + d·x0 for a network called at this point: ε as the network predicts it, or with
        ``rederive`` the one that fits the clipped data prediction, (x − alpha·x0)/sigma."""
        if rederive:
            return weight / point.sigma, 0.0, -weight * point.alpha / point.sigma
        of_x, of_m = self.noise(point)
        return weight * of_x, weight * of_m, 0.0

    def at(self, lam: float) -> Point:
        """The point of the schedule with this half log-SNR; its time is fractional.

        Raises:
            ArgumentError: the schedule does not reach it.
        """
        time = self._told(self.schedule.timestep_at_log_snr(2.0 * lam))
        return Point(float(time), *self.schedule.marginal_at_log_snr(2.0 * lam))

    def at_times(self, times: np.ndarray) -> tuple[Point, ...]:
        """The points of the schedule at these times (n,), in the schedule's own unit.

        Raises:
            ArgumentError: a time is out of range.
        """
        schedule = self.schedule
        columns = (self._told(times), schedule.log_alpha(times), schedule.alpha(times), schedule.sigma(times))
        return tuple(map(Point, *(column.tolist() for column in columns)))

    @property
    def initial_scale(self) -> float:
        """Standard deviation of the state at the start, where the network knows N(0, 1) or the noise itself is the state."""
        variance_preserving = self.schedule.family in ("discrete", "vp_sde", "sub_vp_sde", "learned")
        return 1.0 if variance_preserving else self.points[0].sigma

    def _told(self, times: np.ndarray) -> np.ndarray:
        return ROUNDINGS[self.timestep_rounding](self.schedule.network_time(times, self.time_convention))


@dataclass(frozen=True)
class Table:
    """What a solver answers; the fields mean what they mean in :class:`~diffuse_fast.Plan`. An ``initial_scale`` of None is
    that of the schedule's family."""

    rows: tuple[Row, ...]
    marginals: tuple[tuple[float, float], ...]
    deviation: tuple[tuple[float, float], ...] | None = None
    registers: int = 0
    initial_scale: float | None = None


@dataclass(frozen=True)
class Solver:
    """A solver: what it is called, what it needs, where it comes from, and its table.

    Attributes:
        name: The name given to :func:`~diffuse_fast.plan`.
        order: Order of convergence of the deterministic part, in the log-SNR, with the highest ``solver_order`` it takes.
        nfe_per_step: Network evaluations per step.
        registers: Registers its plans use (at most).
        stochastic: Whether it draws noise, with the options at their defaults.
        paper: Where it is from.
        timestep_spacing: The default spacing, where the schedule's family has none.
        options: Its options by name.
        table: ``table(problem, **options) -> Table``, called with every option.
        families: The families of schedules that it solves.
        grid: Which of diffusers' conventions its integer grids follow: ``closed``, ``open`` or ``fractional``
            (``solver/spacing.py``).
        from_noise: Whether it goes from noise to data; otherwise the other way.
    """

    name: str
    order: int
    nfe_per_step: int
    registers: int
    stochastic: bool
    paper: str
    timestep_spacing: str
    options: Mapping[str, Option] = field(repr=False)
    table: Callable[..., Table] = field(repr=False)
    families: tuple[str, ...] = FAMILIES
    grid: str = "closed"
    from_noise: bool = True
