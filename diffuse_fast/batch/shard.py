"""The file of one shard. It is written at once, so a shard that exists is complete.

=======  ==================================================================================================================
``npz``  ``ids`` (k,) int64, ``samples`` (k, *shape) float32, and ``failed``, the ids whose network output was not finite
``png``  a ``.zip`` of one picture per sample, named by its id, and ``shard.json`` with ``ids`` and ``failed``
=======  ==================================================================================================================

Every id of the shard is in one of ``ids`` and ``failed``, once.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from .. import image_grid
from ..files import replacing
from ..model import Model, to_uint8

_DIGITS = 8  # of an id in a file name, at least


def write(path: Path, ids: Sequence[int], samples: np.ndarray, failed: Sequence[int], model: Model) -> None:
    """Write a shard in the format of its suffix.

    Args:
        path: ``.npz`` or ``.zip``.
        ids, samples: The samples, (k, *shape) float32, and their ids.
        failed: Ids without a sample.
        model: The model, for the value range of pictures.

    Raises:
        OutputError: it cannot be written.
    """
    with replacing(path) as partial:
        if path.suffix == ".npz":
            np.savez(partial, ids=np.array(ids, np.int64), samples=samples, failed=np.array(failed, np.int64))
            return
        with zipfile.ZipFile(partial, "w") as file:  # not compressed: a PNG is
            for number, sample in zip(ids, samples, strict=True):
                picture = np.moveaxis(to_uint8(sample, model), 0, -1)
                levels = picture[..., 0] if picture.shape[-1] == 1 else picture
                file.writestr(zipfile.ZipInfo(f"{number:0{_DIGITS}d}.png"), image_grid.png(levels))
            listed = {"ids": list(ids), "failed": list(failed)}
            file.writestr(zipfile.ZipInfo("shard.json"), json.dumps(listed))


def failed_in(path: Path, ids: range) -> list[int] | None:
    """The failed ids of a shard that is complete; None if it is missing, damaged or of other ids."""
    try:
        if path.suffix == ".npz":
            with open(path, "rb") as opened, np.load(opened, allow_pickle=False) as file:  # np.load leaves a damaged file open
                there, failed = file["ids"].tolist(), file["failed"].tolist()
                complete = "samples" in file.files
        else:
            with zipfile.ZipFile(path) as file:
                listed = json.loads(file.read("shard.json"))
                there, failed = listed["ids"], listed["failed"]
                complete = len(file.namelist()) == len(there) + 1
        return failed if complete and sorted(there + failed) == list(ids) else None
    except (OSError, EOFError, ValueError, KeyError, TypeError, zipfile.BadZipFile):
        return None
