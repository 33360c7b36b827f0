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
from .file_listing import SUFFIXES, pictures
from .source import Batch, whole_labels

log = logging.getLogger(__name__)

Result = TypeVar("Result")
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
        value_range: (-1, 1): what the levels of the pictures become.
        attribution: Whom the pictures are of, where their licence asks to say it; None where nobody said.

    Raises:
        ArgumentError: pictures of several sizes or channels and no framing that makes them one; no pictures; numbers of which
            nothing says what they count to (see :class:`Framing`).
        TrainingError: one cannot be read, and ``on_error`` is ``raise``.
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
            raise ArgumentError(f"there are no pictures that can be read; {len(self.broken)} cannot be.")
        if len(shapes) > 1:
            few = "; ".join(f"{name} is {shape}" for shape, name in list(shapes.items())[:3])
            raise ArgumentError(f"the pictures have several shapes (channels, height, width): {few}. Give size and channels.")
        self.shape: tuple[int, ...] = next(iter(shapes))
        self._labels = None if labels is None else whole_labels(labels, len(names))
        self.num_classes = None if self._labels is None else len(classes) if classes else int(self._labels.max()) + 1
        self._kept: dict[int, np.ndarray] = {}
        log.info("%d pictures become %s with values from -1 to 1", len(self._numbers), self.shape)

    @classmethod
    def from_folder(
        cls, path: str | os.PathLike[str], *, labels: bool = False, framing: Framing | None = None, on_error: str = "raise"
    ) -> Images:
        """The image files in a folder and the folders in it, links followed, in the order of their names (2 before 10).

        What is left out is counted in a warning: hidden files and folders, files that are no pictures by their suffix, and with
        ``labels`` pictures that lie in no folder of a class.

        Args:
            labels: Take the folders directly in ``path`` as classes, numbered in the order of their names.

        Raises:
            ArgumentError: there is no such folder, or no image (in a class folder) in it.
        """
        root = Path(path)
        if not root.is_dir():
            raise ArgumentError(f"there is no folder {str(root)!r} of images.")
        files, left_out = pictures(root)
        numbers = classes = None
        if labels:
            if lost := [p for p in files if p.parent == root]:
                left_out["pictures in no folder of a class"] = len(lost)
            files = [p for p in files if p.parent != root]
            # In the order of the files, which is that of the folders.
            classes = list(dict.fromkeys(p.relative_to(root).parts[0] for p in files))
            numbers = np.array([classes.index(p.relative_to(root).parts[0]) for p in files], dtype=np.int64)
            empty = sum(p.is_dir() and not p.name.startswith(".") for p in root.iterdir()) - len(classes)
            if empty:
                left_out["folders without a picture"] = empty
        if not files and any((root / name).is_file() for name in ("state.json", "dataset_dict.json")):
            raise ArgumentError(f'{str(root)!r} is a folder of Hugging Face datasets; read it as one: data.kind = "datasets".')
        told = ", ".join(f"{count} {what}" for what, count in sorted(left_out.items()))
        if not files:
            where = "in folders of classes " if labels else ""
            there = f" There are: {told}." if told else ""
            raise ArgumentError(f"there are no images {where}under {str(root)!r}; they end in {', '.join(SUFFIXES)}.{there}")
        if told:
            log.warning("left out under %s: %s", root, told)
        image = pillow()
        names = [str(p.relative_to(root)) for p in files]
        return cls(names, lambda i: image.open(files[i]), numbers, classes=classes, framing=framing, on_error=on_error)

    def __len__(self) -> int:
        return len(self._numbers)

    def fetch(self, indices: Sequence[int]) -> Batch:
        """As of :class:`Source`."""
        x, labels = [], []
        for index in indices:
            number, picture = self._readable(int(index))
            levels = torch.from_numpy(picture)
            x.append(levels if levels.dtype == torch.float32 else levels.to(torch.float32) / 127.5 - 1.0)
            if self._labels is not None:
                labels.append(self._labels[number])
        return torch.stack(x), torch.stack(labels) if labels else None

    def _readable(self, index: int) -> tuple[int, np.ndarray]:
        for shift in range(len(self)):
            number = self._numbers[(index + shift) % len(self)]
            if number in self._kept:
                return number, self._kept[number]
            if self._names[number] in self.broken:
                continue
            picture = self._read(number, self._framing.frame)
            if picture is None:
                continue
            if picture.shape != self.shape:
                found = f"the picture {self._names[number]} is {picture.shape}; its header said {self.shape}"
                raise ArgumentError(f"{found}. Give size and channels.")
            if len(self) * picture.nbytes <= KEPT_BYTES:
                self._kept[number] = picture
            return number, picture
        raise TrainingError("not one picture can be read.")

    def _read(self, number: int, what: Callable[[Any], Result]) -> Result | None:
        """What is asked of a picture; None where it cannot be read."""
        try:
            with self._open(number) as image:
                return what(image)
        except ArgumentError as error:
            raise ArgumentError(f"the picture {self._names[number]} cannot be used: {error}") from None
        except Exception as error:  # Pillow's readers raise errors of many kinds; that of a giant picture is of none
            self._broken(number, error)
            return None

    def _broken(self, number: int, error: Exception) -> None:
        name = self._names[number]
        if self._on_error == "raise":
            hint = "Repair or remove it, or say on_error='skip'."
            raise TrainingError(f"the picture {name} cannot be read: {error}. {hint}") from error
        self.broken[name] = str(error)
        log.warning("skipped %s, which cannot be read (%s); %d so far", name, error, len(self.broken))
