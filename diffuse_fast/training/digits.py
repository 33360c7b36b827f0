"""The recipe of the bundled model: from scikit-learn's digits to an artifact with a model card, in one command.

    python -m diffuse_fast.training.digits --out out/digits

It trains for about a quarter of an hour on one core, learns solvers of few steps for as long again, and writes
``digits.onnx``, ``digits.md`` (the card),
``digits.json`` (recipe, losses, quality) and ``digits.safetensors`` (the weights and the record of the run, from which
``--reuse`` makes the others again without training).
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..console import degrade, say, silent
from ..errors import ArgumentError, MissingDependencyError, OutputError, install_hint
from ..exporting import export
from ..files import replacing, writable
from ..learning.learn import HELD_OUT, learn_each
from ..model import Model, load
from ..nn import UNet
from ..schedule import Schedule
from .config.train_config import DIGITS, TrainConfig
from .data import digits
from .objectives import ForwardProcess, evaluate_loss
from .quality import evaluate, table
from .run.loop import train

NAME = "digits"
SCHEDULE = Schedule.cosine()
NETWORK: dict[str, Any] = {
    "in_channels": 1, "channels": 32, "multipliers": (1, 2), "blocks": 2, "groups": 8, "dropout": 0.1,
    "num_classes": 10,
}  # fmt: skip
CONFIG = DIGITS
LICENSE = "Apache-2.0"
LEARNED_STEPS = (5, 6, 8)


def train_digits(out: str | os.PathLike[str], *, config: TrainConfig = CONFIG, reuse: bool = False, progress: bool = True) -> Model:
    """Train the model of the digits, export it, measure it, and write its card.

    Args:
        out: A folder, made if it is not there. It must have no weights of an earlier run, unless they are reused.
        config: How to train; the bundled model's unless given.
        reuse: Take the weights that an earlier run left in ``out`` instead of training.
        progress: Show a progress bar, and a line before each part of the work after it.

    Returns:
        The artifact ``out/digits.onnx``, loaded.

    Raises:
        OutputError: ``out`` cannot be written, or has the weights of an earlier run. ArgumentError: ``reuse``, but there are no
            weights of this recipe.
        TrainingError, ExportError: Training or export failed.
    """
    folder = Path(out)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot make the folder {folder}: {error}") from error
    for suffix in ("safetensors", "onnx", "json", "md"):  # asked now, not after a quarter of an hour
        writable(folder / f"{NAME}.{suffix}")
    weights = folder / f"{NAME}.safetensors"
    if reuse:
        network, record = load_weights(weights)
    elif weights.exists():
        raise OutputError(f"{str(folder)!r} has the weights of an earlier run; reuse them, or choose another folder.")
    else:
        split = digits()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            start = UNet(**NETWORK)
        result = train(start, split.images, split.labels, schedule=SCHEDULE, config=config, progress=progress)
        network, record = result.network, result.record.to_json()
        save_weights(weights, network, record)
    return publish(network, record, folder, say if progress else silent)


def publish(network: nn.Module, record: dict[str, Any], folder: Path, progress: Callable[[str], None] = silent) -> Model:
    """Export a trained network, measure the artifact, and write card and figures beside it."""
    path = folder / f"{NAME}.onnx"
    progress("exporting the network")
    export_weights(network, record, path)
    learned = learn_solvers(path, progress)
    model = load(path)
    report = {
        "name": NAME,
        "license": LICENSE,
        "bytes": path.stat().st_size,
        "schedule": SCHEDULE.to_json(),
        "recipe": _recipe(record),
        "loss": final_losses(network, record["config"]["prediction_type"]),
        "learned": learned,
        "quality": evaluate(model, progress=progress),
    }
    write(folder / f"{NAME}.json", json.dumps(report, indent=1) + "\n")
    write(folder / f"{NAME}.md", card(report))
    return model


def export_weights(network: nn.Module, record: dict[str, Any], path: str | os.PathLike[str], *, opset: int | None = None) -> Model:
    """Export what :func:`load_weights` gives, without measuring it: the artifact at ``path``, loaded.

    Raises:
        ArgumentError: the record is not of a run of this recipe.
        ExportError, OutputError: as :func:`diffuse_fast.export`.
    """
    recipe = _recipe(record)
    lacking = [key for key in ("config", "seconds", "versions") if key not in recipe]
    if lacking:
        raise ArgumentError(f"the record of these weights lacks {', '.join(lacking)}; it is not of a run of this recipe.")
    return export(
        network,
        path,
        name=NAME,
        shape=(1, 8, 8),
        schedule=SCHEDULE,
        prediction_type=record["config"]["prediction_type"],
        clip=(-1.0, 1.0),
        value_range=(-1.0, 1.0),
        conditioning=[{"name": "label", "dtype": "int64", "shape": [], "null": 10, "classes": 10}],
        training={key: recipe[key] for key in ("command", "data", "config", "seconds", "versions")},
        license=LICENSE,
        opset=opset,
    )


def learn_solvers(path: Path, progress: Callable[[str], None] = silent) -> list[dict[str, Any]]:
    """Learn plans of :data:`LEARNED_STEPS` steps into the artifact: for each the RMS distances to the fine solver, held out."""
    return [
        {
            "steps": learned.plan.steps,
            "learned": round(learned.distance, 4),
            "best": {"solver": learned.best.name, "distance": round(learned.best.distance, 4)},
            "best_default": {"solver": learned.best_default.name, "distance": round(learned.best_default.distance, 4)},
        }
        for learned in learn_each(path, LEARNED_STEPS, out=path, progress=progress)
    ]


def _recipe(record: dict[str, Any]) -> dict[str, Any]:
    return {
        "command": "python -m diffuse_fast.training.digits --out out/digits",
        "data": "scikit-learn load_digits, stratified training split of 1,437 images",
        "network": {"type": "UNet", **NETWORK, "multipliers": list(NETWORK["multipliers"])},
        **record,
    }


def final_losses(network: nn.Module, prediction_type: str) -> dict[str, float]:
    """The simple loss of the finished network on the training and the held-out split, over seeded times and noises."""
    split = digits()
    process = ForwardProcess(SCHEDULE, prediction_type)
    parts = {"training": (split.images, split.labels, 8), "held_out": (split.held_out_images, split.held_out_labels, 32)}
    return {
        name: round(evaluate_loss(network, torch.from_numpy(x), torch.from_numpy(y), process, draws=draws, seed=1), 4)
        for name, (x, y, draws) in parts.items()
    }


def card(report: dict[str, Any]) -> str:
    """The model card, Markdown, from the figures in ``digits.json``."""
    recipe, quality, loss = report["recipe"], report["quality"], report["loss"]
    config = recipe["config"]
    duration = f"{recipe['seconds'] / 60:.0f} minutes on {recipe['threads']} thread(s)"
    return f"""# digits

