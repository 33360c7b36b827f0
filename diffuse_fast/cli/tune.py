"""``diffuse-fast tune``: find the fastest way to run a model on this machine, and store it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from ..tuning import Candidate


def tune(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="An artifact (.onnx), or a bundled model: digits.")],
    batch_size: Annotated[
        list[int] | None, typer.Option(help="Samples per network call. May be repeated. [default: 1, 16]")
    ] = None,
    precision: Annotated[list[str] | None, typer.Option(help="Allowed precision. May be repeated. [default: float32]")] = None,
    runtime: Annotated[list[str] | None, typer.Option(help="A runtime to try. May be repeated. [default: all installed]")] = None,
    seconds: Annotated[float, typer.Option(help="Time per batch size and precision; up to 15 times that for slow calls.")] = 4.0,
    max_error: Annotated[float, typer.Option(help="Maximum relative error of other precisions than float32.")] = 0.05,
) -> None:
    """Time the ways to run a model on this machine and store the fastest, which `--runtime auto` then uses.

    Example: diffuse-fast tune digits --batch-size 1 --batch-size 64
    """
    from ..console import say
    from ..runtimes.tuning_cache import ENVIRONMENT
    from ..tuning import tune as find
    from .tables import show

    tuning = find(
        model,
        batch_size or (1, 16),
        precisions=precision or ("float32",),
        runtimes=runtime,
        seconds=seconds,
        max_error=max_error,
        progress=say,
    )
    for name, by_batch in tuning.best.items():
        for size, won in by_batch.items():
            show(
                f"{model}, batch {size}, {name}",
                [_row(c, c.choice == won) for c in tuning.candidates if (c.choice.precision, c.batch) == (name, size)],
                ("", "runtime", "threads", "median ms", "20 to 80 %", "over the default", "faster in", "error"),
            )
            print(f"→ {won.why}")
    print(f"stored in {tuning.file}" if tuning.file else f"not stored: {ENVIRONMENT} is off, or there is no home folder")


def _row(c: Candidate, won: bool) -> tuple[object, ...]:
    way = ("→" if won else "", c.choice.runtime, c.choice.threads)
    if c.refused is not None:
        return (*way, "", "", "", "", c.refused)
    over = ("the default", f"{c.turns} rounds") if c.default else (f"{c.gain:.2f}x", f"{c.won} of {c.turns}")
    return (*way, f"{c.choice.seconds * 1e3:.3f}", f"{c.p20 * 1e3:.3f} to {c.p80 * 1e3:.3f}", *over, f"{c.error:.1e}")
