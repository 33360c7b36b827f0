"""What a model is: all its files, as they were when they were checked. A file that was replaced or written to since is told by its
inode, size and times, before it is read again and afterwards."""

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
    """The files of a model, the .onnx first, each with its state."""

    paths: tuple[Path, ...] = ()
    states: tuple[State, ...] = ()

    @property
    def current(self) -> bool:
        """Whether the files are still those."""
        try:
            return all(state(path) == known for path, known in zip(self.paths, self.states, strict=True))
        except ArtifactNotFoundError:
            return False

    def check(self) -> None:
        """Refuse files that are others than those that were checked.

        Raises:
            ArtifactNotFoundError: one is gone. ArtifactError: one was replaced or written to.
        """
        for path, known in zip(self.paths, self.states, strict=True):
            if state(path) != known:
                raise ArtifactError(
                    f"the file {str(path)!r} was replaced or written to after the model was loaded; load it again: "
                    f"df.load({str(self.paths[0])!r})."
                )

    @contextmanager
    def unchanged(self) -> Iterator[None]:
        """Within it, read the files: they are checked before and afterwards, so that what was read is of one model.

        Raises:
            ArtifactNotFoundError, ArtifactError: as :meth:`check`.
        """
        self.check()
        try:
            yield
        finally:
            self.check()


def state(path: Path) -> State:
    """What tells a file from what takes its place; ctime among it, which nobody can set back as mtime can.

    Raises:
        ArtifactNotFoundError: it cannot be looked at.
    """
    try:
        found = os.stat(path)
    except OSError as error:
        raise ArtifactNotFoundError(f"the model file {str(path)!r} cannot be read any more: {error}.") from None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
