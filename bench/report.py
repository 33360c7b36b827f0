"""One line of a result, and how lines are shown."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from rich.console import Console
from rich.table import Table

from .measure import Timing


@dataclass(frozen=True)
class Line:
    """A figure, what it is held against, and the most that it may be.

    Attributes:
        name: What was measured.
        seconds: Its time.
        value, unit: A figure that is not a time (megabytes, buffers).
        peer: What the ratio is taken to.
        ratio: Its time over the peer's.
        limit: The target, on the ratio where there is one, else on ``value``.
        note: Why there is no figure, or what to know about it.
    """

    name: str
    seconds: Timing | None = None
    value: float | None = None
    unit: str = ""
    peer: str | None = None
    ratio: Timing | None = None
    limit: float | None = None
    note: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the target is met, by the median; None without one."""
        measured = self.ratio.median if self.ratio is not None else self.value
        return None if self.limit is None or measured is None else measured <= self.limit

    def to_json(self) -> dict[str, object]:
        return {k: v for k, v in {**asdict(self), "met": self.met}.items() if v not in (None, "")}


def show(console: Console, case: str, lines: list[Line]) -> None:
    table = Table(title=case, title_justify="left")
    for column in ("", "median", "p20 .. p80", "ratio", "p20 .. p80", "to", "target", ""):
        table.add_column(column, justify="left" if column in ("", "to") else "right")
    for line in lines:
        middle = spread = ""
        if line.seconds is not None:
            middle, spread = _time(line.seconds.median), f"{_time(line.seconds.p20)} .. {_time(line.seconds.p80)}"
        if line.value is not None:
            middle = f"{line.value:.3g} {line.unit}"
        over, of = ("", "") if line.ratio is None else (f"{line.ratio.median:.2f}", f"{line.ratio.p20:.2f} .. {line.ratio.p80:.2f}")
        target = "" if line.limit is None else f"{line.limit:g} " + {True: "met", False: "[bold red]missed[/]", None: ""}[line.met]
        table.add_row(line.name, middle, spread, over, of, line.peer or "", target, line.note)
    console.print(table)


def _time(seconds: float) -> str:
    for unit, scale in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if seconds >= scale:
            return f"{seconds / scale:.3g} {unit}"
    return f"{seconds / 1e-9:.3g} ns"
