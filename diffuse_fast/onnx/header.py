"""Read the header of an ONNX file: inputs, outputs, metadata and references to external data.

Field numbers are those of ``onnx.proto3``. Weights and nodes are skipped, except for tensors with external data, which may also be
in attributes, subgraphs and functions.
"""

from __future__ import annotations

import mmap
import os
import stat
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import ArtifactError, ArtifactNotFoundError
from .protobuf import Field, Span, WireReader

# TensorProto.DataType -> NumPy's name, for the types that a network's inputs and outputs can have.
DTYPES = {
    1: "float32", 2: "uint8", 3: "int8", 4: "uint16", 5: "int16", 6: "int32", 7: "int64", 8: "string", 9: "bool",
    10: "float16", 11: "float64", 12: "uint32", 13: "uint64", 16: "bfloat16",
}  # fmt: skip

MAX_METADATA = 32 << 20  # bytes of one metadata value: a table of a million betas
MAX_IGNORED = 1 << 20  # bytes of a field that is not used here, such as a comment: runtimes keep it in memory
_DATA = (4, 5, 6, 7, 9, 10, 11)  # fields of TensorProto that hold values
MAX_DEPTH = 32  # subgraphs within subgraphs

# First bytes of other formats, for the message. None of them is opened: a pickle would run code.
_FOREIGN = {
    b"\x80\x02": "a pickle, which runs code when opened",
    b"\x80\x03": "a pickle, which runs code when opened",
    b"\x80\x04": "a pickle, which runs code when opened",
    b"\x80\x05": "a pickle, which runs code when opened",
    b"\x89HDF": "an HDF5 file",
    b"\x93NUMPY": "a NumPy array (.npy)",
    b"\x89PNG": "a PNG image",
    b"\xff\xd8\xff": "a JPEG image",
    b"GIF8": "a GIF image",
    b"GGUF": "a GGUF file of weights",
    b"{": "JSON text",
}


@dataclass(frozen=True, slots=True)
class Value:
    """An input or output of the graph.

    Attributes:
        name: Its name.
        dtype: NumPy's name of its element type; ``"other"`` if it is not a plain tensor.
        shape: Its dimensions; None if the file does not give the rank. A dimension is an int, or the name of a dynamic
            dimension (``""`` if it has no name).
    """

    name: str
    dtype: str
    shape: tuple[int | str, ...] | None


@dataclass(frozen=True, slots=True)
class ExternalTensor:
    """A tensor stored in another file: ``length`` bytes (None: not given) from ``offset`` in ``location``."""

    name: str
    location: str
    offset: int
    length: int | None


@dataclass
class Header:
    """What :func:`read` returns.

    Attributes:
        inputs: Inputs that a caller must give; initializers that old files also list as inputs are left out.
        outputs: Outputs.
        metadata: The metadata of the model.
        external: Tensors with external data, anywhere in the file.
        opset: Version of the default operator set; 0 if the file does not import it.
    """

    inputs: tuple[Value, ...] = ()
    outputs: tuple[Value, ...] = ()
    metadata: dict[str, str] = field(default_factory=dict)
    external: list[ExternalTensor] = field(default_factory=list)
    opset: int = 0


def read(path: Path) -> Header:
    """Read the header of the ONNX file at ``path``. The file is memory-mapped.

    Raises:
        ArtifactNotFoundError: the file does not exist.
        ArtifactError: it is not a regular file, has another format, or is truncated or damaged. The message says where.
    """
    try:
        # O_NONBLOCK: opening a named pipe must not wait for a writer.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0))
    except FileNotFoundError:
        raise ArtifactNotFoundError(f"there is no model file {str(path)!r}.") from None
    except (OSError, ValueError) as error:
        raise ArtifactError(f"the model file {str(path)!r} cannot be opened: {error}.") from None
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise ArtifactError(f"{str(path)!r} is not a regular file; a model is one .onnx file.")
        if status.st_size == 0:
            raise ArtifactError(f"the model file {str(path)!r} is empty.")
        with mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ) as buffer:
            if (what := _foreign(buffer)) is not None:
                raise ArtifactError(f"{str(path)!r} is {what}. Only .onnx files are loaded; df.export writes them.")
            return _HeaderReader(WireReader(buffer)).model()
    finally:
        os.close(descriptor)


def _foreign(buffer: mmap.mmap) -> str | None:
    """Name the format of a file that is known not to be ONNX; None otherwise."""
    if buffer[:4] == b"PK\x03\x04":
        length = int.from_bytes(buffer[26:28], "little")
        if buffer[30 : 30 + length].endswith(b".npy"):
            return "an archive of NumPy arrays (.npz)"
        return "a zip archive, as torch.save writes: a pickle, which runs code when opened"
    header = int.from_bytes(buffer[:8], "little")
    if buffer[8:9] == b"{" and 2 <= header <= len(buffer) - 8:
        return "a safetensors file: weights without their network"
    return next((what for magic, what in _FOREIGN.items() if buffer[: len(magic)] == magic), None)


