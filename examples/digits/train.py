"""Train the bundled digits model, learn few-step solvers for it, measure it and write its model card.

    python examples/digits/train.py --out out/digits

Training takes about a quarter of an hour on one core, and learning the solvers as long again. The results are ``digits.onnx``,
``digits.md`` (the card) and ``digits.json`` (recipe, losses, quality), beside the checkpoints and logs of the run. The same command
resumes a run that was interrupted; after a finished run it makes the artifact and the card again without training.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from diffuse_fast.console import degrade, say, silent
from diffuse_fast.errors import DiffuseFastError, OutputError
from diffuse_fast.files import replacing, writable
from diffuse_fast.learning.learn import HELD_OUT, learn_each
from diffuse_fast.model import Model, load
from diffuse_fast.schedule import Schedule
from diffuse_fast.training.config.config_section import read_config
from diffuse_fast.training.config.recipe import Recipe, recipe, run
from diffuse_fast.training.config.train_config import TrainConfig
from diffuse_fast.training.data import Split, digits
from diffuse_fast.training.evaluation import Quality, evaluate
from diffuse_fast.training.objectives import ForwardProcess, evaluate_loss
from diffuse_fast.training.run import checkpoint
from diffuse_fast.training.run.state import restore

NAME = "digits"
COMMAND = "python examples/digits/train.py --out out/digits"
SETTINGS = read_config(Path(__file__).parent / "config.toml")
CONFIG = TrainConfig(**SETTINGS["train"])
SCHEDULE = Schedule.cosine()
LEARNED_STEPS = (5, 6, 8)
STEPS, GUIDANCE_SCALES, SETS, SEED = 20, (1.0, 1.5, 2.0), 10, 0  # of the card's table
EVALUATE_COMMAND = (
    f"diffuse-fast evaluate {NAME} --steps {STEPS} {' '.join(f'--guidance-scale {s:g}' for s in GUIDANCE_SCALES)} --sets {SETS}"
    " --out out/quality"
)
LEARN_COMMAND = f"diffuse-fast learn-solver {NAME} {' '.join(f'--steps {n}' for n in LEARNED_STEPS)} --out {NAME}.onnx"


def train_digits(out: str | os.PathLike[str], *, steps: int | None = None, seed: int | None = None, progress: bool = True) -> Model:
    """Train the model, export it, measure it and write its card.

    Args:
        out: Folder of the run, made if it does not exist; a run in it is resumed.
        steps: Optimizer steps; default: those of ``config.toml``.
        seed: Seed of the run; default: that of ``config.toml``.
        progress: Show a progress bar while training, and a line before each later part of the work.

    Returns:
        The artifact ``out/digits.onnx``, loaded.

    Raises:
        ArgumentError: the folder has a run with other settings.
        OutputError: a file cannot be written.
        TrainingError, ExportError: training or export failed.
    """
    folder = Path(out)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot make the folder {folder}: {error}") from error
    for suffix in ("onnx", "json", "md"):  # before the training, not after a quarter of an hour
        writable(folder / f"{NAME}.{suffix}")
    given = {name: value for name, value in {"steps": steps, "seed": seed}.items() if value is not None}
    made = recipe({**SETTINGS, "train": {**SETTINGS["train"], **given}})
    run(made, folder, resume=True, progress=progress)
    return publish(made, folder, say if progress else silent)


def publish(made: Recipe, folder: Path, progress: Callable[[str], None] = silent) -> Model:
    """Learn solvers for the artifact of a finished run, measure it, and write its card and figures."""
    path = folder / f"{NAME}.onnx"
    learned = learn_solvers(path, progress)
    model = load(path)
    kept = checkpoint.newest(folder)
    assert kept is not None
    restore(made.network, made.objective, kept.tensors)
    split = digits()
    report = {
        "name": NAME,
        "license": model.license,
        "bytes": path.stat().st_size,
        "schedule": SCHEDULE.to_json(),
        "recipe": {
            "command": COMMAND,
            "data": "scikit-learn load_digits, stratified training split of 1,437 images",
            **model.training,
            "losses": [float(f"{part.mean():.5g}") for part in kept.tensors["losses"].tensor_split(50) if len(part)],
            "parameters": sum(p.numel() for p in made.network.parameters()),
            "threads": torch.get_num_threads(),
        },
        "loss": final_losses(made.network.eval(), split),
        "learned": learned,
        "quality": measured(model, split, progress),
    }
    for suffix, text in (("json", json.dumps(report, indent=1) + "\n"), ("md", card(report))):
        with replacing(folder / f"{NAME}.{suffix}") as partial:
            partial.write_text(text, encoding="utf-8")
    return model


def learn_solvers(path: Path, progress: Callable[[str], None] = silent) -> list[dict[str, Any]]:
    """Learn plans of :data:`LEARNED_STEPS` steps into the artifact. Returns their held-out RMS distances to the fine solver."""
    return [
        {
            "steps": learned.plan.steps,
            "learned": round(learned.distance, 4),
            "best": {"solver": learned.best.name, "distance": round(learned.best.distance, 4)},
            "best_default": {"solver": learned.best_default.name, "distance": round(learned.best_default.distance, 4)},
        }
        for learned in learn_each(path, LEARNED_STEPS, out=path, progress=progress)
    ]


def final_losses(network: torch.nn.Module, split: Split) -> dict[str, float]:
    """The simple loss of the network on the training and the held-out split, at seeded times and noises."""
    process = ForwardProcess(SCHEDULE, CONFIG.prediction_type)
    parts = {"training": (split.images, split.labels, 8), "held_out": (split.held_out_images, split.held_out_labels, 32)}
    return {
        name: round(evaluate_loss(network, torch.from_numpy(x), torch.from_numpy(y), process, draws=draws, seed=1), 4)
        for name, (x, y, draws) in parts.items()
    }


def measured(model: Model, split: Split, progress: Callable[[str], None] = silent) -> dict[str, Any]:
    """The quality of the model's digits and of the held-out ones, as plain data."""
    progress("training the classifier")
    rows = evaluate(model, split, solvers=["ddim"], steps=[STEPS], guidance_scales=GUIDANCE_SCALES, sets=SETS, seed=SEED)
    real = next(rows)
    generated = []
    for row in rows:
        progress(f"{row.label}: {row.samples:,} digits measured")
        generated.append({"guidance_scale": row.guidance_scale, **figures(row)})
    return {
        "steps": STEPS, "solver": "ddim", "seed": SEED, "set_size": real.samples,
        "held_out": figures(real), "generated": generated,
    }  # fmt: skip


