"""Write files atomically: either the complete file is written, or nothing changes."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import DiffuseFastError, OutputError

try:
    import fcntl
except ImportError:  # not on Windows, where leftover files are not removed
    fcntl = None  # type: ignore[assignment]


def writable(path: str | os.PathLike[str]) -> Path:
    """Check that a file can be written, before the work whose result it will hold, and return the path.

    Raises:
        OutputError: the folder does not exist or cannot be written, or the path exists and is not a file.
    """
    if "\0" in str(path):
        raise OutputError(f"cannot write {str(path)!r}: a path must not have a null character.")
    target = _followed(path)
    with _as_output_error(target):
        if target.exists() and not target.is_file():
            raise OutputError(f"cannot write {str(target)!r}: it exists and is not a file.")
        if not target.parent.is_dir():
            raise OutputError(f"cannot write {str(target)!r}: there is no folder {str(target.parent)!r}.")
        # Permissions, quotas and read-only mounts are found by trying.
        partial = _beside(target)
        partial.touch(exist_ok=False)
        partial.unlink()
    return Path(path)


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Context that yields the path of a temporary file, beside ``path`` and with its suffix, to write to.

    At the end the temporary file replaces ``path``. After an exception or an interrupt it is removed and ``path`` is unchanged.
    A replaced file keeps its permissions, and a symbolic link is followed. Temporary files that killed processes left are removed.

    Raises:
        OutputError: the file cannot be written.

    Example:
        >>> from diffuse_fast.files import replacing
        >>> with replacing("greeting.txt") as partial:
        ...     _ = partial.write_text("hello")
    """
    target = _followed(path)
    partial = _beside(target)
    with _as_output_error(target):
        _sweep(target)
        before = os.stat(target) if target.exists() else None
        # The lock is held while this process lives. A temporary file without a lock was left by a killed process.
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
    """Return the target of a symbolic link, or the path itself. The link is kept and its target is written."""
    return Path(os.path.realpath(path)) if os.path.islink(path) else Path(path)


def _sweep(target: Path) -> None:
    """Remove temporary files that killed processes left when they wrote this file."""
    if fcntl is None:
        return
    name = re.compile(rf"\.{re.escape(target.stem)}\.[0-9a-f]{{8}}{re.escape(target.suffix)}")
    for path in target.parent.iterdir():
        try:
            # A file of the last second may not be locked yet.
            if name.fullmatch(path.name) and path.stat().st_mtime < time.time() - 1 and _abandoned(path):
                path.unlink()
        except OSError:  # owned by another user, or already removed
            continue


def _abandoned(path: Path) -> bool:
    descriptor = os.open(path, os.O_RDWR | getattr(os, "O_NONBLOCK", 0))
    try:
        return _lock(descriptor)
    finally:
        os.close(descriptor)


def _lock(descriptor: int) -> bool:
    """Lock a file; return False if another process holds the lock or the file system has no locks."""
    try:
        if fcntl is not None:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
    except OSError:
        pass
    return False


def _beside(target: Path) -> Path:
    return target.with_name(f".{target.stem}.{os.urandom(4).hex()}{target.suffix}")


@contextmanager
def _as_output_error(target: Path) -> Iterator[None]:
    """Context that turns an OSError into an OutputError."""
    try:
        yield
    except DiffuseFastError:
        raise
    except OSError as error:
        raise OutputError(f"cannot write {str(target)!r}: {error.strerror or error}.") from error
