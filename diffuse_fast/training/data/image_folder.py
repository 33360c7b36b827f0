"""Image files in a folder; a folder's name is the label of what is in it."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from ...errors import ArgumentError, TrainingError
from .decode import ON_ERROR, Framing, pillow
from .file_listing import SUFFIXES, image_files
from .source import Batch, int_labels

log = logging.getLogger(__name__)

Result = TypeVar("Result")
KEPT_BYTES = 1 << 30  # decoded images are kept up to this size, so that small data sets are decoded once


class Images:
    """Images that are opened one by one: their headers at once, their pixels on first use.

    Args:
        names: Names of the images, for messages.
        open: Opens the image of an index with Pillow.
        labels: (N,) integers from 0, or None.
        classes: Names of the classes.
        framing: How to bring the images to one shape.
        on_error: ``raise`` stops at an image that cannot be read. ``skip`` warns, adds it to ``broken`` and omits it; if only
            decoding fails, the next good image replaces it.

    Attributes:
        broken: The error of each image that could not be read, by name.
        value_range: (-1, 1), the range of the scaled values.
        attribution: The attribution that the licence of the images asks for, or None.

    Raises:
        ArgumentError: the images have several sizes or channels and ``framing`` does not unify them; there are no images; the
            maximum of their values is unknown (see :class:`Framing`).
        TrainingError: an image cannot be read, and ``on_error`` is ``raise``.
    """

    value_range: tuple[float, float] | None = (-1.0, 1.0)

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
            shape = self._read(number, self._framing.shape)
            if shape is not None:
                shapes.setdefault(shape, name)
                self._numbers.append(number)
        if not self._numbers:
            raise ArgumentError(f"there are no readable images; {len(self.broken)} cannot be read.")
        if len(shapes) > 1:
            few = "; ".join(f"{name} is {shape}" for shape, name in list(shapes.items())[:3])
            raise ArgumentError(f"the images have several shapes (channels, height, width): {few}. Give size and channels.")
        self.shape: tuple[int, ...] = next(iter(shapes))
        self._labels = None if labels is None else int_labels(labels, len(names))
        self.num_classes = None if self._labels is None else len(classes) if classes else int(self._labels.max()) + 1
        self._kept: dict[int, np.ndarray] = {}
        log.info("%d images become %s with values from -1 to 1", len(self._numbers), self.shape)

    @classmethod
    def from_folder(
        cls, path: str | os.PathLike[str], *, labels: bool = False, framing: Framing | None = None, on_error: str = "raise"
    ) -> Images:
        """The image files in a folder and its subfolders, in natural order of their names (2 before 10). Links are followed.

        A warning counts the files that are skipped: hidden files and folders, files without an image suffix, and with ``labels``
        images outside a class folder.

        Args:
            labels: Use the folders directly in ``path`` as classes, numbered in the order of their names.

        Raises:
            ArgumentError: the folder does not exist, or has no image (in a class folder).
        """
        root = Path(path)
        if not root.is_dir():
            raise ArgumentError(f"there is no folder {str(root)!r} of images.")
        files, skipped = image_files(root)
        numbers = classes = None
        if labels:
            if lost := [p for p in files if p.parent == root]:
                skipped["images outside a class folder"] = len(lost)
            files = [p for p in files if p.parent != root]
            classes = list(dict.fromkeys(p.relative_to(root).parts[0] for p in files))
            numbers = np.array([classes.index(p.relative_to(root).parts[0]) for p in files], dtype=np.int64)
            empty = sum(p.is_dir() and not p.name.startswith(".") for p in root.iterdir()) - len(classes)
            if empty:
                skipped["folders without an image"] = empty
        if not files and any((root / name).is_file() for name in ("state.json", "dataset_dict.json")):
            raise ArgumentError(f'{str(root)!r} is a folder of Hugging Face datasets; read it as one: data.kind = "datasets".')
        counts = ", ".join(f"{count} {what}" for what, count in sorted(skipped.items()))
        if not files:
            where = "in class folders " if labels else ""
            there = f" There are: {counts}." if counts else ""
            raise ArgumentError(f"there are no images {where}under {str(root)!r}; they end in {', '.join(SUFFIXES)}.{there}")
        if counts:
            log.warning("skipped under %s: %s", root, counts)
        image = pillow()
        names = [str(p.relative_to(root)) for p in files]
        return cls(names, lambda i: image.open(files[i]), numbers, classes=classes, framing=framing, on_error=on_error)

    def __len__(self) -> int:
        return len(self._numbers)

    def fetch(self, indices: Sequence[int]) -> Batch:
        """See :class:`Source`."""
        x, labels = [], []
        for index in indices:
            number, image = self._load(int(index))
            levels = torch.from_numpy(image)
            x.append(levels if levels.dtype == torch.float32 else levels.to(torch.float32) / 127.5 - 1.0)
            if self._labels is not None:
                labels.append(self._labels[number])
        return torch.stack(x), torch.stack(labels) if labels else None

    def _load(self, index: int) -> tuple[int, np.ndarray]:
        for shift in range(len(self)):
            number = self._numbers[(index + shift) % len(self)]
            if number in self._kept:
                return number, self._kept[number]
            if self._names[number] in self.broken:
                continue
            image = self._read(number, self._framing.frame)
            if image is None:
                continue
            if image.shape != self.shape:
                found = f"the image {self._names[number]} is {image.shape}; its header says {self.shape}"
                raise ArgumentError(f"{found}. Give size and channels.")
            if len(self) * image.nbytes <= KEPT_BYTES:
                self._kept[number] = image
            return number, image
        raise TrainingError("none of the images can be read.")

    def _read(self, number: int, what: Callable[[Any], Result]) -> Result | None:
        """Call ``what`` on an open image; None if it cannot be read."""
        try:
            with self._open(number) as image:
                return what(image)
        except ArgumentError as error:
            raise ArgumentError(f"the image {self._names[number]} cannot be used: {error}") from None
        except Exception as error:  # Pillow's readers raise errors of many kinds
            self._broken(number, error)
            return None

    def _broken(self, number: int, error: Exception) -> None:
        name = self._names[number]
        if self._on_error == "raise":
            hint = "Repair or remove it, or pass on_error='skip'."
            raise TrainingError(f"the image {name} cannot be read: {error}. {hint}") from error
        self.broken[name] = str(error)
        log.warning("skipped %s, which cannot be read (%s); %d so far", name, error, len(self.broken))
