"""How good generated digits are: read by a judge that was trained on real ones, and compared with real ones it has
never seen.

The judge is a committee of small convolutional classifiers, trained on the training split alone. It tells

- *accuracy*: how often it reads the class that a digit was generated for;
- *Fréchet distance* (Heusel et al. 2017, in the judge's feature space instead of Inception's) to the training split,
  over sets of as many digits as are held out, drawn with the same classes;
- *nearest*: the median Euclidean distance to the nearest training image, and how many copies there are: images that
  equal a training image in all 64 pixels at the data's 17 levels. A model that memorises is nearer than held-out
  digits are.

The figures of the held-out digits themselves are what generated ones can hope for.

    python -m diffuse_fast.training.quality digits --steps 20 --guidance 1.0 1.5 2.0
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .data import Split, digits

CLASSES = 10
SETS = 10


class Judge(nn.Module):
    """A committee of three small classifiers of 8x8 digits, since one alone errs by a point more or less with its
    seed."""

    def __init__(self) -> None:
        super().__init__()
        self.bodies = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
                nn.Conv2d(64, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Dropout(0.3),
                nn.Linear(256, 32), nn.ReLU(),
            )
            for _ in range(3)
        )  # fmt: skip
        self.heads = nn.ModuleList(nn.Linear(32, CLASSES) for _ in range(3))

    def features(self, x: Tensor) -> Tensor:
        """What the last layers read, (B, 96), for x (B, 1, 8, 8) in [-1, 1]."""
        return torch.cat([body(x) for body in self.bodies], dim=1)

    def votes(self, x: Tensor) -> list[Tensor]:
        """The log-probabilities (B, 10) that each member gives."""
        return [head(body(x)).log_softmax(dim=1) for body, head in zip(self.bodies, self.heads, strict=True)]

    def forward(self, x: Tensor) -> Tensor:
        """The summed log-probabilities of the classes, (B, 10)."""
        return torch.stack(self.votes(x)).sum(dim=0)


def train_judge(images: np.ndarray, labels: np.ndarray, *, passes: int = 30, seed: int = 0) -> Judge:
    """A judge trained on images (N, 1, 8, 8) in [-1, 1] and labels (N,); the same on every call with the same
    arguments."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        judge = Judge()
        x, y = torch.from_numpy(images), torch.from_numpy(labels)
        batches = -(-len(x) // 64)
        optimizer = torch.optim.AdamW(judge.parameters(), lr=2e-3, weight_decay=1e-2)
        rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=2e-3, total_steps=passes * batches)
        for _ in range(passes):
            for batch in torch.randperm(len(x)).split(64):
                optimizer.zero_grad()
                torch.stack([F.nll_loss(vote, y[batch]) for vote in judge.votes(x[batch])]).sum().backward()
                optimizer.step()
                rate.step()
    return judge.eval()


def frechet_distance(a: np.ndarray, b: np.ndarray) -> float:
    """The squared Fréchet distance of the Gaussians fitted to features a (N, D) and b (M, D), in float64.

    ‖μ_a − μ_b‖² + tr(C_a + C_b − 2·(C_a^½·C_b·C_a^½)^½), Dowson & Landau 1982; what FID is made of.
    """
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    cov_a, cov_b = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    values, vectors = np.linalg.eigh(cov_a)
    root_a = (vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T
    cross = np.sqrt(np.maximum(np.linalg.eigvalsh(root_a @ cov_b @ root_a), 0.0)).sum()
    return float(((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(cov_a) + np.trace(cov_b) - 2.0 * cross)


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
        frechet_distance(features[start : start + set_size], reference)
        for start in range(0, len(images) - set_size + 1, set_size)
    ]
    flat, real = images.reshape(len(images), -1), split.images.reshape(len(split.images), -1)
    nearest = torch.cdist(torch.from_numpy(flat), torch.from_numpy(real)).min(dim=1).values.numpy()
    known = {levels.tobytes() for levels in _levels(real)}
    return Figures(
        samples=len(images),
        accuracy=round(float(correct.mean()), 2),
        accuracy_per_class=tuple(round(float(correct[labels == c].mean()), 2) for c in range(CLASSES)),
        frechet_distance=round(float(np.mean(distances)), 3),
        frechet_distance_std=round(float(np.std(distances)), 3),
        nearest=round(float(np.median(nearest)), 3),
        copies=sum(levels.tobytes() in known for levels in _levels(flat)),
    )


def _levels(flat: np.ndarray) -> np.ndarray:
    """Pixels in [-1, 1] as the data's levels 0..16."""
    return np.rint((np.clip(flat, -1.0, 1.0) + 1.0) * 8.0).astype(np.uint8)


def evaluate(
    model: Any, *, steps: int = 20, guidance_scales: tuple[float, ...] = (1.0, 1.5, 2.0), seed: int = 0
) -> dict[str, Any]:
    """The figures of a model of the digits, next to those of the held-out digits, as plain data.

    Each scale is measured with ``df.sample``'s defaults; a scale other than 1 also with ``rederive_epsilon``, since
    guided predictions leave the value range often, and a clipped x0 beside the ε it did not come from leads astray.

    Args:
        model: What ``df.sample`` takes; conditional on ``label``.
        steps: Steps of the default solver.
        guidance_scales: One row of figures for 1, two for each other.
        seed: Of the samples.
    """
    from ..engine import sample

    split = digits()
    judge = train_judge(split.images, split.labels)
    size = len(split.held_out_labels)
    labels = np.tile(split.held_out_labels, SETS)
    generated = []
    runs = [(scale, False) for scale in guidance_scales] + [(scale, True) for scale in guidance_scales if scale != 1.0]
    for scale, rederive in runs:
        images = sample(
            model, len(labels), steps, seed=seed, guidance_scale=scale, cond={"label": labels}, batch_size=size,
            rederive_epsilon=rederive,
        )  # fmt: skip
        figures = measure(np.asarray(images), labels, split, judge, set_size=size)
        generated.append({"guidance_scale": scale, "rederive_epsilon": rederive, **asdict(figures)})
    held_out = measure(split.held_out_images, split.held_out_labels, split, judge, set_size=size)
    return {
        "steps": steps, "solver": "ddim", "seed": seed, "set_size": size,
        "held_out": asdict(held_out), "generated": generated,
    }  # fmt: skip


def table(quality: dict[str, Any]) -> str:
    """What :func:`evaluate` returns, as a Markdown table."""
    rows = [("real, held out", quality["held_out"])]
    for g in quality["generated"]:
        option = ", `rederive_epsilon`" if g["rederive_epsilon"] else ""
        rows.append((f"generated, guidance {g['guidance_scale']:g}{option}", g))
    lines = [
        "| digits | samples | accuracy % | Fréchet distance | nearest | copies | "
        + " | ".join(map(str, range(CLASSES)))
        + " |",
        "|---|" + "---:|" * (5 + CLASSES),
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
    parser = argparse.ArgumentParser(
        prog="python -m diffuse_fast.training.quality", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("model", nargs="?", default="digits", help="a bundled name or the path of an artifact")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--guidance", type=float, nargs="+", default=[1.0, 1.5, 2.0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    given = parser.parse_args(arguments)
    quality = evaluate(given.model, steps=given.steps, guidance_scales=tuple(given.guidance), seed=given.seed)
    print(json.dumps(quality, indent=1) if given.json else table(quality))


if __name__ == "__main__":
    main()
