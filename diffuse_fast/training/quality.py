"""How good generated digits are: read by a judge that was trained on real ones, and compared with real ones it has
never seen.

The judge is a committee of small convolutional classifiers, trained on the training split alone. It tells

- *accuracy*: how often it reads the class that an image was generated for;
- *Fréchet distance* (Heusel et al. 2017, in the judge's feature space instead of Inception's) to the training split,
  over sets of as many images as are held out, drawn with the same classes;
- *nearest*: the median Euclidean distance to the nearest training image, and how many copies there are: images that
  equal a training image in all 64 pixels at the data's 17 levels. A model that memorises is nearer than held-out
  digits are.

The figures of the held-out digits themselves are what generated ones can hope for.

    python -m diffuse_fast.training.quality digits --steps 20 --guidance 1.0 1.5 2.0
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from ..console import degrade, say, silent
from .data import Split, digits
from .evaluation.classifier import Judge, train_judge
from .evaluation.metrics import frechet_distance

SETS = 10


@dataclass(frozen=True)
class Figures:
    """What the judge says of a number of digits. Accuracies in percent, of all and of each class."""

    samples: int
    accuracy: float
    accuracy_per_class: tuple[float, ...]
    frechet_distance: float
    frechet_distance_std: float
    nearest: float
    copies: int


def measure(images: np.ndarray, labels: np.ndarray, split: Split, judge: Judge, *, set_size: int) -> Figures:
    """The figures of images (N, 1, 8, 8) with the classes they claim; the Fréchet distance over consecutive sets of
    ``set_size``."""
    with torch.no_grad():
        x = torch.from_numpy(np.ascontiguousarray(images))
        correct = (judge(x).argmax(dim=1).numpy() == labels) * 100.0
        features = judge.features(x).numpy()
        reference = judge.features(torch.from_numpy(split.images)).numpy()
    distances = [
        frechet_distance(features[start : start + set_size], reference) for start in range(0, len(images) - set_size + 1, set_size)
    ]
    flat, real = images.reshape(len(images), -1), split.images.reshape(len(split.images), -1)
    nearest = torch.cdist(torch.from_numpy(flat), torch.from_numpy(real)).min(dim=1).values.numpy()
    known = {levels.tobytes() for levels in _levels(real)}
    return Figures(
        samples=len(images),
        accuracy=round(float(correct.mean()), 2),
        accuracy_per_class=tuple(round(float(correct[labels == c].mean()), 2) for c in range(10)),
        frechet_distance=round(float(np.mean(distances)), 3),
        frechet_distance_std=round(float(np.std(distances)), 3),
        nearest=round(float(np.median(nearest)), 3),
        copies=sum(levels.tobytes() in known for levels in _levels(flat)),
    )


def _levels(flat: np.ndarray) -> np.ndarray:
    """Pixels in [-1, 1] as the data's levels 0..16."""
    return np.rint((np.clip(flat, -1.0, 1.0) + 1.0) * 8.0).astype(np.uint8)


def evaluate(
    model: Any,
    *,
    steps: int = 20,
    guidance_scales: tuple[float, ...] = (1.0, 1.5, 2.0),
    seed: int = 0,
    progress: Callable[[str], None] = silent,
) -> dict[str, Any]:
    """The figures of a model of the digits, next to those of the held-out digits, as plain data.

    Each scale is measured with ``df.sample``'s defaults.

    Args:
        model: What ``df.sample`` takes; conditional on ``label``.
        steps: Steps of the default solver.
        guidance_scales: One row of figures for each.
        seed: Of the samples.
        progress: Called with a line before each part of the work.
    """
    from ..engine import sample

    split = digits()
    progress("training the judge")
    judge = train_judge(split.images, split.labels)
    size = len(split.held_out_labels)
    labels = np.tile(split.held_out_labels, SETS)
    generated = []
    for scale in guidance_scales:
        progress(f"drawing {len(labels):,} digits with guidance {scale:g}")
        images = sample(model, len(labels), steps, seed=seed, guidance_scale=scale, cond={"label": labels}, batch_size=size)
        figures = measure(np.asarray(images), labels, split, judge, set_size=size)
        generated.append({"guidance_scale": scale, **asdict(figures)})
    held_out = measure(split.held_out_images, split.held_out_labels, split, judge, set_size=size)
    return {
        "steps": steps, "solver": "ddim", "seed": seed, "set_size": size,
        "held_out": asdict(held_out), "generated": generated,
    }  # fmt: skip


def table(quality: dict[str, Any]) -> str:
    """What :func:`evaluate` returns, as a Markdown table."""
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


def main(arguments: list[str] | None = None) -> None:
    """The command ``python -m diffuse_fast.training.quality``."""
    parser = argparse.ArgumentParser(prog="python -m diffuse_fast.training.quality", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("model", nargs="?", default="digits", help="a bundled name or the path of an artifact")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--guidance", type=float, nargs="+", default=[1.0, 1.5, 2.0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    given = parser.parse_args(arguments)
    degrade()
    quality = evaluate(given.model, steps=given.steps, guidance_scales=tuple(given.guidance), seed=given.seed, progress=say)
    print(json.dumps(quality, indent=1) if given.json else table(quality))


if __name__ == "__main__":
    main()