A class-conditional diffusion model of handwritten digits: 8x8 pixels, one channel, values in [-1, 1]. It is small
enough to come with the package and real enough to show that the chain works.

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

## Made by

    {recipe["command"]}

The recipe, its versions and the losses along the way are in `digits.json`.

## Quality

    python -m diffuse_fast.training.quality digits

{quality["steps"]} DDIM steps, seed {quality["seed"]}. A committee of classifiers trained on the real training split
reads the digits; the Fréchet distance is in its feature space, to the training split, over sets of
{quality["set_size"]} digits with the classes of the held-out ones (± is the deviation between sets). *nearest* is the
median distance to the nearest training image, *copies* how many equal one in every pixel. The last ten columns are the
accuracy for each class.

{table(quality)}

The held-out figures rest on {quality["held_out"]["samples"]} digits: their accuracy is uncertain by about half a point.

## Learned solvers

    {LEARN_COMMAND}

For few steps the artifact holds plans of its own (`solver="learned"`). RMS distance to what 200 steps of `dpmpp_2m` draw from the
same noise, on {HELD_OUT} samples that were not learned from:

{_few_steps(report["learned"])}

## Limits

It draws 8x8 digits in the hands of the 13 people whose forms were scanned, and nothing else. Guidance above 1
costs diversity (the Fréchet distance rises). With `rederive_epsilon=False`, diffusers' way, it draws the wrong digits: a
clipped x0 and the unclipped ε beside it do not go together. Generated digits lie a little nearer to training images than
held-out ones do, but none is a copy. Not meant for reading or forging anything.

## Data

E. Alpaydin, C. Kaynak, *Optical Recognition of Handwritten Digits*, UCI Machine Learning Repository, 1998, CC BY 4.0;
as distributed with scikit-learn (the test part of the original, 1,797 images with 17 levels).
"""


LEARN_COMMAND = f"diffuse-fast learn-solver {NAME} {' '.join(f'--steps {n}' for n in LEARNED_STEPS)} --out {NAME}.onnx"


def _few_steps(learned: list[dict[str, Any]]) -> str:
    lines = ["| steps | learned | best hand-made, best spacing | best hand-made, as it comes |", "|---:|---:|---|---|"]
    for row in learned:
        others = (f"{row[k]['distance']:.4f}: {row[k]['solver']}" for k in ("best", "best_default"))
        lines.append(f"| {row['steps']} | {row['learned']:.4f} | " + " | ".join(others) + " |")
    return "\n".join(lines)


def save_weights(path: Path, network: nn.Module, record: dict[str, Any]) -> None:
    """Weights and record in one safetensors file."""
    save_file = _safetensors().save_file
    tensors = {name: value.contiguous() for name, value in network.state_dict().items()}
    with replacing(path) as partial:
        save_file(tensors, partial, metadata={"record": json.dumps(record)})


def load_weights(path: Path) -> tuple[nn.Module, dict[str, Any]]:
    """The recipe's network with the weights in a file of :func:`save_weights`, and its record."""
    safetensors = _safetensors()
    from safetensors import SafetensorError, safe_open

    network = UNet(**NETWORK).eval().requires_grad_(False)
    try:
        with safe_open(path, framework="pt") as file:
            record = json.loads(file.metadata()["record"])
        network.load_state_dict(safetensors.load_file(path))
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ArgumentError(f"{path} has no weights of this recipe: {error}. Train without reuse to make them.") from error
    return network, record


def write(path: Path, text: str) -> None:
    """The text in a file, whole or not at all."""
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")


def _safetensors() -> Any:
    try:
        import safetensors.torch
    except ImportError as error:
        raise MissingDependencyError(f"the recipe keeps its weights with safetensors: {install_hint('train')}") from error
    return safetensors.torch


def main(arguments: list[str] | None = None) -> None:
    """The command ``python -m diffuse_fast.training.digits``."""
    parser = argparse.ArgumentParser(prog="python -m diffuse_fast.training.digits", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--out", default=f"out/{NAME}", help="folder for the artifact, its card and its figures")
    parser.add_argument("--steps", type=int, default=CONFIG.steps)
    parser.add_argument("--seed", type=int, default=CONFIG.seed)
    parser.add_argument("--reuse", action="store_true", help="take the weights an earlier run left in the folder")
    given = parser.parse_args(arguments)
    degrade()
    config = TrainConfig(**{**asdict(CONFIG), "steps": given.steps, "seed": given.seed})
    train_digits(given.out, config=config, reuse=given.reuse)
    print((Path(given.out) / f"{NAME}.md").read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
