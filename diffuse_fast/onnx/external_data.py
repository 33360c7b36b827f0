"""Checks of the external data of a model file.

A location is text from an untrusted file. It must stay in the model's folder and lead to a regular file without a symbolic link,
and the bytes that it refers to must exist. Every tensor is checked before a runtime opens anything.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from ..errors import ArtifactError
from .header import ExternalTensor


def check(tensors: Iterable[ExternalTensor], folder: Path, link: Path | None = None) -> tuple[Path, ...]:
    """Check the external data of a model file in ``folder``.

    Args:
        tensors: The external tensors of the file.
        folder: The folder of the model file. Locations are relative to it.
        link: The folder of the symbolic link that led to the model file, if any. Used in a message only.

    Returns:
        The files without duplicates, in order of first use.

    Raises:
        ArtifactError: a location leaves the folder, or its file is a link, not a regular file, or too short. The message names
            the tensor.
    """
    sizes: dict[str, int] = {}
    for tensor in tensors:
        if tensor.location not in sizes:
            sizes[tensor.location] = _size(tensor, folder, link)
        size = sizes[tensor.location]
        end = tensor.offset + (tensor.length or 0)
        if end > size:
            raise ArtifactError(
                f"tensor {tensor.name!r}: its external data end at byte {end} of {tensor.location!r}, which has {size} bytes; "
                f"the file is truncated or belongs to another model."
            )
    return tuple(dict.fromkeys(folder / location for location in sizes))


def _size(tensor: ExternalTensor, folder: Path, link: Path | None) -> int:
    location = tensor.location

    def refuse(why: str) -> ArtifactError:
        return ArtifactError(f"tensor {tensor.name!r}: its external data location {location[:200]!r} {why}.")

    if not location:
        raise refuse("is empty")
    if "\\" in location or not location.isprintable():
        raise refuse("has a backslash or a control character; separate folders by '/'")
    if location.startswith("*"):
        raise refuse("is a memory address, which is valid only inside the process of a runtime")
    path = PurePosixPath(location)
    if path.is_absolute():
        raise refuse("is absolute; it must be relative to the model file")
    if ".." in path.parts:
        raise refuse("leaves the model's folder")
    if not path.parts:
        raise refuse("is the model's folder")
    here = folder
    for i, part in enumerate(path.parts):
        here = here / part
        try:
            status = os.lstat(here)
        except (OSError, ValueError):
            if link is not None and os.path.lexists(link / path):
                raise refuse(
                    f"is beside the link in {str(link)!r}, but the model file itself is in {str(folder)!r}, as in a hub's cache. "
                    f"Runtimes read weights only from the folder of the model file. Copy the folder with its links followed "
                    f"(cp -rL), or download it into a folder (huggingface_hub: local_dir=)"
                ) from None
            raise refuse("does not exist; it must be beside the model file") from None
        last = i == len(path.parts) - 1
        if stat.S_ISLNK(status.st_mode):
            raise refuse("is a symbolic link or goes through one; replace the link by the file itself")
        if not (stat.S_ISREG if last else stat.S_ISDIR)(status.st_mode):
            raise refuse("is not a regular file")
    return status.st_size
