"""The progress of training: a bar on a terminal, else lines of text."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ...console import Interval, say

Report = Callable[[int, float], None]

# The loss of single steps is noisy, so its moving average is shown.
SMOOTHING = 0.98


@contextmanager
def progress_bar(steps: int, *, shown: bool, start: int = 0, batch_size: int = 1) -> Iterator[Report]:
    """Show loss, samples per second and remaining time. Call the function that it yields with each step (from ``start`` + 1)
    and its loss."""
    if not shown:
        yield lambda step, loss: None
        return
    smooth: float | None = None
    began = time.perf_counter()

    def average(loss: float) -> float:
        nonlocal smooth
        smooth = loss if smooth is None else SMOOTHING * smooth + (1.0 - SMOOTHING) * loss
        return smooth

    def speed(step: int) -> float:
        return (step - start) * batch_size / max(time.perf_counter() - began, 1e-9)

    try:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    except ImportError:
        Console = None  # type: ignore[assignment,misc]  # without rich

    if Console is None or not (console := Console(stderr=True)).is_terminal:
        due = Interval()

        def print_line(step: int, loss: float) -> None:
            loss = average(loss)
            if due() or step % max(1, steps // 20) == 0:
                rate = speed(step)
                left = (steps - step) * batch_size / rate
                say(f"step {step} of {steps}  loss {loss:.4f}  {rate:.4g} samples/s  {left:.0f} s left")

        yield print_line
        return

    columns = (
        TextColumn("training"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[status]}"), TimeElapsedColumn(),
        TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("training", total=steps, completed=start, status="")
        yield lambda step, loss: bar.update(task, completed=step, status=f"loss {average(loss):.4f} {speed(step):.4g} samples/s")
