"""``diffuse-fast learn-solver``: a plan learned for a model, stored in its artifact."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer


def learn_solver(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="An artifact (.onnx), or a bundled model: digits.")],
    steps: Annotated[list[int], typer.Option(help="Steps of the plan. May be repeated: a plan for each.")],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="The .onnx to write, with the plans in it; MODEL itself unless given.")
    ] = None,
    samples: Annotated[int | None, typer.Option(help="Samples to learn from.", show_default="256")] = None,
    held_out: Annotated[int | None, typer.Option(help="Samples for the distances that are shown.", show_default="512")] = None,
    seed: Annotated[int | None, typer.Option(help="Of the samples.", show_default="0")] = None,
    history: Annotated[int | None, typer.Option(help="Data predictions that a row looks back to.", show_default="4")] = None,
    iterations: Annotated[int | None, typer.Option(help="Of the fit, at most.", show_default="10")] = None,
    reference_steps: Annotated[int | None, typer.Option(help="Steps of the fine solver.", show_default="200")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Samples per network call.", show_default="64")] = None,
    runtime: Annotated[str, typer.Option(help="What runs the network.")] = "auto",
) -> None:
    """Learn a solver of few steps for a model: `sample --solver learned` then takes it.

    First every hand-made solver is tried on every spacing (on 32 samples; that alone is hundreds of short runs), then the best are
    the start of a fit.

    Shown are RMS distances to where a fine solver lands from the same noise, on samples that were not learned from.

    Example: diffuse-fast learn-solver digits --steps 5 --steps 8 --out digits.onnx
    """
    from ..console import say
    from ..learning.learn import learn_each
    from ..model import bundled, load
    from .tables import show

    if out is None and model in bundled() and not Path(model).exists():
        raise typer.BadParameter(f"{model} comes with the package; say with --out where its copy with the plans shall be.")
    loaded = load(model)
    target = loaded.path if out is None else out
    given: dict[str, Any] = {
        "samples": samples,
        "held_out": held_out,
        "seed": seed,
        "history": history,
        "iterations": iterations,
        "reference_steps": reference_steps,
        "batch_size": batch_size,
    }
    counts = list(dict.fromkeys(steps))
    results = learn_each(
        loaded,
        counts,
        out=target,
        runtime=runtime,
        progress=say,
        **{name: value for name, value in given.items() if value is not None},
    )
    for count, learned in zip(counts, results, strict=True):
        show(
            f"{loaded.name}, {count} steps",
            [(name, f"{distance:.4f}", f"{ratio:.2f}") for name, distance, ratio in learned.table()],
            ("solver", "RMS distance", "learned / this"),
        )
    print(f"{target}: learned plans of {', '.join(str(plan.steps) for plan in load(target).plans)} steps")
