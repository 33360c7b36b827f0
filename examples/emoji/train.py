"""Train a small model of colour drawings on Twemoji's emoji, measure it and write its model card.

    python examples/emoji/train.py --out out/emoji

It takes about an hour on one core; npm downloads the drawings. The results are ``emoji.onnx``, ``emoji.md`` (the card),
``emoji.json`` (recipe, losses, quality) and ``emoji.png`` (samples), beside the checkpoints, logs and sample grids of the run. The
same command resumes a run that was interrupted.
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

from diffuse_fast.console import degrade, say, silent
from diffuse_fast.engine.sample import sample
from diffuse_fast.errors import DiffuseFastError
from diffuse_fast.files import replacing
from diffuse_fast.image_grid import grid, png
from diffuse_fast.model import Model, load, to_uint8
from diffuse_fast.training.config.config_section import read_config
from diffuse_fast.training.config.recipe import Recipe, recipe, run
from diffuse_fast.training.data import Source, Split
from diffuse_fast.training.data.twemoji import ATTRIBUTION, CLASSES, LICENSE, PACKAGE
from diffuse_fast.training.evaluation import Quality, evaluate
from diffuse_fast.training.evaluation.classifier import train_classifier

NAME = "emoji"
COMMAND = "python examples/emoji/train.py --out out/emoji"
SETTINGS = read_config(Path(__file__).parent / "config.toml")
CLASSIFIER_PASSES = 10
EVALUATED_STEPS = (20, 50)
SAMPLES, SAMPLE_STEPS, SAMPLE_SOLVER = 8, 30, "unipc"  # of every class, for emoji.png


def train_emoji(
    out: str | os.PathLike[str], *, steps: int | None = None, archive: str | os.PathLike[str] | None = None, progress: bool = True
) -> Model:
    """Train the model, export it, measure it and write its card.

    Args:
        out: Folder of the run, made if it does not exist; a run in it is resumed.
        steps: Optimizer steps; default: those of ``config.toml``. More give a better model.
        archive: The npm package, where npm is not to download it; see :func:`diffuse_fast.training.data.emoji`.
        progress: Show a progress bar while training, and a line before each other part of the work.

    Returns:
        The artifact ``out/emoji.onnx``, loaded.

    Raises:
        ArgumentError: the folder has a run with other settings, or the archive is a wrong one.
        DownloadError: npm cannot download the package.
        OutputError: a file cannot be written.
        TrainingError, ExportError: training or export failed.
    """
    settings = {section: dict(content) for section, content in SETTINGS.items()}
    if steps is not None:
        settings["train"]["steps"] = steps
    if archive is not None:
        settings["data"]["archive"] = os.fspath(archive)
    report = say if progress else silent
    report("reading the drawings")
    made = recipe(settings)
    run(made, out, resume=True, progress=progress)
    return publish(made, Path(out), report)


def publish(made: Recipe, folder: Path, progress: Callable[[str], None] = silent) -> Model:
    """Measure the artifact of a finished run, and write its card, figures and samples."""
    path = folder / f"{NAME}.onnx"
    model = load(path)
    assert made.held_out is not None
    split = Split(*_arrays(made.source), *_arrays(made.held_out))
    progress(f"training the classifier on {len(split.labels):,} drawings")
    classifier = train_classifier(split.images, split.labels, passes=CLASSIFIER_PASSES)
    progress(f"sampling {len(split.held_out_labels)} images in {' and in '.join(map(str, EVALUATED_STEPS))} steps")
    rows = list(evaluate(model, split, steps=EVALUATED_STEPS, classifier=classifier))
    report = {
        "name": NAME,
        "license": LICENSE,
        "attribution": ATTRIBUTION,
        "bytes": path.stat().st_size,
        "parameters": sum(p.numel() for p in made.network.parameters()),
        "recipe": {"command": COMMAND, "package": PACKAGE, **model.training},
        "loss": {"training": _last(folder / "log.csv", 1), "held_out": _last(folder / "metrics.csv", 2)},
        "quality": [dataclasses.asdict(dataclasses.replace(row, accuracy_per_class=())) for row in rows],
        "nearest": {"drawn": round(rows[1].nearest, 2), "held_out": round(rows[0].nearest, 2)},
        "held_out": len(made.held_out),
    }
    labels = np.repeat(np.arange(len(CLASSES)), SAMPLES)
    x = sample(model, len(labels), SAMPLE_STEPS, solver=SAMPLE_SOLVER, seed=0, cond={"label": labels})
    with replacing(folder / f"{NAME}.png") as partial:
        partial.write_bytes(png(grid(to_uint8(x, model), columns=SAMPLES)))
    for suffix, text in (("json", json.dumps(report, indent=1) + "\n"), ("md", card(report))):
        with replacing(folder / f"{NAME}.{suffix}") as partial:
            partial.write_text(text, encoding="utf-8")
    return model


def _arrays(source: Source) -> tuple[np.ndarray, np.ndarray]:
    images, labels = source.fetch(range(len(source)))
    assert labels is not None
    return images.numpy(), labels.numpy()


def _last(path: Path, column: int) -> float:
    """The last value in a column of a log."""
    return float(path.read_text(encoding="utf-8").splitlines()[-1].split(",")[column])


def card(report: dict[str, Any]) -> str:
    """The model card, Markdown, from the figures in ``emoji.json``."""
    recipe, loss, nearest = report["recipe"], report["loss"], report["nearest"]
    config = recipe["config"]
    passes = config["steps"] * config["batch_size"] / recipe["samples"]
    how = f"{config['steps']:,} steps of {config['batch_size']} ({passes:.0f} passes over the data), {config['precision']}"
    return f"""# emoji

