"""Rules for the data that lie beside a model file.

A location is text from the file, so it is treated as hostile: it must stay in the model's folder, reach a regular file
through no link, and the bytes it asks for must exist. Checked for every tensor before a runtime opens anything.
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
        tensors: What the file asks for.
        folder: The folder of the model file, which locations are relative to.
        link: Where the model was asked for by a link, the folder of that link: for the message only.

    Returns:
        The files, each once, in order of first use.

    Raises:
        ArtifactError: a location leaves the folder, is a link or no regular file, or is too short. Names the tensor.
    """
    sizes: dict[str, int] = {}
    for tensor in tensors:
        if tensor.location not in sizes:
            sizes[tensor.location] = _size(tensor, folder, link)
        size = sizes[tensor.location]
        end = tensor.offset + (tensor.length or 0)
        if end > size:
            raise ArtifactError(
                f"tensor {tensor.name!r}: its external data end at byte {end} of {tensor.location!r}, which has {size}; "
                f"the file beside the model is truncated or of another model."
            )
    return tuple(dict.fromkeys(folder / location for location in sizes))


def _size(tensor: ExternalTensor, folder: Path, link: Path | None) -> int:
    location = tensor.location

    def refuse(why: str) -> ArtifactError:
        return ArtifactError(f"tensor {tensor.name!r}: its external data location {location[:200]!r} {why}.")

    if not location:
        raise refuse("is empty")
    if "\\" in location or not location.isprintable():
        raise refuse("has a backslash or a control character; folders are separated by '/'")
    if location.startswith("*"):
        raise refuse("is a memory address, which only a runtime may use in its own process")
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
                    f"lies beside the link in {str(link)!r}, but the model file itself lies in {str(folder)!r}, under names of its "
                    f"own, as in a hub's cache, and no runtime reads weights from elsewhere. Copy the folder with its links "
                    f"followed (cp -rL), or download it into a folder (huggingface_hub: local_dir=)"
                ) from None
            raise refuse("does not exist; it must lie beside the model file") from None
        last = i == len(path.parts) - 1
        if stat.S_ISLNK(status.st_mode):
            raise refuse("is or goes through a symbolic link; replace the link by the file itself")
        if not (stat.S_ISREG if last else stat.S_ISDIR)(status.st_mode):
            raise refuse("is not a regular file")
    return status.st_size