def parse_value(wire: WireReader, span: Span) -> Value:
    """Parse the ValueInfoProto at ``span``."""
    return _HeaderReader(wire).value(span, "a value")


def parse_opset(wire: WireReader, span: Span) -> int | None:
    """Return the version in the OperatorSetIdProto at ``span``; None if it is not the default operator set."""
    domain, version = "", 0
    for f in wire.fields(span, "an opset import"):
        if f.number == 1:
            domain = wire.text(f, "the domain of an opset import")
        elif f.number == 2:
            version = wire.integer(f, "the version of an opset import")
    return version if domain in ("", "ai.onnx") else None


def parse_tensor(wire: WireReader, span: Span) -> tuple[str, ExternalTensor | None]:
    """Parse the TensorProto at ``span``: its name, and where its numbers are if that is another file."""
    name, location_kind = "", 0
    entries: dict[str, str] = {}
    for f in wire.fields(span, "a tensor"):
        if f.number == 8:
            name = wire.text(f, "a tensor's name")
        elif f.number == 13:
            key, value = _entry(wire, wire.message(f, "external_data"), "external_data")
            if key in entries:
                raise ArtifactError(f"tensor {name!r}: external_data contains {key!r} twice.")
            entries[key] = value
        elif f.number == 14:
            location_kind = wire.integer(f, "data_location")
        elif f.number not in _DATA:
            _ignored(f, "a tensor")
    if location_kind not in (0, 1):
        raise ArtifactError(f"tensor {name!r}: data_location is {location_kind}; it must be 0 or 1.")
    # Some readers look at the flag only, others at the entries only. Either one makes the tensor external here.
    if location_kind == 0 and not entries:
        return name, None
    if "location" not in entries:
        raise ArtifactError(f"tensor {name!r}: its data are external, but external_data has no location.")
    length = entries.get("length")
    return name, ExternalTensor(
        name,
        entries["location"],
        _byte_count(entries.get("offset", "0"), f"tensor {name!r}: external offset"),
        None if length is None else _byte_count(length, f"tensor {name!r}: external length"),
    )


