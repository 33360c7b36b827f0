"""Postpone Ctrl-C and SIGTERM to the end of a training step, so that a checkpoint can be written."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

DEFAULTS: dict[int, Any] = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}


@contextmanager
def postponed(wanted: bool) -> Iterator[list[int]]:
    """Collect signals in the list that it yields. A second signal of the same kind acts at once.

    Only signals with their default handlers are postponed, and only in the main thread, where Python handles signals.
    """
    caught: list[int] = []

    def note(number: int, frame: object) -> None:
        caught.append(number)
        signal.signal(number, DEFAULTS[number])

    taken = []
    if wanted and threading.current_thread() is threading.main_thread():
        taken = [number for number, default in DEFAULTS.items() if signal.getsignal(number) == default]
    try:
        for number in taken:
            signal.signal(number, note)
        yield caught
    finally:
        for number in taken:
            signal.signal(number, DEFAULTS[number])
