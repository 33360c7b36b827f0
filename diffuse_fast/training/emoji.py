"""The recipe of a model of small colour drawings: from Twemoji's emoji to an artifact with a model card, in one command.

    python -m diffuse_fast.training.emoji --out out/emoji

It writes ``emoji.onnx``, ``emoji.md`` (the card), ``emoji.json`` (recipe, losses, quality) and ``emoji.png`` (samples);
checkpoints, logs and sample grids of the run lie beside them. A run that was killed goes on when the command is given again.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..console import degrade, say, silent
from ..engine import sample
from ..errors import DiffuseFastError
from ..files import replacing
from ..image_grid import grid, png
from ..model import Model, load, to_uint8
from .config.recipe import Recipe, recipe, run
from .data import Source, Split
from .data.emoji import ATTRIBUTION, CLASSES, LICENSE, PACKAGE
from .digits import write
from .evaluation.classifier import train_judge
from .evaluation.image_quality import Quality, evaluate

NAME = "emoji"
COMMAND = "python -m diffuse_fast.training.emoji --out out/emoji"
SETTINGS: dict[str, dict[str, Any]] = {
    "data": {"kind": "emoji", "held_out": 0.1},
    "network": {"type": "UNet", "channels": 32, "multipliers": [1, 2, 2], "blocks": 1, "groups": 8},
    "schedule": {"type": "cosine"},
    "train": {
        "steps": 3000, "batch_size": 32, "prediction_type": "v_prediction", "learning_rate": 2e-3, "precision": "bfloat16",
        "ema_decay": 0.998, "checkpoint_every": 200, "evaluate_every": 500, "sample_every": 500, "log_every": 25,
    },
    "artifact": {"name": NAME, "license": LICENSE},
}  # fmt: skip
JUDGE_PASSES = 10
JUDGED_STEPS = (20, 50)
DRAWN, DRAWN_STEPS, DRAWN_SOLVER = 8, 30, "unipc"  # of every class, for emoji.png


def train_emoji(
    out: str | os.PathLike[str], *, steps: int | None = None, archive: str | os.PathLike[str] | None = None, progress: bool = True
) -> Model:
    """Train the model of the emoji, export it, measure it, and write its card.

    Args:
        out: A folder, made if it is not there; a run in it goes on.
        steps: Optimizer steps; those of the card unless given. More are better.
        archive: As of :func:`diffuse_fast.training.data.emoji`.
        progress: Show a progress bar, and a line before each part of the work beside it.

    Returns:
        The artifact ``out/emoji.onnx``, loaded.

    Raises:
        ArgumentError: the folder has a run with other settings, or the archive is another one. DownloadError: npm cannot fetch it.
        OutputError: ``out`` cannot be written. TrainingError, ExportError: training or export failed.
    """
    settings = {section: dict(content) for section, content in SETTINGS.items()}
    if steps is not None:
        settings["train"]["steps"] = steps
    if archive is not None:
        settings["data"]["archive"] = os.fspath(archive)
    told = say if progress else silent
    told("reading the drawings")
    made = recipe(settings)
    run(made, out, resume=True, progress=progress)
    return publish(made, Path(out), told)


def publish(made: Recipe, folder: Path, progress: Callable[[str], None] = silent) -> Model:
    """Measure the artifact of a run that has ended, and write card, figures and samples beside it."""
    path = folder / f"{NAME}.onnx"
    model = load(path)
    assert made.held_out is not None
    split = Split(*_whole(made.source), *_whole(made.held_out))
    progress(f"training the judge on {len(split.labels):,} drawings")
    judge = train_judge(split.images, split.labels, passes=JUDGE_PASSES)
    progress(f"drawing {len(split.held_out_labels)} images in {' and in '.join(map(str, JUDGED_STEPS))} steps")
    report = {
        "name": NAME,
        "license": LICENSE,
        "attribution": ATTRIBUTION,
        "bytes": path.stat().st_size,
        "parameters": sum(p.numel() for p in made.network.parameters()),
        "recipe": {"command": COMMAND, "package": PACKAGE, **model.training},
        "loss": {"training": _last(folder / "log.csv", 1), "held_out": _last(folder / "metrics.csv", 2)},
        "quality": [dataclasses.asdict(row) for row in evaluate(model, split, steps=JUDGED_STEPS, judge=judge)],
        "nearest": _nearest(model, split),
        "held_out": len(made.held_out),
    }
    labels = np.repeat(np.arange(len(CLASSES)), DRAWN)
    x = sample(model, len(labels), DRAWN_STEPS, solver=DRAWN_SOLVER, seed=0, cond={"label": labels})
    with replacing(folder / f"{NAME}.png") as partial:
        partial.write_bytes(png(grid(to_uint8(x, model), columns=DRAWN)))
    write(folder / f"{NAME}.json", json.dumps(report, indent=1) + "\n")
    write(folder / f"{NAME}.md", card(report))
    return model


def _whole(source: Source) -> tuple[np.ndarray, np.ndarray]:
    images, labels = source.fetch(range(len(source)))
    assert labels is not None
    return images.numpy(), labels.numpy()


def _last(path: Path, column: int) -> float:
    """The last figure in a column of a log."""
    return float(path.read_text(encoding="utf-8").splitlines()[-1].split(",")[column])


def _nearest(model: Model, split: Split) -> dict[str, float]:
    """Median Euclidean distance to the nearest training image, in [-1, 1] per pixel, of drawn images and of held-out ones."""
    labels = split.held_out_labels
    drawn = sample(model, len(labels), JUDGED_STEPS[0], seed=0, cond={"label": labels})
    real = torch.from_numpy(split.images).flatten(1)

    def median(images: np.ndarray) -> float:
        distances = torch.cdist(torch.from_numpy(np.ascontiguousarray(images)).flatten(1), real).min(dim=1).values
        return round(float(distances.median()), 2)

    return {"drawn": median(np.asarray(drawn)), "held_out": median(split.held_out_images)}


def card(report: dict[str, Any]) -> str:
    """The model card, Markdown, from the figures in ``emoji.json``."""
    recipe, loss, nearest = report["recipe"], report["loss"], report["nearest"]
    config = recipe["config"]
    passes = config["steps"] * config["batch_size"] / recipe["samples"]
    how = f"{config['steps']:,} steps of {config['batch_size']} ({passes:.0f} passes over the data), {config['precision']}"
    return f"""# emoji

