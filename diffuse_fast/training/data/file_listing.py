"""The picture files under a folder, in the order in which people count."""

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
    """A key to sort names by: numbers in them count as numbers, so that 2 comes before 10."""
    return [int(part) if part.isdigit() else part for part in re.split(r"([0-9]+)", name)], name


def pictures(root: Path) -> tuple[list[Path], Counter[str]]:
    """The picture files in a folder and the folders in it, links followed; and what was left out, by kind, with its number.

    Hidden files and folders (``.ipynb_checkpoints``) are left out, and so are files that do not end in one of :data:`SUFFIXES`.
    """
    left_out: Counter[str] = Counter()

    def walk(folder: Path, above: frozenset[str]) -> Iterator[Path]:
        for name in sorted(os.listdir(folder), key=natural):
            path = folder / name
            if name.startswith("."):
                left_out["hidden"] += 1
            elif path.is_dir():
                real = os.path.realpath(path)
                if real in above:
                    left_out["links to a folder they are in"] += 1
                else:
                    yield from walk(path, above | {real})
            elif not path.is_file():
                left_out["links to nothing"] += 1
            elif path.suffix.lower() in SUFFIXES:
                yield path
            else:
                left_out[path.suffix.lower() or "without a suffix"] += 1

    return list(walk(root, frozenset([os.path.realpath(root)]))), left_out
