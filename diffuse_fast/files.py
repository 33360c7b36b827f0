"""Writing files: whole or not at all."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import DiffuseFastError, OutputError


def writable(path: str | os.PathLike[str]) -> Path:
    """The path, if a file can be put there: asked before the work whose result it is to hold.

    Raises:
        OutputError: its folder is not there or cannot be written, or what is there is no file.
    """
    target = Path(path)
    if "\0" in str(target):
        raise OutputError(f"cannot write {str(target)!r}: no path has a null character.")
    with _told(target):
        if target.exists() and not target.is_file():
            raise OutputError(f"cannot write {str(target)!r}: it exists and is not a file.")
        if not target.parent.is_dir():
            raise OutputError(f"cannot write {str(target)!r}: there is no folder {str(target.parent)!r}.")
        # Permissions, quotas and read-only mounts are told by trying.
        partial = _beside(target)
        partial.touch(exist_ok=False)
        partial.unlink()
    return target


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Within it, write the file whose path it gives, which lies beside ``path`` and has its suffix. At the end that file
    takes the place of ``path``; after an exception, an interrupt too, it is gone and ``path`` is as it was.

    Raises:
        OutputError: the file cannot be written.

    Example:
        >>> from diffuse_fast.files import replacing
        >>> with replacing("/tmp/greeting.txt") as partial:
        ...     _ = partial.write_text("hello")
    """
    target = Path(path)
    partial = _beside(target)
    with _told(target):
        try:
            yield partial
            os.replace(partial, target)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise


def _beside(target: Path) -> Path:
    return target.with_name(f".{target.stem}.{secrets.token_hex(4)}{target.suffix}")


@contextmanager
def _told(target: Path) -> Iterator[None]:
    """What the system says of a file, as the error of this package."""
    try:
        yield
    except DiffuseFastError:
        raise
    except OSError as error:
        raise OutputError(f"cannot write {str(target)!r}: {error.strerror or error}.") from error
