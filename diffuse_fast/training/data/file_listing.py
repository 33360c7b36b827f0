"""The image files under a folder, in natural order of their names."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

SUFFIXES = (
    ".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".avif", ".jp2", ".j2k", ".jpx", ".gif", ".bmp", ".dib", ".tif",
    ".tiff", ".tga", ".ppm", ".pgm", ".pbm", ".pnm", ".pfm", ".qoi",
)  # fmt: skip


def natural(name: str) -> tuple[list[str | int], str]:
    """A sort key for names in which numbers compare as numbers, so that 2 comes before 10."""
    return [int(part) if part.isdigit() else part for part in re.split(r"([0-9]+)", name)], name


def image_files(root: Path) -> tuple[list[Path], Counter[str]]:
    """The image files in a folder and its subfolders, following links, and the number of skipped files by kind.

    Hidden files and folders (``.ipynb_checkpoints``) and files that do not end in one of :data:`SUFFIXES` are skipped.
    """
    skipped: Counter[str] = Counter()

    def walk(folder: Path, above: frozenset[str]) -> Iterator[Path]:
        for name in sorted(os.listdir(folder), key=natural):
            path = folder / name
            if name.startswith("."):
                skipped["hidden"] += 1
            elif path.is_dir():
                real = os.path.realpath(path)
                if real in above:
                    skipped["links to a parent folder"] += 1
                else:
                    yield from walk(path, above | {real})
            elif not path.is_file():
                skipped["broken links"] += 1
            elif path.suffix.lower() in SUFFIXES:
                yield path
            else:
                skipped[path.suffix.lower() or "without a suffix"] += 1

    return list(walk(root, frozenset([os.path.realpath(root)]))), skipped
