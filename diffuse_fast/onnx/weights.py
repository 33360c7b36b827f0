"""Read the values of float32 initializers of an untrusted ONNX file, one after the other."""

from __future__ import annotations

import mmap
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from ..errors import ArtifactError
from . import header, tensor
from .external_data import check
from .header import ExternalTensor
from .protobuf import Span, WireReader

_GRAPH, _INITIALIZER, _NAME = 7, 5, 8


def read(path: Path, sizes: Mapping[str, int]) -> Iterator[tuple[str, np.ndarray]]:
    """Yield initializers by name, flat, in the order of the file.

    Args:
        path: The model file.
        sizes: The names to read, and how many elements each has.

    Raises:
        ArtifactError: the file is damaged, or an initializer is missing, not float32 or of another size.
    """
    external = {one.name: one for one in header.read(path).external}
    missing = set(sizes)
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        wire = WireReader(data)
        for span in (wire.message(f, "the graph") for f in wire.fields(wire.root, "the model") if f.number == _GRAPH):
            for f in wire.fields(span, "the graph"):
                if f.number != _INITIALIZER:
                    continue
                one = wire.message(f, "an initializer")
                name = _name(wire, one)
                if name not in missing:
                    continue
                missing.remove(name)
                array = _external(external[name], path.parent, sizes[name]) if name in external else tensor.array(wire, one)
                if array is None or array.dtype != np.float32 or array.size != sizes[name]:
                    raise ArtifactError(f"the initializer {name!r} of {str(path)!r} does not hold {sizes[name]} float32 numbers.")
                yield name, array.reshape(-1)
    if missing:
        raise ArtifactError(f"{str(path)!r} has no initializer {min(missing)!r}.")


def _name(wire: WireReader, span: Span) -> str:
    return next((wire.text(f, "the name of a tensor") for f in wire.fields(span, "a tensor") if f.number == _NAME), "")


def _external(one: ExternalTensor, folder: Path, size: int) -> np.ndarray:
    (path,) = check([ExternalTensor(one.name, one.location, one.offset, 4 * size)], folder)
    return np.fromfile(path, "<f4", size, offset=one.offset)