class _HeaderReader:
    """Reads the header in one pass."""

    def __init__(self, wire: WireReader):
        self._wire = wire
        self._header = Header()

    def model(self) -> Header:  # ModelProto
        found = self._header
        seen: set[int] = set()
        ir_version = 0
        for f in self._wire.fields(self._wire.root, "the model"):
            if f.number == 1:
                ir_version = self._wire.integer(f, "ir_version")
            elif f.number == 7:
                self._once(f, seen, "the model's graph")
                self._graph_proto(self._wire.message(f, "the graph"), 0, outermost=True)
            elif f.number == 8:
                opset = parse_opset(self._wire, self._wire.message(f, "an opset import"))
                found.opset = found.opset if opset is None else opset
            elif f.number == 14:
                key, value = _entry(self._wire, self._wire.message(f, "a metadata entry"), "a metadata entry", MAX_METADATA)
                if key in found.metadata:
                    raise ArtifactError(f"the metadata contain {key!r} twice.")
                found.metadata[key] = value
            elif f.number == 20:  # TrainingInfoProto: graphs used in training only
                for g in self._wire.fields(self._wire.message(f, "training_info"), "training_info"):
                    if g.number in (1, 2):
                        self._graph_proto(self._wire.message(g, "a training graph"), 1)
            elif f.number == 25:
                self._function(self._wire.message(f, "a function"))
            else:
                _ignored(f, "the model")
        if not ir_version or 7 not in seen:
            raise ArtifactError("the file is not an ONNX model: it lacks an ir_version or a graph.")
        return found

    def _graph_proto(self, span: Span, depth: int, *, outermost: bool = False) -> None:
        if depth > MAX_DEPTH:
            raise ArtifactError(f"the graph nests subgraphs more than {MAX_DEPTH} deep.")
        inputs: list[Value] = []
        outputs: list[Value] = []
        initialized: set[str] = set()
        for f in self._wire.fields(span, "the graph"):
            if f.number == 1:
                self._node(self._wire.message(f, "a node"), depth)
            elif f.number == 5:
                initialized.add(self._tensor(self._wire.message(f, "an initializer")))
            elif f.number == 15:
                initialized.add(self._sparse_tensor(self._wire.message(f, "a sparse initializer")))
            elif f.number == 11 and outermost:
                inputs.append(self.value(self._wire.message(f, "a graph input"), "a graph input"))
            elif f.number == 12 and outermost:
                outputs.append(self.value(self._wire.message(f, "a graph output"), "a graph output"))
            else:
                _ignored(f, "the graph")
        if outermost:
            self._header.inputs = tuple(v for v in inputs if v.name not in initialized)
            self._header.outputs = tuple(outputs)
            for kind, values in (("inputs", self._header.inputs), ("outputs", self._header.outputs)):
                names = [v.name for v in values]
                if len(set(names)) < len(names):
                    raise ArtifactError(f"two graph {kind} have the same name.")

    def _function(self, span: Span) -> None:  # FunctionProto
        for f in self._wire.fields(span, "a function"):
            if f.number == 7:
                self._node(self._wire.message(f, "a node"), 1)
            elif f.number == 11:
                self._attribute(self._wire.message(f, "an attribute"), 1)

    def _node(self, span: Span, depth: int) -> None:  # NodeProto
        for f in self._wire.fields(span, "a node"):
            if f.number == 5:
                self._attribute(self._wire.message(f, "an attribute"), depth)
            else:
                _ignored(f, "a node")

    def _attribute(self, span: Span, depth: int) -> None:  # AttributeProto
        seen: set[int] = set()
        for f in self._wire.fields(span, "an attribute"):
            if f.number in (5, 6, 22):
                self._once(f, seen, "an attribute's value")
            if f.number in (5, 10):
                self._tensor(self._wire.message(f, "a tensor"))
            elif f.number in (6, 11):
                self._graph_proto(self._wire.message(f, "a subgraph"), depth + 1)
            elif f.number in (22, 23):
                self._sparse_tensor(self._wire.message(f, "a sparse tensor"))
            else:
                _ignored(f, "an attribute")

    def _sparse_tensor(self, span: Span) -> str:  # SparseTensorProto
        name = ""
        seen: set[int] = set()
        for f in self._wire.fields(span, "a sparse tensor"):
            if f.number in (1, 2):
                self._once(f, seen, "a sparse tensor's part")
                part = self._tensor(self._wire.message(f, "a tensor"))
                name = part if f.number == 1 else name  # a sparse initializer has the name of its values
        return name

    def _tensor(self, span: Span) -> str:
        name, external = parse_tensor(self._wire, span)
        if external is not None:
            self._header.external.append(external)
        return name

    def value(self, span: Span, what: str) -> Value:  # ValueInfoProto
        name, dtype, shape = "", "other", None
        seen: set[int] = set()
        for f in self._wire.fields(span, what):
            if f.number == 1:
                name = self._wire.text(f, f"the name of {what}")
            elif f.number == 2:
                self._once(f, seen, f"the type of {what}")
                dtype, shape = self._type(self._wire.message(f, f"the type of {what}"), what)
        return Value(name, dtype, shape)

    def _type(self, span: Span, what: str) -> tuple[str, tuple[int | str, ...] | None]:  # TypeProto
        dtype, shape = "other", None
        seen: set[int] = set()
        for f in self._wire.fields(span, f"the type of {what}"):
            if f.number != 1:
                continue
            self._once(f, seen, f"the tensor type of {what}")
            for g in self._wire.fields(self._wire.message(f, f"the tensor type of {what}"), f"the type of {what}"):
                if g.number == 1:
                    dtype = DTYPES.get(self._wire.integer(g, f"the element type of {what}"), "other")
                elif g.number == 2:
                    dims = self._wire.fields(self._wire.message(g, f"the shape of {what}"), f"the shape of {what}")
                    shape = tuple(self._dim(self._wire.message(d, f"a dimension of {what}"), what) for d in dims if d.number == 1)
        return dtype, shape

    def _dim(self, span: Span, what: str) -> int | str:
        dim: int | str = ""
        for f in self._wire.fields(span, f"a dimension of {what}"):
            if f.number == 1:
                dim = self._wire.integer(f, f"a dimension of {what}")
                if dim < 0:
                    dim = ""  # some writers use -1 for a dynamic dimension
            elif f.number == 2:
                dim = self._wire.text(f, f"a dimension of {what}")
        return dim

    @staticmethod
    def _once(f: Field, seen: set[int], what: str) -> None:
        # Protobuf merges a message that is given twice. The merged message would be unchecked, so it is an error.
        if f.number in seen:
            raise ArtifactError(f"{what} is given twice.")
        seen.add(f.number)


def _byte_count(text: str, what: str) -> int:
    # int() accepts signs, spaces, underscores and digits of any script, and raises its own error for very long texts.
    if not (text.isascii() and text.isdigit() and len(text) <= 19):
        raise ArtifactError(f"{what} is {text[:40]!r}; it must be an integer number of bytes.")
    return int(text)


def _entry(wire: WireReader, span: Span, what: str, limit: int = 1 << 16) -> tuple[str, str]:  # StringStringEntryProto
    key = value = ""
    for f in wire.fields(span, what):
        if f.number == 1:
            key = wire.text(f, f"the key of {what}")
        elif f.number == 2:
            value = wire.text(f, f"the value of {what}", limit)
    return key, value


def _ignored(f: Field, what: str) -> None:
    """Check that a field that is not read is small."""
    size = f.span.stop - f.span.start
    if size > MAX_IGNORED:
        raise ArtifactError(f"{what} has a field {f.number} of {size} bytes, but at most {MAX_IGNORED} are allowed.")
