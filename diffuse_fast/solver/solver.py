"""What a solver consists of: a record of plain data, and a function that turns a grid of times into a table of rows."""

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
    """One option of a solver. Its type is that of ``default``: bool, int, float, str, or a tuple of ints; bool if it is None.

    Attributes:
        default: The default value. None means True if the plan clips or thresholds, else False.
        about: A one-line description.
        minimum, maximum: Bounds of a number, if any.
        choices: The allowed values of a str.
        elsewhere: The default for schedules outside the discrete family, if different.
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


REDERIVE_EPSILON = Option(None, "compute the noise from the clipped data prediction; False as in diffusers")


@dataclass(frozen=True)
class Point:
    """A time of the grid, and the marginal of the state there: ``alpha·x0 + sigma·ε``.

    Attributes:
        time: The time given to the network.
        log_alpha: log(alpha), accurate also for alpha close to 1; −inf if alpha is 0.
        alpha, sigma: The marginal, on the scale in which the state is kept.
    """

    time: float
    log_alpha: float
    alpha: float
    sigma: float

    @property
    def lam(self) -> float:
        """Half the log-SNR, log(alpha/sigma): the λ of the DPM-Solver papers. +inf without noise, −inf without data."""
        return math.inf if self.sigma == 0.0 else self.log_alpha - math.log(self.sigma)


# Rounding of times for networks that take integer timesteps only. The marginals remain those of the unrounded time.
ROUNDINGS: Mapping[str, Callable[[np.ndarray], np.ndarray]] = {
    "none": np.asarray,
    "nearest": np.round,  # halves to even, as diffusers does
    "down": lambda times: np.floor(times + 1e-6),  # keeps integers that rounding errors have made smaller
}

# The clean data, where a plan ends by default.
CLEAN = Point(time=0.0, log_alpha=0.0, alpha=1.0, sigma=0.0)


@dataclass(frozen=True)
class Grid:
    """The points at which the network is called, and what it predicts there: a solver's input, already checked.

    Attributes:
        schedule: The noise schedule.
        points: Where the network is called, from noise to data: the log-SNR strictly increases.
        end: Where the last step goes: the clean data, or a point before it.
        prediction_type: What the network predicts.
        lo, hi: Bounds of the data prediction; infinite without a clip.
        time_convention: The form in which the network takes the time (``Schedule.network_time``); None is the schedule's default.
        timestep_rounding: ``none``, or how times are rounded to integers: ``nearest`` or ``down``.
        guarded: Whether a step that is too long for a higher order is taken at first order (``leaps.py``). False gives the rows of
            the papers and of other libraries in every case.
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
        """``(a, b, d)`` with weight·ε = a·x + b·m + d·x0 for a network called at this point: ε as predicted by the network, or with
        ``rederive`` computed from the clipped data prediction, (x − alpha·x0)/sigma."""
        if rederive:
            return weight / point.sigma, 0.0, -weight * point.alpha / point.sigma
        of_x, of_m = self.noise(point)
        return weight * of_x, weight * of_m, 0.0

    def at(self, lam: float) -> Point:
        """The point of the schedule with this half log-SNR; its time is fractional.

        Raises:
            ArgumentError: the schedule does not reach it.
        """
        time = self._network_time(self.schedule.timestep_at_log_snr(2.0 * lam))
        return Point(float(time), *self.schedule.marginal_at_log_snr(2.0 * lam))

    def at_times(self, times: np.ndarray) -> tuple[Point, ...]:
        """The points of the schedule at these times (n,), in the schedule's own unit.

        Raises:
            ArgumentError: a time is out of range.
        """
        schedule = self.schedule
        columns = (self._network_time(times), schedule.log_alpha(times), schedule.alpha(times), schedule.sigma(times))
        return tuple(map(Point, *(column.tolist() for column in columns)))

    @property
    def initial_scale(self) -> float:
        """Standard deviation of the initial state, which is noise of this scale."""
        variance_preserving = self.schedule.family in ("discrete", "vp_sde", "sub_vp_sde", "learned")
        return 1.0 if variance_preserving else self.points[0].sigma

    def _network_time(self, times: np.ndarray) -> np.ndarray:
        return ROUNDINGS[self.timestep_rounding](self.schedule.network_time(times, self.time_convention))


@dataclass(frozen=True)
class SolverTable:
    """A solver's output: the fields of :class:`~diffuse_fast.Plan` that it determines.

    Attributes:
        rows: One per network call, and rows without a call; in the order in which they are applied.
        marginals: (alpha, sigma) of the state before each row and after the last.
        deviation: By how much each row misses the next marginal with a perfect prediction, as (alpha, variance); None for a table
            that misses none.
        registers: How many registers the rows use.
        initial_scale: The standard deviation of the initial state; None for the default of the schedule's family.
    """

    rows: tuple[Row, ...]
    marginals: tuple[tuple[float, float], ...]
    deviation: tuple[tuple[float, float], ...] | None = None
    registers: int = 0
    initial_scale: float | None = None


@dataclass(frozen=True)
class Solver:
    """A solver: its name, properties, options and source, and the function that makes its table.

    Attributes:
        name: The name given to :func:`~diffuse_fast.plan`.
        order: Order of convergence of the deterministic part, in the log-SNR, with the highest ``solver_order``.
        nfe_per_step: Network evaluations per step.
        registers: Registers its plans use (at most).
        stochastic: Whether it draws noise with its default options.
        paper: The source.
        timestep_spacing: The default spacing, if the schedule's family has none.
        options: Its options by name.
        table: ``table(grid, **options) -> SolverTable``, called with every option.
        families: The families of schedules that it supports.
        grid: Which of diffusers' conventions its integer grids follow: ``closed``, ``open`` or ``fractional``
            (``solver/spacing.py``).
        from_noise: Whether it goes from noise to data, or from data to noise.
    """

    name: str
    order: int
    nfe_per_step: int
    registers: int
    stochastic: bool
    paper: str
    timestep_spacing: str
    options: Mapping[str, Option] = field(repr=False)
    table: Callable[..., SolverTable] = field(repr=False)
    families: tuple[str, ...] = FAMILIES
    grid: str = "closed"
    from_noise: bool = True
