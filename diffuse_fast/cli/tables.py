"""Tables on standard output, without markup: a shape such as [2, 3] is text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

WIDTH = 160  # of piped output, so that a checksum is not split


def show(title: str, rows: Iterable[Sequence[Any]], header: Sequence[str] | None = None) -> None:
    """Print rows under a title; without a header, the first column is the name of the row."""
    table = Table(box=box.SIMPLE_HEAD, show_header=header is not None, pad_edge=False)
    rows = [["" if cell is None else str(cell) for cell in row] for row in rows]
    for name in header or [""] * max(map(len, rows), default=1):
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*row)
    console = Console(markup=False, highlight=False, emoji=False)
    if not console.is_terminal:
        console.width = WIDTH
    console.print(title, style="bold")
    console.print(table)
