"""Image files in a folder; a folder's name is the label of what is in it."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...errors import ArgumentError, TrainingError
from .pictures import Framing, pillow
from .source import Batch, whole_labels

log = logging.getLogger(__name__)

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")
ON_ERROR = ("raise", "skip")
KEPT_BYTES = 1 << 30  # decoded pictures are kept up to this size: small data sets are decoded once


class Images:
    """Pictures that are opened one by one: each is identified at once, and decoded when it is first asked for.

    Args:
        names: Of the pictures, for messages.
        open: Gives the picture of a number as Pillow opens it.
        labels: (N,) whole numbers from 0, or None.
        classes: Names of the classes.
        framing: How they are brought to one shape.
        on_error: ``raise`` stops at a picture that cannot be read; ``skip`` names it in a warning, counts it in ``broken`` and
            goes on: it is left out, and if only decoding shows it, the next good one stands in.

    Attributes:
        broken: Name of each picture that could not be read, and why.
        attribution: Whom the pictures are of, where their licence asks to say it; None where nobody said.

    Raises:
        ArgumentError: pictures of several sizes or channels and no framing that makes them one; no pictures.
        TrainingError: one cannot be read, and ``on_error`` is ``raise``.
    """

    def __init__(
        self,
        names: Sequence[str],
        open: Callable[[int], Any],
        labels: np.ndarray | Tensor | None = None,
        *,
        classes: Sequence[str] | None = None,
        framing: Framing | None = None,
        on_error: str = "raise",
    ):
        if on_error not in ON_ERROR:
            raise ArgumentError(f"on_error is {on_error!r}; it must be one of {', '.join(ON_ERROR)}.")
        pillow()
        self.broken: dict[str, str] = {}
        self.attribution: str | None = None
        self.classes = None if classes is None else tuple(classes)
        self._names, self._open, self._framing, self._on_error = names, open, framing or Framing(), on_error
        shapes: dict[tuple[int, int, int], str] = {}
        self._numbers = []
        for number, name in enumerate(names):
            try:
                with open(number) as image:
                    shape = self._framing.shape(image)
            except (OSError, ValueError, SyntaxError) as error:
                self._broken(number, error)
                continue
            shapes.setdefault(shape, name)
            self._numbers.append(number)
        if not self._numbers:
            raise ArgumentError(f"there are no pictures that can be read; {len(self.broken)} cannot be.")
        if len(shapes) > 1:
            few = "; ".join(f"{name} is {shape}" for shape, name in list(shapes.items())[:3])
            raise ArgumentError(f"the pictures have several shapes (channels, height, width): {few}. Give size and channels.")
        self.shape: tuple[int, ...] = next(iter(shapes))
        self._labels = None if labels is None else whole_labels(labels, len(names))
        self.num_classes = None if self._labels is None else len(classes) if classes else int(self._labels.max()) + 1
        self._kept: dict[int, np.ndarray] = {}
        self._keeps = len(self._numbers) * int(np.prod(self.shape)) <= KEPT_BYTES

    @classmethod
    def from_folder(
        cls, path: str | os.PathLike[str], *, labels: bool = False, framing: Framing | None = None, on_error: str = "raise"
    ) -> Images:
        """The image files in a folder and the folders in it, in the order of their names.

        Args:
            labels: Take the folders directly in ``path`` as classes, numbered in the order of their names.

        Raises:
            ArgumentError: there is no such folder, or no image (in a class folder) in it.
        """
        root = Path(path)
        if not root.is_dir():
            raise ArgumentError(f"there is no folder {str(root)!r} of images.")
        files = sorted(p for p in root.rglob("*") if p.suffix.lower() in SUFFIXES)
        numbers = classes = None
        if labels:
            files = [p for p in files if p.parent != root]
            classes = sorted({p.relative_to(root).parts[0] for p in files})
            numbers = np.array([classes.index(p.relative_to(root).parts[0]) for p in files], dtype=np.int64)
        if not files and any((root / name).is_file() for name in ("state.json", "dataset_dict.json")):
            raise ArgumentError(f"{str(root)!r} is a folder of Hugging Face datasets; read it as one: data.kind = \"datasets\".")
        if not files:
            where = "in folders of classes " if labels else ""
            raise ArgumentError(f"there are no images {where}under {str(root)!r}; they end in {', '.join(SUFFIXES)}.")
        image = pillow()
        names = [str(p.relative_to(root)) for p in files]
        return cls(names, lambda i: image.open(files[i]), numbers, classes=classes, framing=framing, on_error=on_error)

    def __len__(self) -> int:
        return len(self._numbers)

    def fetch(self, indices: Sequence[int]) -> Batch:
        """As of :class:`Source`."""
        pictures, labels = [], []
        for index in indices:
            number, picture = self._readable(int(index))
            pictures.append(picture)
            if self._labels is not None:
                labels.append(self._labels[number])
        x = torch.from_numpy(np.stack(pictures)).to(torch.float32) / 127.5 - 1.0
        return x, torch.stack(labels) if labels else None

    def _readable(self, index: int) -> tuple[int, np.ndarray]:
        for shift in range(len(self)):
            number = self._numbers[(index + shift) % len(self)]
            if number in self._kept:
                return number, self._kept[number]
            if self._names[number] in self.broken:
                continue
            try:
                with self._open(number) as image:
                    picture = self._framing.frame(image)
            except (OSError, ValueError, SyntaxError) as error:
                self._broken(number, error)
                continue
            if self._keeps:
                self._kept[number] = picture
            return number, picture
        raise TrainingError("not one picture can be read.")

    def _broken(self, number: int, error: Exception) -> None:
        name = self._names[number]
        if self._on_error == "raise":
            hint = "Repair or remove it, or say on_error='skip'."
            raise TrainingError(f"the picture {name} cannot be read: {error}. {hint}") from error
        self.broken[name] = str(error)
        log.warning("skipped %s, which cannot be read (%s); %d so far", name, error, len(self.broken))