A class-conditional diffusion model of small drawings in colour: 32x32 pixels, three channels, values in [-1, 1].

![{SAMPLES} samples of each class]({NAME}.png)

The rows are its classes: {", ".join(CLASSES)}. {SAMPLE_STEPS} steps of `{SAMPLE_SOLVER}`, seed 0, not selected.

| | |
|---|---|
| network | `df.nn.UNet`, {report["parameters"]:,} parameters, {report["bytes"] / 1e6:.1f} MB in float32 |
| schedule, prediction type | cosine, `{config["prediction_type"]}`, clip [-1, 1] |
| conditioning | `label`, 0 to {len(CLASSES) - 1}; {len(CLASSES)} is the null class |
| data | drawings in `{recipe["package"]}` without variants by skin tone: {recipe["samples"]:,}, and {report["held_out"]} held out |
| training | {how}, seed {config["seed"]}; {recipe["seconds"] / 60:.0f} minutes |
| loss (v) | {loss["training"]:.4f} on the training drawings, {loss["held_out"]:.4f} held out |
| licence | {report["license"]}: {report["attribution"]} |

## How it was made

    {recipe["command"]}

## Quality

A classifier (an ensemble of three, trained on the training drawings) gives the accuracy, and the features for the Fréchet
distance, precision and recall to the training drawings. Solver `ddim`, as many images as are held out.

| images | steps | accuracy % | Fréchet distance | precision | recall |
|---|---:|---:|---:|---:|---:|
{_table([Quality(**row) for row in report["quality"]])}

The classes differ in meaning more than in form, so the classifier errs on real drawings too, and {report["held_out"]} images are
few for these figures. The median distance to the nearest training drawing is {nearest["drawn"]:.1f} for generated drawings and
{nearest["held_out"]:.1f} for held-out ones.
"""


def _table(rows: Sequence[Quality]) -> str:
    return "\n".join(
        f"| {row.solver} | {row.steps or ''} | {row.accuracy:.1f} | {row.frechet_distance:.2f} | {row.precision:.2f} "
        f"| {row.recall:.2f} |"
        for row in rows
    )


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python examples/emoji/train.py", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--out", default=f"out/{NAME}", help="folder of the run, the artifact, its card and its figures")
    parser.add_argument("--steps", type=int, default=SETTINGS["train"]["steps"], help="optimizer steps")
    parser.add_argument("--archive", help=f"the file that `npm pack {PACKAGE}` writes, where npm is not to download it")
    given = parser.parse_args(arguments)
    degrade()
    try:
        train_emoji(given.out, steps=given.steps, archive=given.archive)
    except DiffuseFastError as error:
        raise SystemExit(str(error)) from error
    print((Path(given.out) / f"{NAME}.md").read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
