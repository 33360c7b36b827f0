"""The quality of what solvers draw in few steps and in many, read by a judge trained on real images.

For each solver and number of steps: how often the judge reads the class that was asked for, the Fréchet distance, precision
and recall in its feature space against the training images, beside the same figures of real images that no training saw. No
weights are fetched: the judge is trained on the data themselves, so its distances compare with each other and not with FIDs
of Inception's features.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ...engine import sample
from ...errors import ArgumentError, DiffuseFastError
from ...files import replacing
from ...model import Model, load
from ...planning import plan_for
from ..data import Split
from .classifier import Judge, train_judge
from .metrics import frechet_distance, precision_recall

REAL = "real, held out"
NEIGHBOURS = 3
BATCH = 512


@dataclass(frozen=True)
class Quality:
    """What the judge says of the images of one solver in one number of steps.

    Attributes:
        solver: Its name; ``REAL`` for the held-out images, which have no steps.
        steps, nfe: Steps, and calls of the network for a sample.
        accuracy: Images that the judge reads as the class they were drawn for, in percent.
        score: exp of the mean KL divergence of the judge's class probabilities from their mean (Salimans et al. 2016): from 1
            to the number of classes, and higher where images are clear and of many classes.
        frechet_distance, precision, recall: Against the training images, in the judge's features.
    """

    solver: str
    steps: int
    nfe: int
    accuracy: float
    score: float
    frechet_distance: float
    precision: float
    recall: float


def evaluate(
    model: Any,
    data: Split,
    *,
    solvers: Sequence[str] = ("ddim",),
    steps: Sequence[int] = (5, 10, 20, 50),
    label: str = "label",
    seed: int = 0,
    guidance_scale: float = 1.0,
    judge: Judge | None = None,
    precision: str = "float32",
    progress: bool = False,
    on_refused: Callable[[str, int, str], None] | None = None,
) -> Iterator[Quality]:
    """The figures of the held-out images, then of each solver and number of steps, as each is done.

    As many images are drawn as are held out, with their classes.

    Args:
        model: A class-conditional ``df.Model`` of images, or the path or bundled name of one.
        data: Real images in the model's value range, with labels; for training the judge and held out.
        solvers: Names of solvers, or ``learned``.
        steps: Numbers of steps for each.
        label: The model's conditioning input that takes the class.
        seed: Of the samples.
        guidance_scale: As for ``df.sample``.
        judge: One trained before on the same training images; None trains one.
        precision: What the network is computed in, as for ``df.sample``.
        progress: Of each sampling, as for ``df.sample``.
        on_refused: Told solver, steps and reason where a plan cannot be made (a solver of another family, an order the steps do
            not allow); None raises.

    Raises:
        ArgumentError: the data do not fit the model, or it has no such conditioning.

    Example:
        >>> from diffuse_fast.training import evaluation
        >>> from diffuse_fast.training.data import digits
        >>> for q in evaluation.evaluate("digits", digits(), solvers=["ddim"], steps=[5]):  # doctest: +SKIP
        ...     print(q.solver, q.nfe, q.accuracy)
    """
    model = model if isinstance(model, Model) else load(model)
    _check(model, data, label)
    judge = judge or train_judge(data.images, data.labels)
    reference = _features(judge, data.images)
    labels = data.held_out_labels
    yield _judged(judge, reference, data.held_out_images, labels, REAL, 0, 0)
    for solver in solvers:
        for count in steps:
            try:
                calls = plan_for(model, solver, count).nfe
                images = sample(
                    model,
                    len(labels),
                    count,
                    solver=solver,
                    seed=seed,
                    cond={label: labels},
                    batch_size=BATCH,
                    guidance_scale=guidance_scale,
                    precision=precision,
                    progress=progress,
                )
            except DiffuseFastError as error:
                if on_refused is None:
                    raise
                on_refused(solver, count, str(error))
                continue
            yield _judged(judge, reference, np.asarray(images), labels, solver, count, calls)


def _check(model: Model, data: Split, label: str) -> None:
    if len(model.shape) != 3 or data.images.shape[1:] != model.shape:
        raise ArgumentError(f"the model's samples have the shape {model.shape}, the data's images {data.images.shape[1:]}.")
    if label not in [entry.name for entry in model.conditioning]:
        has = ", ".join(entry.name for entry in model.conditioning) or "none"
        raise ArgumentError(f"the model has no conditioning input {label!r} to ask for a class by; it has {has}.")
    for name, part in (("training", data.labels), ("held-out", data.held_out_labels)):
        if len(part) <= NEIGHBOURS:
            raise ArgumentError(f"there are {len(part)} {name} images; the figures need more than {NEIGHBOURS}.")


@torch.no_grad()
def _features(judge: Judge, images: np.ndarray) -> np.ndarray:
    return np.concatenate([judge.features(part).numpy() for part in torch.from_numpy(np.ascontiguousarray(images)).split(BATCH)])


@torch.no_grad()
def _judged(
    judge: Judge, reference: np.ndarray, images: np.ndarray, labels: np.ndarray, solver: str, steps: int, nfe: int
) -> Quality:
    probabilities = judge(torch.from_numpy(np.ascontiguousarray(images))).double().softmax(dim=1).numpy()
    mean = probabilities.mean(axis=0)
    information = (probabilities * (np.log(probabilities + 1e-30) - np.log(mean + 1e-30))).sum(axis=1).mean()
    features = _features(judge, images)
    precision, recall = precision_recall(reference, features, neighbours=NEIGHBOURS)
    return Quality(
        solver,
        steps,
        nfe,
        accuracy=float((probabilities.argmax(axis=1) == labels).mean() * 100.0),
        score=float(np.exp(information)),
        frechet_distance=frechet_distance(features, reference),
        precision=precision,
        recall=recall,
    )


def to_csv(rows: Sequence[Quality], path: Path) -> None:
    """One line per row, with a head."""
    names = [field.name for field in dataclasses.fields(Quality)]
    lines = [",".join(names), *(",".join(_cell(getattr(row, name)) for name in names) for row in rows)]
    with replacing(path) as partial:
        partial.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _cell(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else f'"{value}"' if "," in str(value) else str(value)
