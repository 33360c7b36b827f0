"""The quality of generated images, by solver, number of steps and guidance scale.

A classifier trained on the real images gives the accuracy, and the feature space of the Fréchet distance (Heusel et al. 2017),
precision and recall to the training images. The same figures of held-out real images come first: they are the best that
generated images can be expected to reach. No weights are downloaded, so the distances compare with each other, and not with FIDs
in Inception's features.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ...checks import require_int
from ...engine.sample import sample
from ...errors import ArgumentError, DiffuseFastError
from ...files import replacing
from ...model import Model, load
from ...planning import plan_for
from ..data import Split
from .classifier import Classifier, train_classifier
from .metrics import frechet_distance, precision_recall

REAL = "real, held out"
NEIGHBOURS = 3
BATCH = 512


@dataclass(frozen=True)
class Quality:
    """The figures of the images of one solver at one number of steps and one guidance scale.

    Attributes:
        solver: Its name; ``REAL`` for the held-out images, which have no steps.
        steps, nfe: Steps, and network calls per sample.
        guidance_scale: Of classifier-free guidance.
        samples: Number of images.
        accuracy: How many images the classifier recognises as the class they were generated for, in percent.
        accuracy_per_class: The same for each class; NaN for a class without images.
        score: exp of the mean KL divergence of the classifier's probabilities from their mean (Salimans et al. 2016): from 1 to
            the number of classes, higher for clear images of many classes.
        frechet_distance, precision, recall: To the training images, in the classifier's features; means over the sets.
        frechet_distance_std: Standard deviation of the distance between the sets; 0 for one set.
        nearest: Median Euclidean distance to the nearest training image. A model that memorises has a smaller one than
            the held-out images.
        copies: Number of images that equal a training image in every element, at the data's levels.
    """

    solver: str
    steps: int
    nfe: int
    accuracy: float
    score: float
    frechet_distance: float
    precision: float
    recall: float
    guidance_scale: float = 1.0
    samples: int = 0
    frechet_distance_std: float = 0.0
    nearest: float = 0.0
    copies: int = 0
    accuracy_per_class: tuple[float, ...] = ()

    @property
    def label(self) -> str:
        """The solver, and the guidance scale where there is guidance."""
        return self.solver if self.guidance_scale == 1.0 else f"{self.solver}, guidance {self.guidance_scale:g}"


def evaluate(
    model: Any,
    data: Split,
    *,
    solvers: Sequence[str] = ("ddim",),
    steps: Sequence[int] = (5, 10, 20, 50),
    guidance_scales: Sequence[float] = (1.0,),
    sets: int = 1,
    label: str = "label",
    seed: int = 0,
    classifier: Classifier | None = None,
    precision: str = "float32",
    progress: bool = False,
    on_refused: Callable[[str, int, str], object] | None = None,
) -> Iterator[Quality]:
    """Measure held-out images, then generated ones for every combination of solver, steps and guidance scale.

    A set has as many images as are held out, with their classes.

    Args:
        model: A class-conditional ``df.Model`` of images, or the path or bundled name of one.
        data: Real images in the model's value range, with labels: a training part and a held-out part.
        solvers: Names of solvers, or ``learned``.
        steps: Numbers of steps.
        guidance_scales: As for ``df.sample``.
        sets: Number of sets that are generated for each row.
        label: The model's conditioning input that takes the class.
        seed: Seed of the samples.
        classifier: One that was trained on the same training images; None trains one.
        precision: Precision of the network, as for ``df.sample``.
        progress: Show the progress of each sampling, as for ``df.sample``.
        on_refused: Called with solver, steps and reason where no plan can be made (a solver for another family, an order that
            the steps do not allow); None raises.

    Raises:
        ArgumentError: the data do not fit the model, it has no such conditioning, or ``sets`` is below 1.

    Example:
        >>> from diffuse_fast.training import evaluation
        >>> from diffuse_fast.training.data import digits
        >>> for q in evaluation.evaluate("digits", digits(), solvers=["ddim"], steps=[5]):  # doctest: +SKIP
        ...     print(q.solver, q.nfe, q.accuracy)
    """
    model = model if isinstance(model, Model) else load(model)
    _check(model, data, label)
    require_int("sets", sets, 1)
    classifier = classifier or train_classifier(data.images, data.labels)
    reference = features(classifier, data.images)
    yield measure(classifier, reference, data, data.held_out_images, data.held_out_labels, solver=REAL)
    labels = np.tile(data.held_out_labels, sets)
    for solver, count, scale in itertools.product(solvers, steps, guidance_scales):
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
                guidance_scale=scale,
                precision=precision,
                progress=progress,
            )
        except DiffuseFastError as error:
            if on_refused is None:
                raise
            on_refused(solver, count, str(error))
            continue
        made: dict[str, Any] = {"solver": solver, "steps": count, "nfe": calls, "guidance_scale": scale}
        yield measure(classifier, reference, data, np.asarray(images), labels, sets=sets, **made)


@torch.no_grad()
def features(classifier: Classifier, images: np.ndarray) -> np.ndarray:
    """The classifier's features (N, D) of images (N, C, H, W)."""
    parts = torch.from_numpy(np.ascontiguousarray(images)).split(BATCH)
    return np.concatenate([classifier.features(part).numpy() for part in parts])