def figures(row: Quality) -> dict[str, Any]:
    """The columns of the card's table, rounded."""
    return {
        "samples": row.samples,
        "accuracy": round(row.accuracy, 2),
        "accuracy_per_class": [round(accuracy, 2) for accuracy in row.accuracy_per_class],
        "frechet_distance": round(row.frechet_distance, 3),
        "frechet_distance_std": round(row.frechet_distance_std, 3),
        "nearest": round(row.nearest, 3),
        "copies": row.copies,
    }


def card(report: dict[str, Any]) -> str:
    """The model card, Markdown, from the figures in ``digits.json``."""
    recipe, quality, loss = report["recipe"], report["quality"], report["loss"]
    config = recipe["config"]
    duration = f"{recipe['seconds'] / 60:.0f} minutes on {recipe['threads']} thread(s)"
    return f"""# digits

A class-conditional diffusion model of handwritten digits: 8x8 pixels, one channel, values in [-1, 1]. It is small
enough to be part of the package, and real enough to show that the whole chain works.

```python
import diffuse_fast as df
x = df.sample("digits", 64, 20)                                        # any digits
x = df.sample("digits", 10, 20, cond={{"label": list(range(10))}})       # one of each
```

| | |
|---|---|
| network | `df.nn.UNet`, {recipe["parameters"]:,} parameters, {report["bytes"] / 1e6:.1f} MB in float32 |
| schedule | cosine, {report["schedule"]["num_train_timesteps"]} timesteps |
| prediction type | `{config["prediction_type"]}`, clip [-1, 1] |
| conditioning | `label` 0 to 9; 10 is the null class, for guidance and for "any digit" |
| data | scikit-learn's `load_digits`, {recipe["samples"]:,} training images; 360 held out (stratified) |
| training | {config["steps"]:,} steps of {config["batch_size"]}, seed {config["seed"]}; {duration} |
| loss (v) | {loss["training"]:.4f} on the training split, {loss["held_out"]:.4f} held out |
| licence | {report["license"]} (the weights) |

## How it was made

    {recipe["command"]}

`digits.json` has the recipe, the versions of the packages and the losses during training.

## Quality

    {EVALUATE_COMMAND}

{quality["steps"]} DDIM steps, seed {quality["seed"]}. An ensemble of classifiers, trained on the real training split,
recognises the digits. The Fréchet distance is to the training split, in the features of the classifiers, over sets of
{quality["set_size"]} digits with the classes of the held-out ones (± is the standard deviation between sets). *nearest* is the
median distance to the nearest training image; *copies* is the number of digits that equal one in every pixel. The last ten
columns are the accuracy for each class.

{table(quality)}

The held-out figures rest on {quality["held_out"]["samples"]} digits: their accuracy is uncertain by about half a point.

## Learned solvers

    {LEARN_COMMAND}

The artifact holds plans of its own for few steps (`solver="learned"`). The table has the RMS distance to the samples of 200 steps
of `dpmpp_2m` from the same noise, on {HELD_OUT} samples that were not used to learn them:

{_few_steps(report["learned"])}

## Limits

It generates 8x8 digits in the hands of the 13 people whose forms were scanned, and nothing else. Guidance above 1
reduces diversity (the Fréchet distance rises). With `rederive_epsilon=False`, as in diffusers, it generates wrong digits: a
clipped x0 and an unclipped ε are inconsistent. Generated digits are slightly nearer to training images than
held-out ones are, but none is a copy. Not meant for reading or forging anything.

## Data

E. Alpaydin, C. Kaynak, *Optical Recognition of Handwritten Digits*, UCI Machine Learning Repository, 1998, CC BY 4.0;
as distributed with scikit-learn (the test part of the original, 1,797 images with 17 levels).
"""


