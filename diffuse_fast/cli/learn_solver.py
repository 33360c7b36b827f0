"""``diffuse-fast learn-solver``: learn plans for a model and store them in its artifact."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer


def learn_solver(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="An artifact (.onnx), or a bundled model: digits.")],
    steps: Annotated[list[int], typer.Option(help="Steps of the plan. May be repeated, for one plan each.")],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="The .onnx to write with the plans. [default: MODEL itself]")
    ] = None,
    samples: Annotated[int | None, typer.Option(help="Samples to learn from.", show_default="256")] = None,
    held_out: Annotated[int | None, typer.Option(help="Samples for the printed distances.", show_default="512")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the samples.", show_default="0")] = None,
    history: Annotated[int | None, typer.Option(help="Number of past data predictions in a row.", show_default="4")] = None,
    iterations: Annotated[int | None, typer.Option(help="Maximum iterations of the fit.", show_default="10")] = None,
    reference_steps: Annotated[int | None, typer.Option(help="Steps of the fine solver.", show_default="200")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Samples per network call.", show_default="64")] = None,
    runtime: Annotated[str, typer.Option(help="Runtime of the network.")] = "auto",
) -> None:
    """Learn a solver of few steps for a model; `sample --solver learned` uses it.

    First every hand-made solver is tried with every spacing (hundreds of short runs, on 32 samples); the fit starts from the best.

    The printed figures are RMS distances to the result of a fine solver from the same noise, on held-out samples.

    Example: diffuse-fast learn-solver digits --steps 5 --steps 8 --out digits.onnx
    """
    from ..console import say
    from ..learning.learn import learn_each
    from ..model import bundled, load
    from .tables import show

    if out is None and model in bundled() and not Path(model).exists():
        raise typer.BadParameter(f"{model} is bundled with the package; give --out for the copy with the plans.")
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
