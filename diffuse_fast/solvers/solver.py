"""What a solver is to this package: a record of plain data, and a function that turns a problem into a table of
rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ..plan import Row
from ..schedule import Schedule


@dataclass(frozen=True)
class Option:
    """One option of a solver. The type of ``default`` is the type of the option: bool, int, float or str.

    Attributes:
        default: Its value where none is given.
        about: What it does, in a line.
        minimum: The smallest number allowed, if there is one.
        choices: The strings allowed, for a str.
    """

    default: bool | int | float | str
    about: str
    minimum: float | None = None
    choices: tuple[str, ...] = ()


@dataclass(frozen=True)
class Problem:
    """What a solver is asked to solve, with every argument already checked.

    Attributes:
        schedule: The noise schedule.
        timesteps: Where the network is called, falling, in [0, num_train_timesteps − 1].
        log_alpha, alpha, sigma: The marginals at those timesteps.
        prediction_type: What the network predicts.
        lo, hi: Bounds of the data prediction, infinite where it is not clipped.
    """

    schedule: Schedule
    timesteps: tuple[float, ...]
    log_alpha: tuple[float, ...]
    alpha: tuple[float, ...]
    sigma: tuple[float, ...]
    prediction_type: str
    lo: float
    hi: float


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
