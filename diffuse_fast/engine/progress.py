"""The progress bar of sampling."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_log = logging.getLogger("diffuse_fast")


@contextmanager
def bar(show: bool, total: int) -> Iterator[Callable[[], None] | None]:
    """A bar over all rows: the function that advances it, or None where there is no bar."""
    if not show:
        yield None
        return
    try:
        from rich.console import Console
        from rich.progress import Progress
    except ImportError:
        _log.warning("progress=True needs rich: pip install 'diffuse-fast[cli]'")
        yield None
        return
    with Progress(console=Console(stderr=True)) as progress:  # what a program prints is its own
        task = progress.add_task("sampling", total=total)
        yield lambda: progress.advance(task)
