"""The logs of a run: ``log.csv`` (one line per ``log_every`` steps), ``metrics.csv``, TensorBoard's files."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...errors import MissingDependencyError, OutputError, install_hint
from ...files import replacing

LOG = ("step", "loss", "gradient_norm", "learning_rate", "samples_per_second", "seconds")
METRICS = ("step", "metric", "value")


class Logs:
    """Writes the logs of a run. A resumed run drops the lines after its checkpoint, because it repeats those steps.

    Args:
        folder: Folder of the logs; None writes nothing.
        start: The step of the checkpoint that the run resumes from, or 0.
        tensorboard: Write event files too.

    Raises:
        OutputError: a file cannot be written. MissingDependencyError: ``tensorboard`` is not installed.
    """

    def __init__(self, folder: Path | None, start: int, *, tensorboard: bool):
        self._folder = folder
        self._writer: Any = None
        if folder is None:
            return
        for name, columns in (("log.csv", LOG), ("metrics.csv", METRICS)):
            _begin(folder / name, columns, start)
        if tensorboard:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError as error:
                text = f"tensorboard is not installed ({error}): {install_hint('tensorboard')}"
                raise MissingDependencyError(text) from None
            self._writer = SummaryWriter(str(folder / "tensorboard"), purge_step=start + 1)

    def line(self, values: Mapping[str, float]) -> None:
        """Write a line of ``log.csv``: the values of :data:`LOG`."""
        self._append("log.csv", [[values[name] for name in LOG]])
        self._scalars("train", int(values["step"]), {name: values[name] for name in LOG[1:5]})

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Write lines of ``metrics.csv``."""
        self._append("metrics.csv", [[step, name, value] for name, value in values.items()])
        self._scalars("metrics", step, values)

    def image(self, step: int, levels: Any) -> None:
        """Write a grid of samples, (H, W) or (H, W, 3) uint8, to TensorBoard."""
        if self._writer is not None:
            self._writer.add_image("samples", levels, step, dataformats="HW" if levels.ndim == 2 else "HWC")

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()

    def _append(self, name: str, rows: list[list[Any]]) -> None:
        if self._folder is None:
            return
        try:
            with open(self._folder / name, "a", newline="", encoding="utf-8") as file:
                csv.writer(file).writerows([f"{v:.7g}" if isinstance(v, float) else v for v in row] for row in rows)
        except OSError as error:
            raise OutputError(f"cannot write {str(self._folder / name)!r}: {error.strerror or error}.") from error

    def _scalars(self, group: str, step: int, values: Mapping[str, float]) -> None:
        if self._writer is not None:
            for name, value in values.items():
                self._writer.add_scalar(f"{group}/{name}", value, step)


def _begin(path: Path, columns: tuple[str, ...], start: int) -> None:
    """Begin a table: the header, and the existing lines up to a step."""
    rows: list[list[str]] = []
    if start and path.exists():
        with open(path, newline="", encoding="utf-8") as file:
            rows = [row for row in csv.reader(file) if len(row) == len(columns) and row[0].isdigit() and int(row[0]) <= start]
    with replacing(path) as partial, open(partial, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([columns, *rows])
