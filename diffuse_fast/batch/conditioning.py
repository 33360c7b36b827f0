"""The conditioning of all samples of a batch."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ArgumentError


def conditioning_of(values: Mapping[str, Sequence[Any] | np.ndarray], ids: range) -> dict[str, list[Any]]:
    """The conditioning of some samples: the values by input name, assigned to all ids in turn."""
    return {name: [given[i % len(given)] for i in ids] for name, given in values.items()}


def read_conditioning(path: Path) -> tuple[dict[str, np.ndarray], str]:
    """Read an ``.npz`` of one array per input.

    Returns:
        The arrays by name, and the SHA-256 of the file.

    Raises:
        ArgumentError: it cannot be read.
    """
    try:
        with open(path, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            file.seek(0)
            arrays = np.load(file, allow_pickle=False)
            if not isinstance(arrays, np.lib.npyio.NpzFile):
                raise ValueError("it is not an .npz")
            return {name: arrays[name] for name in arrays.files}, digest
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ArgumentError(f"the conditioning {str(path)!r} cannot be read: {error}.") from None
