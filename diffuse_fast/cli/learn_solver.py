"""``diffuse-fast learn-solver``: a plan learned for a model, stored in its artifact."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def learn_solver(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="An artifact (.onnx), or a bundled model: digits.")],
    steps: Annotated[list[int], typer.Option(help="Steps of the plan. May be repeated: a plan for each.")],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="The .onnx to write, with the plans in it; MODEL itself unless given.")
    ] = None,
    samples: Annotated[int, typer.Option(help="Samples to learn from.")] = 256,
    held_out: Annotated[int, typer.Option(help="Samples for the distances that are shown.")] = 512,
    seed: Annotated[int, typer.Option(help="Of the samples.")] = 0,
    history: Annotated[int | None, typer.Option(help="Data predictions that a row looks back to.")] = None,
    iterations: Annotated[int, typer.Option(help="Of the fit, at most.")] = 10,
    reference_steps: Annotated[int, typer.Option(help="Steps of the fine solver.")] = 200,
    batch_size: Annotated[int, typer.Option(help="Samples per network call.")] = 64,
    runtime: Annotated[str, typer.Option(help="What runs the network.")] = "auto",
) -> None:
    """Learn a solver of few steps for a model: `sample --solver learned` then takes it.

    Shown are RMS distances to where a fine solver lands from the same noise, on samples that were not learned from.

    Example: diffuse-fast learn-solver digits --steps 5 --steps 8 --out digits.onnx
    """
    from ..learning.learn import HISTORY, learn_each
    from ..model import bundled, load
    from .tables import show

    if out is None and model in bundled() and not Path(model).exists():
        raise typer.BadParameter(f"{model} comes with the package; say with --out where its copy with the plans shall be.")
    loaded = load(model)
    target = loaded.path if out is None else out
    counts = list(dict.fromkeys(steps))
    results = learn_each(
        loaded, counts, out=target, samples=samples, held_out=held_out, seed=seed, cond=None, shape=None, schedule=None,
        prediction_type=None, clip=None, history=HISTORY if history is None else history, iterations=iterations,
        reference_steps=reference_steps, batch_size=batch_size, runtime=runtime,
        progress=lambda line: typer.echo(line, err=True),
    )  # fmt: skip
    for count, learned in zip(counts, results, strict=True):
        show(
            f"{loaded.name}, {count} steps",
            [(name, f"{distance:.4f}", f"{ratio:.2f}") for name, distance, ratio in learned.table()],
            ("solver", "RMS distance", "learned / this"),
        )
    typer.echo(f"{target}: learned plans of {', '.join(str(plan.steps) for plan in load(target).plans)} steps")