def table(quality: dict[str, Any]) -> str:
    """The figures of :func:`measured` as a Markdown table."""
    rows = [("real, held out", quality["held_out"])]
    rows += [(f"generated, guidance {g['guidance_scale']:g}", g) for g in quality["generated"]]
    lines = [
        "| digits | samples | accuracy % | Fréchet distance | nearest | copies | " + " | ".join(map(str, range(10))) + " |",
        "|---|" + "---:|" * (5 + 10),
    ]
    for name, row in rows:
        distance = f"{row['frechet_distance']:.3f}"
        if row["samples"] > quality["set_size"]:
            distance += f" ± {row['frechet_distance_std']:.3f}"
        classes = " | ".join(f"{accuracy:.1f}" for accuracy in row["accuracy_per_class"])
        lines.append(
            f"| {name} | {row['samples']} | {row['accuracy']:.2f} | {distance} "
            f"| {row['nearest']:.3f} | {row['copies']} | {classes} |"
        )
    return "\n".join(lines)


def _few_steps(learned: list[dict[str, Any]]) -> str:
    lines = ["| steps | learned | best hand-made, best spacing | best hand-made, default spacing |", "|---:|---:|---|---|"]
    for row in learned:
        others = (f"{row[k]['distance']:.4f}: {row[k]['solver']}" for k in ("best", "best_default"))
        lines.append(f"| {row['steps']} | {row['learned']:.4f} | " + " | ".join(others) + " |")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python examples/digits/train.py", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--out", default=f"out/{NAME}", help="folder of the run, the artifact, its card and its figures")
    parser.add_argument("--steps", type=int, default=CONFIG.steps, help="optimizer steps")
    parser.add_argument("--seed", type=int, default=CONFIG.seed, help="seed of the run")
    given = parser.parse_args(arguments)
    degrade()
    try:
        train_digits(given.out, steps=given.steps, seed=given.seed)
    except DiffuseFastError as error:
        raise SystemExit(str(error)) from error
    print((Path(given.out) / f"{NAME}.md").read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
