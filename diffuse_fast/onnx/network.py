"""Read the network in an untrusted ONNX file: its nodes with all their attributes, and its initializers without large weights.

Local functions are inlined. Field numbers are those of ``onnx.proto3``. :mod:`.protobuf` visits a field at a time and checks most;
this reader lists the fields of a message at once, because a UNet has tens of thousands and is lowered in milliseconds.
"""

from __future__ import annotations

import dataclasses
import math
import mmap
import os
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ..errors import ArtifactError, UnsupportedError
from .external_data import check
from .header import DTYPES, ExternalTensor, Value, parse_value
from .protobuf import Span, WireReader

MAX_NODES = 100_000  # SDXL's UNet has some 20,000
MAX_FIELDS = 2_000_000  # and numbers in lists. SDXL's UNet has some 500,000
MAX_MESSAGE = 256 << 20  # bytes of one node
MAX_PACKED = 1 << 20  # bytes of a list of integers: each becomes a Python object
MAX_VALUES = 64 << 20  # bytes of all constants that are read
SMALL = 64  # elements of the largest initializer of floats whose values are read
_MAX_DEPTH = 32  # of functions in functions, and of graphs in graphs

_NUMPY = {
    "float32": "<f4", "float64": "<f8", "float16": "<f2", "int8": "i1", "int16": "<i2", "int32": "<i4", "int64": "<i8",
    "uint8": "u1", "uint16": "<u2", "uint32": "<u4", "uint64": "<u8", "bool": "?",
}  # fmt: skip
_NARROW = ("float16", "int8", "int16", "int32", "uint8", "uint16", "bool")  # stored as int32_data if not as raw bytes


@dataclass(frozen=True, slots=True)
class Subgraph:
    """The value of an attribute that is a graph, such as a branch of an If. Its nodes may use the values around it.

    Attributes:
        nodes, initializers: As of :class:`Network`.
        outputs: The names of its results.
    """

    nodes: tuple[Node, ...]
    outputs: tuple[str, ...]
    initializers: dict[str, Initializer]

    def renamed(self, rename: Callable[[str], str]) -> Subgraph:
        """The same with other names of values."""
        return Subgraph(
            tuple(node.renamed(rename) for node in self.nodes),
            tuple(map(rename, self.outputs)),
            {rename(name): content for name, content in self.initializers.items()},
        )


@dataclass(frozen=True, slots=True)
class _Reference:
    """The value of an attribute in a function that is an attribute of the call."""

    name: str


Attribute = int | float | str | np.ndarray | tuple[int, ...] | tuple[float, ...] | tuple[str, ...] | Subgraph | _Reference


@dataclass(slots=True)
class Node:
    """One operation.

    Attributes:
        op: Name of the operator.
        inputs, outputs: Names of values; ``""`` for one that is absent.
        attributes: By name.
        name: Name of the node; may be empty.
        domain: Domain of the operator set; ``""`` is ONNX's own.
        opset: Version of ONNX's own operator set.
    """

    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, Attribute] = field(default_factory=dict)
    name: str = ""
    domain: str = ""
    opset: int = 0

    @property
    def subgraphs(self) -> list[Subgraph]:
        """The attributes that are graphs."""
        return [value for value in self.attributes.values() if isinstance(value, Subgraph)]

    def renamed(self, rename: Callable[[str], str]) -> Node:
        """The same with other names of values."""
        attributes = {
            name: value.renamed(rename) if isinstance(value, Subgraph) else value for name, value in self.attributes.items()
        }
        inputs, outputs = tuple(map(rename, self.inputs)), tuple(map(rename, self.outputs))
        return dataclasses.replace(self, inputs=inputs, outputs=outputs, attributes=attributes)


@dataclass(frozen=True, slots=True)
class Initializer:
    """A constant of the file.

    Attributes:
        dtype: NumPy's name of its element type.
        shape: Its shape.
        values: The array, for integers and for at most 64 floats; None for a larger weight.
    """

    dtype: str
    shape: tuple[int, ...]
    values: np.ndarray | None


