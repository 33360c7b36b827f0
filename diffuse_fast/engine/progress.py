"""The progress bar of sampling."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ..errors import RuntimeUnavailableError


@contextmanager
def bar(show: bool, total: int) -> Iterator[Callable[[], None] | None]:
    """A bar over all rows: the function that advances it, or None where there is no bar."""
    if not show:
        yield None
        return
    try:
        from rich.progress import Progress
    except ImportError:
        raise RuntimeUnavailableError("progress=True needs rich: pip install 'diffuse-fast[cli]'") from None
    with Progress() as progress:
        task = progress.add_task("sampling", total=total)
        yield lambda: progress.advance(task)
