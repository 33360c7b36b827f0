"""One line of a result, and the tables of lines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from rich.console import Console
from rich.table import Table

from .measure import Timing


@dataclass(frozen=True)
class Line:
    """A figure, what it is compared with, and its target.

    Attributes:
        name: What was measured.
        seconds: The measured time.
        value, unit: A figure that is not a time (megabytes, buffers).
        peer: What the ratio refers to.
        ratio: The time over the peer's.
        limit: The target for the ratio if there is one, else for ``value``, else for the seconds.
        note: Why there is no figure, or a remark.
        job: For samples: network, batch, steps, threads, precision, ours.
        error, error_of_call: Error of the samples relative to the reference's largest value; of a network call, in the 2-norm.
        share: The time at the machine's limits (bench/limits.py) over the median.
        rounds: Seconds of each round; equal indices are from the same round.
    """

    name: str
    seconds: Timing | None = None
    value: float | None = None
    unit: str = ""
    peer: str | None = None
    ratio: Timing | None = None
    limit: float | None = None
    note: str = ""
    job: Mapping[str, object] | None = None
    error: float | None = None
    error_of_call: float | None = None
    share: float | None = None
    rounds: Sequence[float] | None = None

    @property
    def met(self) -> bool | None:
        """Whether the median meets the target; None without a target."""
        measured = self.ratio.median if self.ratio is not None else self.value
        if measured is None and self.seconds is not None:
            measured = self.seconds.median
        return None if self.limit is None or measured is None else measured <= self.limit

    def to_json(self) -> dict[str, object]:
        return {k: v for k, v in {**asdict(self), "met": self.met}.items() if v not in (None, "")}


def show(console: Console, title: str, lines: list[Line]) -> None:
    """Print a table, without empty columns."""
    columns = {
        "": [line.name for line in lines],
        "draws": [_draws(line.job) for line in lines],
        "median": [_middle(line) for line in lines],
        "p20 .. p80": ["" if line.seconds is None else f"{_time(line.seconds.p20)} .. {_time(line.seconds.p80)}" for line in lines],
        "ratio": ["" if line.ratio is None else f"{line.ratio.median:.2f}" for line in lines],
        "p20 .. p80 ": ["" if line.ratio is None else f"{line.ratio.p20:.2f} .. {line.ratio.p80:.2f}" for line in lines],
        "to": [line.peer or "" for line in lines],
        "target": [_target(line) for line in lines],
        "of the limit": ["" if line.share is None else f"{line.share:.0%}" for line in lines],
        "error": ["" if line.error is None else f"{line.error:.0e}" for line in lines],
        "of a call": ["" if line.error_of_call is None else f"{line.error_of_call:.0e}" for line in lines],
        " ": [line.note for line in lines],
    }
    table = Table(title=title, title_justify="left")
    for name, cells in columns.items():
        if any(cells):
            table.add_column(name, justify="left" if name in ("", "draws", "to", " ") else "right")
    for row in zip(*(cells for cells in columns.values() if any(cells)), strict=True):
        table.add_row(*row)
    console.print(table)


def digits(value: float) -> str:
    """Three of them, and no exponent above."""
    return f"{value:.3g}" if value < 999.5 else f"{value:.0f}"


def _draws(job: Mapping[str, object] | None) -> str:
    if job is None or "network" not in job:
        return ""
    return f"{job['network']}, {job['batch']} in {job['steps']} steps, {job['threads']} threads"


def _middle(line: Line) -> str:
    if line.value is not None:
        return f"{digits(line.value)} {line.unit}"
    return "" if line.seconds is None else _time(line.seconds.median)


def _target(line: Line) -> str:
    return "" if line.limit is None else f"{line.limit:g} " + {True: "met", False: "[bold red]missed[/]", None: ""}[line.met]


def _time(seconds: float) -> str:
    for unit, scale in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if abs(seconds) >= scale:
            return f"{seconds / scale:.3g} {unit}"
    return f"{seconds / 1e-9:.3g} ns"
