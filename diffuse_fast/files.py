"""Writing files: whole or not at all."""

from __future__ import annotations

import os
import re
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import DiffuseFastError, OutputError

try:
    import fcntl
except ImportError:  # not on Windows, where leftovers stay
    fcntl = None  # type: ignore[assignment]


def writable(path: str | os.PathLike[str]) -> Path:
    """The path, if a file can be put there: asked before the work whose result it is to hold.

    Raises:
        OutputError: its folder is not there or cannot be written, or what is there is no file.
    """
    if "\0" in str(path):
        raise OutputError(f"cannot write {str(path)!r}: no path has a null character.")
    target = _followed(path)
    with _told(target):
        if target.exists() and not target.is_file():
            raise OutputError(f"cannot write {str(target)!r}: it exists and is not a file.")
        if not target.parent.is_dir():
            raise OutputError(f"cannot write {str(target)!r}: there is no folder {str(target.parent)!r}.")
        # Permissions, quotas and read-only mounts are told by trying.
        partial = _beside(target)
        partial.touch(exist_ok=False)
        partial.unlink()
    return Path(path)


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Within it, write the file whose path it gives, which lies beside ``path`` and has its suffix. At the end that file
    takes the place of ``path``; after an exception, an interrupt too, it is gone and ``path`` is as it was.

    A file that is replaced keeps its permissions, and a link is followed. What killed processes left of earlier writes of ``path``
    goes.

    Raises:
        OutputError: the file cannot be written.

    Example:
        >>> from diffuse_fast.files import replacing
        >>> with replacing("/tmp/greeting.txt") as partial:
        ...     _ = partial.write_text("hello")
    """
    target = _followed(path)
    partial = _beside(target)
    with _told(target):
        _sweep(target)
        before = os.stat(target) if target.exists() else None
        # The lock is held as long as this process lives: what nobody holds one on was left by a killed one.
        descriptor = os.open(partial, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o666 if before is None else before.st_mode & 0o777)
        try:
            _lock(descriptor)
            yield partial
            if before is not None:
                os.chmod(partial, before.st_mode & 0o777)
            os.replace(partial, target)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
        finally:
            os.close(descriptor)


def _followed(path: str | os.PathLike[str]) -> Path:
    """Where a path leads: a link stays, and what it leads to is written."""
    return Path(os.path.realpath(path)) if os.path.islink(path) else Path(path)


def _sweep(target: Path) -> None:
    """Remove what killed processes left of earlier writes of a file."""
    if fcntl is None:
        return
    name = re.compile(rf"\.{re.escape(target.stem)}\.[0-9a-f]{{8}}{re.escape(target.suffix)}")
    for path in target.parent.iterdir():
        try:
            # One of the last second may not be locked yet.
            if name.fullmatch(path.name) and path.stat().st_mtime < time.time() - 1 and _abandoned(path):
                path.unlink()
        except OSError:  # somebody else's, or gone meanwhile
            continue


def _abandoned(path: Path) -> bool:
    descriptor = os.open(path, os.O_RDWR | getattr(os, "O_NONBLOCK", 0))
    try:
        return _lock(descriptor)
    finally:
        os.close(descriptor)


def _lock(descriptor: int) -> bool:
    """Whether the file could be locked; False where another process has it, or where the file system has no locks."""
    try:
        if fcntl is not None:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
    except OSError:
        pass
    return False


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
