"""``diffuse-fast train``: the recipe of the bundled model."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Any

import typer


def train(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the artifact, its card, its figures and the weights.")],
    steps: Annotated[int | None, typer.Option(help="Optimizer steps.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Samples per step.")] = None,
    prediction_type: Annotated[str | None, typer.Option(help="What to predict: epsilon, sample or v_prediction.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Of AdamW, after the warm-up.")] = None,
    warmup_steps: Annotated[int | None, typer.Option(help="Steps over which the learning rate rises.")] = None,
    ema_decay: Annotated[float | None, typer.Option(help="Decay of the moving average of the weights.")] = None,
    condition_dropout: Annotated[float | None, typer.Option(help="How often a label is left out, for guidance.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of everything random.")] = None,
    reuse: Annotated[
        bool, typer.Option("--reuse", help="Take the weights an earlier run left in the folder, and measure again.")
    ] = False,
) -> None:
    """Train the digits model, export and measure it.

    It takes half an hour on one core. What is not given is as for the bundled model. Needs diffuse-fast[train].
    """
    from ..training.digits import CONFIG, NAME, train_digits

    given: dict[str, Any] = {
        "steps": steps,
        "batch_size": batch_size,
        "prediction_type": prediction_type,
        "learning_rate": learning_rate,
        "warmup_steps": warmup_steps,
        "ema_decay": ema_decay,
        "condition_dropout": condition_dropout,
        "seed": seed,
    }
    change = {name: value for name, value in given.items() if value is not None}
    if reuse and change:
        raise typer.BadParameter(f"--reuse trains nothing; leave out {', '.join(change)}.")
    train_digits(out, config=dataclasses.replace(CONFIG, **change), reuse=reuse)
    typer.echo((out / f"{NAME}.md").read_text(encoding="utf-8"))
