"""Replace the document in a model file. All other bytes are copied, without the onnx package."""

from __future__ import annotations

import mmap
from pathlib import Path
from typing import BinaryIO

from ..onnx.header import read
from ..onnx.protobuf import Buffer, Span, WireReader, bytes_field
from .document import KEY

_METADATA = 14  # ModelProto.metadata_props
_CHUNK = 1 << 24


def rewrite(source: Path, target: Path, document: str) -> None:
    """Copy ``source`` to ``target`` with another document, which replaces the old one or is appended if there is none.

    Raises:
        ArtifactError: ``source`` is not a model file.
        OSError: ``target`` cannot be written.
    """
    read(source)  # raises errors about the file
    with open(source, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as buffer, open(target, "wb") as out:
        old = _entry_at(WireReader(buffer))
        _copy(buffer, Span(0, old.start), out)
        out.write(_entry(document))
        _copy(buffer, Span(old.stop, len(buffer)), out)


def _entry_at(wire: WireReader) -> Span:
    """Return the range of the entry with the document, including its key and length."""
    for f in wire.fields(wire.root, "the model"):
        if f.number == _METADATA:
            for part in wire.fields(wire.message(f, "a metadata entry"), "a metadata entry"):
                if part.number == 1 and wire.text(part, "a metadata key") == KEY:
                    return Span(f.begin, f.span.stop)
    return Span(wire.root.stop, wire.root.stop)


def _entry(document: str) -> bytes:
    """Encode the document as a metadata entry, a field of ModelProto."""
    return bytes_field(_METADATA, bytes_field(1, KEY.encode()) + bytes_field(2, document.encode()))


def _copy(buffer: Buffer, span: Span, out: BinaryIO) -> None:
    for start in range(span.start, span.stop, _CHUNK):
        out.write(buffer[start : min(start + _CHUNK, span.stop)])
