"""Detect model files that were replaced or written to after they were checked, by inode, size and times.

Files are checked before and after they are read again.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ..errors import ArtifactError, ArtifactNotFoundError

State = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Files:
    """The files of a model, the .onnx file first, each with its state."""

    paths: tuple[Path, ...] = ()
    states: tuple[State, ...] = ()

    @property
    def current(self) -> bool:
        """Whether the files are unchanged."""
        try:
            return all(state(path) == known for path, known in zip(self.paths, self.states, strict=True))
        except ArtifactNotFoundError:
            return False

    def check(self) -> None:
        """Check that the files are unchanged.

        Raises:
            ArtifactNotFoundError: a file was removed.
            ArtifactError: a file was replaced or written to.
        """
        for path, known in zip(self.paths, self.states, strict=True):
            if state(path) != known:
                raise ArtifactError(
                    f"the file {str(path)!r} was replaced or written to after the model was loaded; load it again: "
                    f"df.load({str(self.paths[0])!r})."
                )

    @contextmanager
    def unchanged(self) -> Iterator[None]:
        """Context for reading the files: they are checked before and after, so that all that is read belongs to one model.

        Raises:
            ArtifactNotFoundError, ArtifactError: as :meth:`check`.
        """
        self.check()
        try:
            yield
        finally:
            self.check()


def state(path: Path) -> State:
    """Return what identifies a file and its content. It includes ctime, which cannot be set back as mtime can.

    Raises:
        ArtifactNotFoundError: the file cannot be accessed.
    """
    try:
        found = os.stat(path)
    except OSError as error:
        raise ArtifactNotFoundError(f"the model file {str(path)!r} cannot be read any more: {error}.") from None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