@dataclass(slots=True)
class Network:
    """The network of a file.

    Attributes:
        inputs: What a caller gives.
        outputs: The names of the results.
        nodes: In topological order.
        initializers: By name.
    """

    inputs: tuple[Value, ...]
    outputs: tuple[str, ...]
    nodes: list[Node]
    initializers: dict[str, Initializer]


def read(path: Path) -> Network:
    """Read the network of an ONNX file.

    Raises:
        ArtifactError: the file is truncated, damaged or hostile.
        UnsupportedError: it has a kind of constant that is not supported.
    """
    with open(path, "rb") as file:
        if os.fstat(file.fileno()).st_size == 0:
            raise ArtifactError(f"the model file {str(path)!r} is empty.")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _Reader(data, path.parent).model()


# A field: its number, then the first byte and the end of its bytes, or its integer and -1, or its four or eight bytes and -2 or -3.
_Field = tuple[int, int, int]


class _Reader:
    def __init__(self, data: mmap.mmap | bytes, folder: Path):
        self._data = data
        self._folder = folder
        self._fields = self._bytes = self._calls = self._nodes = self._depth = 0
        self._functions: dict[tuple[str, str, str], _Function] = {}

    def model(self) -> Network:
        graph: _Field | None = None
        opset = 0
        functions = []
        for f in self._scan(self._data, 0, len(self._data)):
            if f[0] == 7:
                if graph is not None:
                    raise ArtifactError("the model has two graphs.")
                graph = f
            elif f[0] == 8:
                domain, version = self._opset(self._data, f)
                opset = opset if domain else version
            elif f[0] == 25:
                functions.append(f)
        if graph is None:
            raise ArtifactError("the file is not an ONNX model: it lacks a graph.")
        for f in functions:
            self._function(f, opset)
        nodes: list[Node] = []
        inputs: list[Value] = []
        outputs: list[str] = []
        initializers: dict[str, Initializer] = {}
        for f in self._scan(self._data, *self._span(graph)):
            if f[0] == 1:
                nodes.extend(self._inlined(self._node(f, opset)))
            elif f[0] == 5:
                name, initializer = self._tensor(self._data, f)
                if name in initializers:
                    raise ArtifactError(f"the graph has two initializers {name!r}.")
                initializers[name] = initializer
            elif f[0] in (11, 12):
                one = parse_value(WireReader(self._data), Span(*self._span(f)))
                inputs.append(one) if f[0] == 11 else outputs.append(one.name)
            elif f[0] == 15:
                raise UnsupportedError("the network has a sparse initializer, which is not supported.")
        return Network(tuple(v for v in inputs if v.name not in initializers), tuple(outputs), nodes, initializers)

    # ---- messages -------------------------------------------------------------------------------

    def _node(self, f: _Field, opset: int, source: bytes | None = None) -> Node:
        start, stop = self._span(f)
        if stop - start > MAX_MESSAGE:
            raise ArtifactError(f"a node has {stop - start} bytes; at most {MAX_MESSAGE} are read.")
        data = (self._data if source is None else source)[start:stop]
        inputs: list[str] = []
        outputs: list[str] = []
        attributes: dict[str, Attribute] = {}
        name = op = domain = overload = ""
        for g in self._scan(data, 0, len(data)):
            number = g[0]
            if number == 1:
                inputs.append(self._text(data, g))
            elif number == 2:
                outputs.append(self._text(data, g))
            elif number == 3:
                name = self._text(data, g)
            elif number == 4:
                op = self._text(data, g)
            elif number == 5:
                key, value = self._attribute(data, g, opset)
                if key in attributes:
                    raise ArtifactError(f"node {name!r} ({op}) has two attributes {key!r}.")
                attributes[key] = value
            elif number == 7:
                domain = self._text(data, g)
            elif number == 8:
                overload = self._text(data, g)
        if overload:
            attributes["overload"] = overload
        return Node(op, tuple(inputs), tuple(outputs), attributes, name, "" if domain == "ai.onnx" else domain, opset)

    def _subgraph(self, data: bytes, f: _Field, opset: int) -> Subgraph:
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise ArtifactError("graphs nest too deep; the file is not read further.")
        nodes: list[Node] = []
        outputs: list[str] = []
        initializers: dict[str, Initializer] = {}
        start, stop = self._span(f)
        inner = data[start:stop]
        for g in self._scan(inner, 0, len(inner)):
            if g[0] == 1:
                nodes.append(self._node(g, opset, inner))
            elif g[0] == 5:
                name, initializer = self._tensor(inner, g)
                initializers[name] = initializer
            elif g[0] == 12:
                outputs.append(parse_value(WireReader(inner), Span(*self._span(g))).name)
            elif g[0] in (11, 15):
                raise UnsupportedError("a graph inside of the graph has inputs or sparse initializers, which is not supported.")
        self._depth -= 1
        return Subgraph(tuple(nodes), tuple(outputs), initializers)

    def _attribute(self, data: bytes, f: _Field, opset: int) -> tuple[str, Attribute]:
        name = ""
        kind = 0
        number = text = tensor = graph = reference = None
        floats: list[float] = []
        integers: list[int] = []
        texts: list[str] = []
        for g in self._scan(data, *self._span(f)):
            i, a, b = g
            if i == 1:
                name = self._text(data, g)
            elif i == 2:
                number = self._float(data, g)
            elif i == 3:
                number = self._integer(g)
            elif i == 4:
                text = self._text(data, g)
            elif i == 5:
                tensor = self._tensor(data, g, constant=True)[1].values
            elif i == 6:
                graph = self._subgraph(data, g, opset)
            elif i == 7:
                self._count(max(b - a, 4) // 4)
                floats += np.frombuffer(data[a:b], "<f4").tolist() if b >= 0 and not (b - a) % 4 else [self._float(data, g)]
            elif i == 8:
                integers += self._integers(data, g)
            elif i == 9:
                texts.append(self._text(data, g))
            elif i == 20:
                kind = self._integer(g)
            elif i == 21:
                reference = self._text(data, g)
        if reference:
            return name, _Reference(reference)
        found: dict[int, Attribute | None] = {
            1: float(number) if number is not None else 0.0,
            2: number if isinstance(number, int) else 0,
            3: text or "",
            4: tensor,
            5: graph,
            6: tuple(floats),
            7: tuple(integers),
            8: tuple(texts),
        }
        value = found.get(kind)
        if value is None:
            raise ArtifactError(f"the attribute {name!r} has the type {kind} or no value.")
        return name, value

    def _tensor(self, data: mmap.mmap | bytes, f: _Field, *, constant: bool = False) -> tuple[str, Initializer]:
        """Read a tensor: its name and content. The values of a constant are always read."""
        name = dtype = ""
        dims: list[int] = []
        stored: list[_Field] = []
        external: dict[str, str] = {}
        for g in self._scan(data, *self._span(f)):
            i = g[0]
            if i == 1:
                dims += self._integers(data, g)
            elif i == 2:
                dtype = DTYPES.get(self._integer(g), "other")
            elif i == 8:
                name = self._text(data, g)
            elif i in (4, 5, 7, 9, 10, 11):
                stored.append(g)
            elif i == 13:
                key, value = (self._text(data, h) for h in self._scan(data, *self._span(g)))
                external[key] = value
        shape = tuple(dims)
        if any(n < 0 or n >= 1 << 40 for n in shape) or len(shape) > 16 or math.prod(shape) >= 1 << 40:
            raise ArtifactError(f"tensor {name!r}: its shape is {list(shape)[:20]}.")
        integer = dtype not in ("float32", "float64", "float16", "bfloat16")
        if dtype not in _NUMPY or not (constant or integer or math.prod(shape) <= SMALL):
            return name, Initializer(dtype, shape, None)
        size = math.prod(shape) * np.dtype(_NUMPY[dtype]).itemsize
        self._bytes += size
        if self._bytes > MAX_VALUES:
            raise ArtifactError(f"the constants of the file take more than {MAX_VALUES >> 20} MiB besides its weights.")
        raw = self._external(name, external, size) if external else self._stored(data, stored, dtype)
        if len(raw) != size:
            raise ArtifactError(f"tensor {name!r}: it has {len(raw)} bytes; its shape {list(shape)} takes {size}.")
        return name, Initializer(dtype, shape, np.frombuffer(raw, _NUMPY[dtype]).reshape(shape))

    def _stored(self, data: mmap.mmap | bytes, fields: list[_Field], dtype: str) -> bytes:
        out = []
        for g in fields:
            number, _, b = g
            if number == 9 or (b >= 0 and (number, dtype) in ((4, "float32"), (10, "float64"))):
                out.append(data[slice(*self._span(g))])
            elif number == 4 and dtype == "float32":
                out.append(struct.pack("<f", self._float(data, g)))
            elif (number == 7 and dtype == "int64") or (number == 5 and dtype in _NARROW) or (number == 11 and dtype[0] == "u"):
                code = "<u2" if dtype == "float16" else _NUMPY[dtype]
                out.append(np.array(self._integers(data, g), np.int64).astype(code).tobytes())
            else:
                raise ArtifactError(f"a tensor of {dtype} has its values in field {number}.")
        return b"".join(out)

    def _external(self, name: str, entries: dict[str, str], size: int) -> bytes:
        offset = entries.get("offset", "0")
        if not (offset.isascii() and offset.isdigit() and len(offset) <= 19):
            raise ArtifactError(f"tensor {name!r}: its offset is {offset[:40]!r}.")
        (path,) = check([ExternalTensor(name, entries.get("location", ""), int(offset), size)], self._folder)
        with open(path, "rb") as file:
            file.seek(int(offset))
            return file.read(size)

    # ---- functions ------------------------------------------------------------------------------

    def _function(self, f: _Field, opset: int) -> None:
        start, stop = self._span(f)
        data = self._data[start:stop]
        fields = self._scan(data, 0, len(data))
        texts = {n: [self._text(data, g) for g in fields if g[0] == n] for n in (1, 4, 5, 10, 13)}
        for g in fields:
            if g[0] == 9:
                domain, version = self._opset(data, g)
                opset = opset if domain else version
        defaults = dict(self._attribute(data, g, opset) for g in fields if g[0] == 11)
        nodes = [self._node((7, start + g[1], start + g[2]), opset) for g in fields if g[0] == 7]
        key = ("".join(texts[10]), "".join(texts[1]), "".join(texts[13]))
        self._functions[key] = _Function(tuple(texts[4]), tuple(texts[5]), nodes, defaults)

    def _inlined(self, node: Node) -> Iterator[Node]:
        """The nodes that a node stands for, if it calls a local function; otherwise itself. So in its graphs."""
        pending = [(node, 0)]
        while pending:
            node, depth = pending.pop()
            overload = node.attributes.get("overload", "")
            function = self._functions.get((node.domain, node.op, str(overload))) if self._functions else None
            if function is None:
                self._nodes += 1
                if self._nodes > MAX_NODES:
                    raise ArtifactError(f"the graph has more than {MAX_NODES} nodes; it is not read further.")
                for name, value in node.attributes.items() if self._functions else ():
                    if isinstance(value, Subgraph):
                        inside = tuple(inner for one in value.nodes for inner in self._inlined(one))
                        node.attributes = node.attributes | {name: Subgraph(inside, value.outputs, value.initializers)}
                yield node
                continue
            if depth >= _MAX_DEPTH or len(pending) > MAX_NODES:
                raise ArtifactError(f"the function {node.op!r} nests too deep or too wide; it is not read further.")
            self._calls += 1
            pending += [(inner, depth + 1) for inner in reversed(function.called(node, self._calls))]

    # ---- the wire format ------------------------------------------------------------------------

    def _scan(self, data: mmap.mmap | bytes, position: int, stop: int) -> list[_Field]:
        """List the fields of a message."""
        out: list[_Field] = []
        try:
            for _ in range(MAX_FIELDS - self._fields + 1):
                if position >= stop:
                    break
                key = data[position]
                position += 1
                if key > 127:
                    key, position = _varint(data, position - 1)
                kind = key & 7
                if kind == 2:
                    length = data[position]
                    position += 1
                    if length > 127:
                        length, position = _varint(data, position - 1)
                    end = position + length
                    out.append((key >> 3, position, end))
                    position = end
                elif kind == 0:
                    value = data[position]
                    position += 1
                    if value > 127:
                        value, position = _varint(data, position - 1)
                    out.append((key >> 3, value, -1))
                elif kind in (1, 5):
                    out.append((key >> 3, position, -3 if kind == 1 else -2))
                    position += 8 if kind == 1 else 4
                else:
                    raise ArtifactError(f"a field has the wire type {kind}; the file is damaged or not an ONNX file.")
        except IndexError:
            position = stop + 1
        if position > stop:
            raise ArtifactError("a message ends inside a field; the file is truncated or damaged.")
        self._count(len(out))
        return out

    def _count(self, fields: int) -> None:
        self._fields += fields
        if self._fields > MAX_FIELDS:
            raise ArtifactError(f"the file has more than {MAX_FIELDS} protobuf fields; it is not read further.")

    @staticmethod
    def _span(f: _Field) -> tuple[int, int]:
        if f[2] < 0:
            raise ArtifactError(f"a field {f[0]} holds a number; the file is damaged.")
        return f[1], f[2]

    @staticmethod
    def _integer(f: _Field) -> int:
        if f[2] != -1:
            raise ArtifactError(f"a field {f[0]} holds no integer; the file is damaged.")
        return f[1] - (1 << 64) if f[1] >> 63 else f[1]

    @staticmethod
    def _float(data: mmap.mmap | bytes, f: _Field) -> float:
        if f[2] != -2:
            raise ArtifactError(f"a field {f[0]} holds no float; the file is damaged.")
        return float(struct.unpack("<f", data[f[1] : f[1] + 4])[0])

    def _integers(self, data: mmap.mmap | bytes, f: _Field) -> list[int]:
        """The integers of a field that holds one of them, or several packed."""
        if f[2] == -1:
            return [self._integer(f)]
        out = []
        position, stop = self._span(f)
        if stop - position > MAX_PACKED:
            raise ArtifactError(f"a list of numbers is {stop - position} bytes long; at most {MAX_PACKED} are read.")
        while position < stop:
            value, position = _varint(data, position)
            out.append(value - (1 << 64) if value >> 63 else value)
        self._count(len(out))
        if position > stop:
            raise ArtifactError("a list of numbers ends inside a number; the file is truncated or damaged.")
        return out

    def _text(self, data: mmap.mmap | bytes, f: _Field) -> str:
        start, stop = self._span(f)
        try:
            return data[start:stop].decode()
        except UnicodeDecodeError:
            raise ArtifactError("a name is not UTF-8; the file is damaged.") from None

    def _opset(self, data: mmap.mmap | bytes, f: _Field) -> tuple[str, int]:
        domain, version = "", 0
        for g in self._scan(data, *self._span(f)):
            if g[0] == 1:
                domain = self._text(data, g)
            elif g[0] == 2:
                version = self._integer(g)
        return "" if domain == "ai.onnx" else domain, version


def _varint(data: mmap.mmap | bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while shift < 70:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & (1 << 64) - 1, position
        shift += 7
    raise ArtifactError("a number has more than 64 bits; the file is damaged or not an ONNX file.")


@dataclass(slots=True)
class _Function:
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    nodes: list[Node]
    defaults: dict[str, Attribute]

    def called(self, call: Node, number: int) -> list[Node]:
        """Its nodes with the names and attributes of a call; ``number`` tells calls apart."""
        names = {"": ""}
        names.update(zip(self.inputs, [*call.inputs, *[""] * len(self.inputs)], strict=False))
        names.update(zip(self.outputs, call.outputs, strict=False))
        prefix = next((name for name in call.outputs if name), call.name)

        def inner(name: str) -> str:
            return names.setdefault(name, f"{prefix}/{number}/{name}")

        given = {**self.defaults, **call.attributes}
        out = []
        for node in self.nodes:
            attributes = {
                name: given.get(value.name) if isinstance(value, _Reference) else value for name, value in node.attributes.items()
            }
            found = node.renamed(inner)
            known = {name: value for name, value in attributes.items() if value is not None}
            found.attributes = known | {name: value for name, value in found.attributes.items() if isinstance(value, Subgraph)}
            found.name = f"{call.name}/{node.name}"
            out.append(found)
        return out
