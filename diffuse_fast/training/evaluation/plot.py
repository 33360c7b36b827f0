"""Plot the figures of :mod:`.image_quality`: one row of dots per solver, one dot per number of network calls."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...errors import MissingDependencyError, OutputError, install_hint
from ...files import replacing
from .image_quality import REAL, Quality


def needs_matplotlib() -> None:
    """Check that plots can be drawn.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    try:
        import matplotlib.figure  # noqa: F401  (checked before anything is measured)
    except ImportError as error:
        raise MissingDependencyError(f"the plot needs matplotlib: {install_hint('evaluate')}") from error


def plot(rows: Sequence[Quality], path: Path, title: str) -> None:
    """Draw the Fréchet distance and the accuracy of every solver; the colour of a dot is the number of network calls.

    The solver with the smallest distance is at the top. A vertical line marks the real images. Outliers are written as numbers
    at the edge.

    Raises:
        MissingDependencyError: matplotlib is not installed. OutputError: the file cannot be written.
    """
    needs_matplotlib()
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import LogNorm
    from matplotlib.figure import Figure

    drawn = [row for row in rows if row.solver != REAL]
    real = next((row for row in rows if row.solver == REAL), None)
    names = sorted({row.label for row in drawn}, key=lambda name: (-_best(drawn, name), name))  # from the bottom
    calls = sorted({row.nfe for row in drawn}) or [1]
    colours = ScalarMappable(LogNorm(calls[0], max(calls[-1], calls[0] + 1)), "viridis_r")
    figure = Figure(figsize=(11, 2.0 + 0.24 * len(names)), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    distances, accuracies = [row.frechet_distance for row in drawn], [row.accuracy for row in drawn]
    # Errors below half a per cent are not significant.
    most = 5.0 * statistics.median(distances or [1.0])
    least = 100.0 - 10.0 * max(0.5, statistics.median(100.0 - a for a in accuracies or [100.0]))
    left.set_xscale("log")
    for panel, values, limit, sign in ((left, distances, most, 1), (right, accuracies, least, -1)):
        for height, name in enumerate(names):
            own = [(row.nfe, value) for row, value in zip(drawn, values, strict=True) if row.label == name]
            _row(panel, height, sorted(own), limit, sign, colours)
        if any(sign * value > sign * limit for value in values):
            panel.set_xlim(**{"right" if sign > 0 else "left": limit})
        panel.grid(alpha=0.3)
    if real is not None:
        left.axvline(real.frechet_distance, color="black", linewidth=0.8, linestyle="-.")
        right.axvline(real.accuracy, color="black", linewidth=0.8, linestyle="-.", label=REAL)
        right.legend(loc="lower left", fontsize="small")
    left.set(xlabel="Fréchet distance to the training images", yticks=range(len(names)), yticklabels=names)
    right.set(xlabel="recognised as the class asked for, %")
    wide = min(most, max(distances, default=1.0)) > 20 * min(distances, default=1.0)
    _plain_ticks(left.xaxis, (1, 2, 5) if wide else (1, 1.5, 2, 3, 4, 5, 6, 7, 8, 9))
    bar = figure.colorbar(colours, ax=right, label="network calls (NFE)")
    _plain_ticks(bar.ax.yaxis, (1, 2, 5))
    figure.suptitle(title)
    try:
        with replacing(path) as partial:
            figure.savefig(partial, format="png", dpi=110)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error}") from error


def _best(rows: Sequence[Quality], name: str) -> float:
    return min(row.frechet_distance for row in rows if row.label == name)


def _row(panel: Any, height: int, points: list[tuple[int, float]], limit: float, sign: int, colours: Any) -> None:
    """Draw the dots of a solver at ``points``, pairs of calls and value; those beyond the limit become numbers at the edge."""
    inside = [(nfe, value) for nfe, value in points if sign * value <= sign * limit]
    beyond = [f"{value:.3g}" for _, value in points if sign * value > sign * limit]
    x, y = [value for _, value in inside], [height] * len(inside)
    panel.plot(x, y, color="0.8", linewidth=1.0, zorder=1)
    panel.scatter(x, y, s=22, c=[colours.to_rgba(nfe) for nfe, _ in inside], zorder=2)
    if beyond:
        text, align = (f"{', '.join(beyond)} →", "right") if sign > 0 else (f"← {', '.join(beyond)}", "left")
        panel.annotate(text, (limit, height), fontsize=7, va="center", ha=align)


def _plain_ticks(axis: Any, of_a_decade: tuple[float, ...]) -> None:
    """Label a logarithmic axis with plain numbers."""
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    axis.set_major_locator(LogLocator(subs=of_a_decade, numticks=99))
    axis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.set_minor_formatter(NullFormatter())
