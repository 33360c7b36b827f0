"""Show the progress of sampling: a bar on a terminal, elsewhere a line now and then."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ..console import Interval, say


@contextmanager
def bar(show: bool, total: int) -> Iterator[Callable[[], None] | None]:
    """Show a bar over all rows. Yields the function that advances it, or None if nothing is shown."""
    if not show:
        yield None
        return
    try:
        from rich.console import Console
        from rich.progress import Progress
    except ImportError:
        yield _lines(total)
        return
    console = Console(stderr=True)  # standard output is the program's
    if not (console.is_terminal or console.is_jupyter):
        yield _lines(total)
        return
    with Progress(console=console) as progress:
        task = progress.add_task("sampling", total=total)
        yield lambda: progress.advance(task)


def _lines(total: int) -> Callable[[], None]:
    began, done, due = time.monotonic(), 0, Interval()

    def advance() -> None:
        nonlocal done
        done += 1
        if due():
            left = (time.monotonic() - began) * (total - done) / done
            say(f"sampling: row {done} of {total}, {left:.0f} s left")

    return advance
