"""Read the values of float32 initializers of an untrusted ONNX file, one at a time."""

from __future__ import annotations

import mmap
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ..errors import ArtifactError
from . import tensor
from .external_data import check
from .header import ExternalTensor, parse_tensor
from .protobuf import Span, WireReader

_GRAPH, _INITIALIZER = 7, 5


class Initializers:
    """Initializers of a file, which is open in a ``with`` block. Each is read when it is asked for, and not kept.

    The file is not mapped while weights are read: if it is truncated meanwhile, that is an error and not the end of the process.

    Args:
        path: The model file.
        sizes: The names to read, and how many elements each has.

    Raises:
        ArtifactError: the file is damaged, or an initializer is missing, not float32 or of another size.
    """

    def __init__(self, path: Path, sizes: Mapping[str, int]):
        self._path = path
        self._sizes = dict(sizes)
        self._places = _places(path, self._sizes)
        self._open: dict[Path, int] = {}

    def __enter__(self) -> Initializers:
        return self

    def __exit__(self, *_: object) -> None:
        for descriptor in self._open.values():
            os.close(descriptor)
        self._open.clear()

    def read(self, name: str) -> np.ndarray:
        """Read an initializer, flat.

        Raises:
            ArtifactError: the file is shorter than it was.
        """
        path, spans = self._places[name]
        if path not in self._open:
            self._open[path] = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
        out = np.empty(self._sizes[name], "<f4")
        data = out.data.cast("B")
        for start, stop in spans:
            while start < stop:
                count = os.preadv(self._open[path], [data[: stop - start]], start)
                if count == 0:
                    raise ArtifactError(f"{str(path)!r} was truncated while the initializer {name!r} was read.")
                start, data = start + count, data[count:]
        return out


def _places(path: Path, sizes: Mapping[str, int]) -> dict[str, tuple[Path, list[Span]]]:
    """The file and the ranges of bytes that hold each initializer."""
    found: dict[str, tuple[Path, list[Span]]] = {}
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        wire = WireReader(data)
        for span in (wire.message(f, "the graph") for f in wire.fields(wire.root, "the model") if f.number == _GRAPH):
            for f in wire.fields(span, "the graph"):
                if f.number != _INITIALIZER:
                    continue
                one = wire.message(f, "an initializer")
                name, external = parse_tensor(wire, one)
                if name not in sizes or name in found:
                    continue
                holder, spans = path, tensor.floats(wire, one)
                if external is not None:
                    holder, spans = _external(external, path.parent, sizes[name])
                if spans is None or sum(stop - start for start, stop in spans) != 4 * sizes[name]:
                    raise ArtifactError(f"the initializer {name!r} of {str(path)!r} does not hold {sizes[name]} float32 numbers.")
                found[name] = holder, spans
    if missing := sizes.keys() - found.keys():
        raise ArtifactError(f"{str(path)!r} has no initializer {min(missing)!r}.")
    return found


def _external(one: ExternalTensor, folder: Path, size: int) -> tuple[Path, list[Span]]:
    (path,) = check([ExternalTensor(one.name, one.location, one.offset, 4 * size)], folder)
    return path, [Span(one.offset, one.offset + 4 * size)]