A class-conditional diffusion model of small drawings in colour: 32x32 pixels, three channels, values in [-1, 1].

![{DRAWN} samples of each class]({NAME}.png)

The rows are its classes: {", ".join(CLASSES)}. {DRAWN_STEPS} steps of `{DRAWN_SOLVER}`, seed 0, none picked out.

| | |
|---|---|
| network | `df.nn.UNet`, {report["parameters"]:,} parameters, {report["bytes"] / 1e6:.1f} MB in float32 |
| schedule, prediction type | cosine, `{config["prediction_type"]}`, clip [-1, 1] |
| conditioning | `label`, 0 to {len(CLASSES) - 1}; {len(CLASSES)} is the null class |
| data | drawings in `{recipe["package"]}` without variants by skin tone: {recipe["samples"]:,}, and {report["held_out"]} held out |
| training | {how}, seed {config["seed"]}; {recipe["seconds"] / 60:.0f} minutes |
| loss (v) | {loss["training"]:.4f} on the training drawings, {loss["held_out"]:.4f} held out |
| licence | {report["license"]}: {report["attribution"]} |

## Made by

    {recipe["command"]}

## Quality

A judge (three small classifiers trained on the training drawings) says which class it takes an image for, and gives the space
of the Fréchet distance, precision and recall to the training drawings. Solver `ddim`, as many images as are held out.

| images | steps | accuracy % | Fréchet distance | precision | recall |
|---|---:|---:|---:|---:|---:|
{_table([Quality(**row) for row in report["quality"]])}

The classes are of meaning and not of form, so the judge errs on real drawings too; {report["held_out"]} images are few for these
figures. The median distance to the nearest training drawing is {nearest["drawn"]:.1f} for what the model draws, and
{nearest["held_out"]:.1f} for held-out drawings.
"""


def _table(rows: Sequence[Quality]) -> str:
    return "\n".join(
        f"| {row.solver} | {row.steps or ''} | {row.accuracy:.1f} | {row.frechet_distance:.2f} | {row.precision:.2f} "
        f"| {row.recall:.2f} |"
        for row in rows
    )


def main(arguments: list[str] | None = None) -> None:
    """The command ``python -m diffuse_fast.training.emoji``."""
    parser = argparse.ArgumentParser(prog="python -m diffuse_fast.training.emoji", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--out", default=f"out/{NAME}", help="folder for the artifact, its card and its figures")
    parser.add_argument("--steps", type=int, default=SETTINGS["train"]["steps"])
    parser.add_argument("--archive", help=f"the file that `npm pack {PACKAGE}` writes, where npm is not to fetch it")
    given = parser.parse_args(arguments)
    degrade()
    try:
        train_emoji(given.out, steps=given.steps, archive=given.archive)
    except DiffuseFastError as error:
        raise SystemExit(str(error)) from error
    print((Path(given.out) / f"{NAME}.md").read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