@torch.no_grad()
def measure(
    classifier: Classifier,
    reference: np.ndarray,
    data: Split,
    images: np.ndarray,
    labels: np.ndarray,
    *,
    sets: int = 1,
    solver: str = "",
    steps: int = 0,
    nfe: int = 0,
    guidance_scale: float = 1.0,
) -> Quality:
    """The figures of images (N, C, H, W), generated for labels (N,), in ``sets`` consecutive sets of one size.

    Args:
        classifier: See :func:`train_classifier`.
        reference: :func:`features` of the training images.
        data: The real images.
        solver, steps, nfe, guidance_scale: How the images were made; copied into the result.
    """
    classes = len(classifier(torch.zeros(1, *images.shape[1:]))[0])
    probabilities = np.concatenate(
        [classifier(part).double().softmax(dim=1).numpy() for part in torch.from_numpy(np.ascontiguousarray(images)).split(BATCH)]
    )
    correct = probabilities.argmax(axis=1) == labels
    scores, distances, shares = [], [], []
    size = len(images) // sets
    for start in range(0, sets * size, size):
        own, p = features(classifier, images[start : start + size]), probabilities[start : start + size]
        scores.append(np.exp((p * (np.log(p + 1e-30) - np.log(p.mean(axis=0) + 1e-30))).sum(axis=1).mean()))
        distances.append(frechet_distance(own, reference))
        shares.append(precision_recall(reference, own, neighbours=NEIGHBOURS))
    nearest, copies = _nearest(images, data)
    precision, recall = np.mean(shares, axis=0)
    return Quality(
        solver,
        steps,
        nfe,
        accuracy=float(correct.mean() * 100.0),
        score=float(np.mean(scores)),
        frechet_distance=float(np.mean(distances)),
        precision=float(precision),
        recall=float(recall),
        guidance_scale=guidance_scale,
        samples=len(images),
        frechet_distance_std=float(np.std(distances)),
        nearest=nearest,
        copies=copies,
        accuracy_per_class=tuple(
            float(correct[labels == c].mean() * 100.0) if (labels == c).any() else float("nan") for c in range(classes)
        ),
    )


def to_csv(rows: Sequence[Quality], path: Path) -> None:
    """Write a header and one line per row; every class has a column of its accuracy."""
    names = [field.name for field in dataclasses.fields(Quality) if field.name != "accuracy_per_class"]
    classes = max((len(row.accuracy_per_class) for row in rows), default=0)
    lines = [",".join([*names, *(f"accuracy_{c}" for c in range(classes))])]
    lines += [",".join(map(_cell, (*(getattr(row, name) for name in names), *row.accuracy_per_class))) for row in rows]
    with replacing(path) as partial:
        partial.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _cell(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else f'"{value}"' if "," in str(value) else str(value)


def _check(model: Model, data: Split, label: str) -> None:
    if len(model.shape) != 3 or data.images.shape[1:] != model.shape:
        raise ArgumentError(f"the model's samples have the shape {model.shape}, the data's images {data.images.shape[1:]}.")
    if label not in [entry.name for entry in model.conditioning]:
        has = ", ".join(entry.name for entry in model.conditioning) or "none"
        raise ArgumentError(f"the model has no conditioning input {label!r} for the class; it has {has}.")
    for name, part in (("training", data.labels), ("held-out", data.held_out_labels)):
        if len(part) <= NEIGHBOURS:
            raise ArgumentError(f"there are {len(part)} {name} images; the figures need more than {NEIGHBOURS}.")


def _nearest(images: np.ndarray, data: Split) -> tuple[float, int]:
    """The median distance to the nearest training image, and the number of copies of one."""
    flat, real = (np.ascontiguousarray(x).reshape(len(x), -1) for x in (images, data.images))
    training = torch.from_numpy(real)
    distances = torch.cat([torch.cdist(part, training).min(dim=1).values for part in torch.from_numpy(flat).split(BATCH)])
    known = {row.tobytes() for row in _quantized(real, data.levels)}
    copies = sum(row.tobytes() in known for row in _quantized(flat, data.levels))
    return float(np.median(distances.numpy())), copies


def _quantized(flat: np.ndarray, levels: int) -> np.ndarray:
    """Values in [-1, 1] as the nearest of the data's levels, from 0."""
    return np.rint((np.clip(flat, -1.0, 1.0) + 1.0) * (0.5 * (levels - 1))).astype(np.uint16)
