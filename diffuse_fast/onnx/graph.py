"""The inside of an ONNX graph, to be changed in memory before a runtime opens it: without onnx, and without reading a weight
that nobody asks for.

What is not changed keeps its bytes. Field numbers are those of ``onnx.proto3``.
"""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ..errors import ArtifactError
from . import tensor
from .header import DTYPES, Value, value
from .protobuf import BYTES, FIXED32, Field, Span, Wire, integer, message, varint

_TIMES, _MORE = 4, 64 << 20  # how much new constants may take: times the file, and bytes besides
MAX_NODES = 250_000  # the UNet of SDXL's size has some 20,000

_GRAPH, _OPSET = 7, 8  # of ModelProto
_NODE, _INITIALIZER, _INPUT, _OUTPUT, _VALUE_INFO = 1, 5, 11, 12, 13  # of GraphProto

# How many inputs ONNX's operators have, of those that are looked into or changed.
_INPUTS = {
    "Add": (2, 2), "Attention": (3, 6), "AveragePool": (1, 1), "BatchNormalization": (5, 5), "Conv": (2, 3),
    "ConvTranspose": (2, 3), "Div": (2, 2), "Erf": (1, 1), "Gelu": (1, 1), "Gemm": (2, 3), "GlobalAveragePool": (1, 1),
    "GroupNormalization": (3, 3), "InstanceNormalization": (3, 3), "LogSoftmax": (1, 1), "MatMul": (2, 2), "Mish": (1, 1),
    "Mul": (2, 2), "Pow": (2, 2), "ReduceMean": (1, 2), "Resize": (1, 4), "Slice": (1, 5), "Softmax": (1, 1),
    "Softplus": (1, 1), "Split": (1, 2), "Squeeze": (1, 2), "Sub": (2, 2), "Tanh": (1, 1), "Unsqueeze": (1, 2),
}  # fmt: skip

Attribute = int | float | str | tuple[int, ...]

_NUMBERS = {name: number for number, name in DTYPES.items()}


@dataclass(slots=True)
class Node:
    """One operation.

    Attributes:
        op: Its type.
        inputs, outputs: Names of values; ``""`` for an optional one that is not there.
        attributes: Those that are whole numbers, numbers, texts, or lists of whole numbers.
        domain: Of the operator set; ``""`` is ONNX's own, which a file may call ``"ai.onnx"`` too.
        raw: Its bytes in the file, with attributes of other kinds; None for a node that is new.
    """

    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, Attribute] = field(default_factory=dict)
    domain: str = ""
    raw: bytes | None = None


class Nodes:
    """The nodes of a model file, and what is needed to change them.

    Attributes:
        nodes: The nodes, in an order in which they can run. To be changed in place.
        values: What the file says of values by name: inputs, outputs, and those between where it says it.
        elsewhere: Names that more than the nodes here rely on: the graph's inputs and outputs, and what subgraphs read.
        inner: The nodes of subgraphs, such as the branches of an If, at any depth: to be looked at.
        room: Bytes that new constants may take yet.
    """

    def __init__(self, path: Path):
        self._wire = Wire(path.read_bytes())
        self.room = _MORE + _TIMES * len(self._wire.buffer)
        self.nodes: list[Node] = []
        self.values: dict[str, Value] = {}
        self.elsewhere: set[str] = set()
        self.inner: list[Node] = []
        self._added: list[bytes] = []  # inputs and outputs
        self._constants: dict[str, np.ndarray] = {}
        self._nodes = 0
        self._arrays: dict[str, np.ndarray | None] = {}  # those that were asked for: thousands of nodes may share one
        self._names: set[str] = set()
        self._initializers: dict[str, Field] = {}
        self._read: set[str] = set()  # weights that were asked for: where no node has them afterwards, they go
        found = [f for f in self._wire.fields(self._wire.whole, "the model") if f.number == _GRAPH]
        if len(found) != 1:
            raise ArtifactError("the file holds no ONNX model: it has no graph, or several.")
        self._graph = found[0]
        for f in self._wire.fields(self._graph.span, "the graph"):
            if f.number == _NODE:
                self.nodes.append(self._node(f))
            elif f.number == _INITIALIZER:
                self._initializer(f)
            elif f.number in (_INPUT, _OUTPUT, _VALUE_INFO):
                one = value(self._wire, self._wire.message(f, "a value"))
                self.values[one.name] = one
                self._names.add(one.name)
                if f.number != _VALUE_INFO:
                    self.elsewhere.add(one.name)

    def replace(self, make: Callable[[Node], list[Node] | None]) -> bool:
        """Put what ``make`` gives for a node in its place, and leave those that it gives None for. Whether there was any."""
        made = [make(node) for node in self.nodes]
        self.nodes[:] = [
            new for node, others in zip(self.nodes, made, strict=True) for new in ([node] if others is None else others)
        ]
        return any(others is not None for others in made)

    def fresh(self, like: str) -> str:
        """A name that the graph does not have."""
        name, number = f"{like}/df", 0
        while name in self._names:
            name, number = f"{like}/df{number}", number + 1
        self._names.add(name)
        return name

    def constant(self, like: str, array: np.ndarray) -> str:
        """A new initializer; its name.

        Raises:
            ArtifactError: new constants take several times what the file does, as where thousands of nodes share one weight.
        """
        self.room -= array.nbytes
        if self.room < 0:
            raise ArtifactError(
                "the weights, as a runtime wants them, would take several times the file; share fewer of them between nodes."
            )
        name = self.fresh(like)
        self._constants[name] = np.asarray(array, order="C")
        return name

    def output(self, name: str) -> None:
        """Make a float32 value an output of the graph, after those it has."""
        kind = message(1, integer(1, _NUMBERS["float32"]))
        self._added.append(message(_OUTPUT, message(1, name.encode()) + message(2, kind)))

    def input(self, like: str, dtype: str) -> str:
        """A new input of the graph, one number; its name."""
        name = self.fresh(like)
        kind = message(1, integer(1, _NUMBERS[dtype]) + message(2, b""))  # a shape without dimensions
        self._added.append(message(_INPUT, message(1, name.encode()) + message(2, kind)))
        return name

    def weight(self, name: str) -> np.ndarray | None:
        """The array of an initializer; None where there is none of that name, or it is not float32 within the file."""
        if name in self._constants:
            return self._constants[name] if self._constants[name].dtype == np.float32 else None
        found = self._initializers.get(name)
        if found is None:
            return None
        if name not in self._read:
            self._read.add(name)
            self._arrays[name] = tensor.array(self._wire, self._wire.message(found, "an initializer"))
        array = self._arrays[name]
        return array if array is not None and array.dtype == np.float32 else None

    def constant_integers(self, name: str) -> tuple[int, ...] | None:
        """The int64 numbers of a constant: of an initializer, or of what a Constant gives; None where it is neither."""
        made = self._constant_node(name)
        told = made.attributes.get("value_ints", made.attributes.get("value_int")) if made else None
        if isinstance(told, tuple | int):
            return told if isinstance(told, tuple) else (told,)
        stored = self._stored(name)
        array = self._constants.get(name) if stored is None else tensor.array(*stored)
        return None if array is None or array.dtype != np.int64 else tuple(array.ravel().tolist())

    def shape(self, name: str) -> tuple[int | str, ...] | None:
        """The shape of a value, as :class:`.graph.Value` has it; None where the file does not say it."""
        if name in self._constants:
            return self._constants[name].shape
        if (stored := self._stored(name)) is not None:
            return tensor.shape(*stored)
        made = self._constant_node(name)
        if made is not None and made.attributes.keys() & {"value_float", "value_int"}:
            return ()
        return self.values[name].shape if name in self.values else None

    def is_constant(self, name: str) -> bool:
        """Whether a value is the same in every call: an initializer, or what a Constant gives."""
        return name in self._constants or name in self._initializers or self._constant_node(name) is not None

    def rewired(self, node: Node, inputs: tuple[str, ...], outputs: tuple[str, ...]) -> Node:
        """A node between other values, with all its attributes."""
        if node.raw is None:
            return dataclasses.replace(node, inputs=inputs, outputs=outputs)
        wire = Wire(node.raw)
        rest = b"".join(wire.buffer[f.begin : self._end(f)] for f in wire.fields(wire.whole, "a node") if f.number not in (1, 2))
        names = [message(1, name.encode()) for name in inputs] + [message(2, name.encode()) for name in outputs]
        return dataclasses.replace(node, inputs=inputs, outputs=outputs, raw=b"".join(names) + rest)

    def to_bytes(self) -> bytes:
        """The model with its nodes as they are now, and without the weights that were read here and that no node has any more."""
        read = self.elsewhere.union(*(node.inputs for node in self.nodes))
        unread = {f.begin for name, f in self._initializers.items() if name in self._read and name not in read}
        kept = [
            self._wire.buffer[f.begin : self._end(f)]
            for f in self._wire.fields(self._graph.span, "the graph")
            if f.number != _NODE and f.begin not in unread
        ]
        nodes = [message(_NODE, node.raw if node.raw is not None else _encoded(node)) for node in self.nodes]
        constants = [_initializer(name, array) for name, array in self._constants.items() if name in read]
        graph = b"".join([*nodes, *kept, *self._added, *constants])
        return self._wire.buffer[: self._graph.begin] + message(_GRAPH, graph) + self._wire.buffer[self._graph.span.stop :]

    def _constant_node(self, name: str) -> Node | None:
        return next((node for node in self.nodes if node.op == "Constant" and not node.domain and name in node.outputs), None)

    def _stored(self, name: str) -> tuple[Wire, Span] | None:
        """Where the tensor of an initializer or of a Constant lies."""
        if name in self._initializers:
            return self._wire, self._wire.message(self._initializers[name], "an initializer")
        made = self._constant_node(name)
        if made is None or made.raw is None:
            return None
        wire = Wire(made.raw)
        attributes = [wire.message(f, "an attribute") for f in wire.fields(wire.whole, "a node") if f.number == 5]
        values = [f for span in attributes for f in wire.fields(span, "an attribute") if f.number == 5]
        return (wire, wire.message(values[0], "a tensor")) if values else None

    # ---- reading --------------------------------------------------------------------------------

    def _node(self, f: Field) -> Node:
        self._nodes += 1
        if self._nodes > MAX_NODES:
            raise ArtifactError(f"the graph has more than {MAX_NODES} nodes; it is not read further.")
        span = self._wire.message(f, "a node")
        inputs: list[str] = []
        outputs: list[str] = []
        op = domain = ""
        attributes: dict[str, Attribute] = {}
        for g in self._wire.fields(span, "a node"):
            if g.number in (1, 2):
                (inputs if g.number == 1 else outputs).append(self._wire.text(g, "the name of a value"))
            elif g.number == 4:
                op = self._wire.text(g, "an operation")
            elif g.number == 7:
                domain = self._wire.text(g, "a domain")
                domain = "" if domain == "ai.onnx" else domain
            elif g.number == 5:
                name, content = self._attribute(self._wire.message(g, "an attribute"))
                if content is not None:
                    attributes[name] = content
        least, most = _INPUTS.get(op, (0, len(inputs))) if not domain else (0, len(inputs))
        if not outputs or not least <= len(inputs) <= most:
            expected = f"{least}" if least == most else f"{least} to {most}"
            raise ArtifactError(
                f"the graph has a node {op[:100]!r} with {len(inputs)} inputs and {len(outputs)} outputs; it must have {expected} "
                f"inputs and an output."
            )
        self._names.update(outputs)
        return Node(op, tuple(inputs), tuple(outputs), attributes, domain, self._wire.buffer[span.start : span.stop])

    def _attribute(self, span: Span) -> tuple[str, Attribute | None]:
        name = ""
        content: Attribute | None = None
        integers: list[int] = []
        for f in self._wire.fields(span, "an attribute"):
            if f.number == 1:
                name = self._wire.text(f, "the name of an attribute")
            elif f.number == 2 and f.wire == FIXED32:
                content = struct.unpack("<f", self._wire.buffer[f.begin + 1 : f.begin + 5])[0]
            elif f.number == 3:
                content = self._wire.integer(f, "an attribute")
            elif f.number == 4:
                content = self._wire.text(f, "an attribute")
            elif f.number == 8:
                integers += tensor.integers(self._wire, f)
            elif f.number in (6, 11):
                self._subgraph(f)
        return name, tuple(integers) if integers else content

    def _subgraph(self, f: Field) -> None:
        """What a subgraph reads, be it of this graph or of its own: a name too many does no harm."""
        for g in self._wire.fields(self._wire.message(f, "a subgraph"), "a subgraph"):
            if g.number == _NODE:
                self.inner.append(self._node(g))
                self.elsewhere.update(self.inner[-1].inputs)
            elif g.number == _OUTPUT:
                self.elsewhere.add(value(self._wire, self._wire.message(g, "a value")).name)

    def _initializer(self, f: Field) -> None:
        for g in self._wire.fields(self._wire.message(f, "an initializer"), "an initializer"):
            if g.number == 8:
                name = self._wire.text(g, "the name of an initializer")
                self._names.add(name)
                self._initializers[name] = f

    def _end(self, f: Field) -> int:
        if f.wire == BYTES:
            return f.span.stop
        # Of the fields of a graph all hold bytes; what a later version of ONNX may add is told by its next field.
        raise ArtifactError(f"the graph has a field {f.number} that is not known.")


def _initializer(name: str, array: np.ndarray) -> bytes:
    """A TensorProto, as a field of the graph."""
    dims = b"".join(integer(1, n) for n in array.shape)
    raw = array.astype(array.dtype.newbyteorder("<")).tobytes()
    return message(_INITIALIZER, dims + integer(2, _NUMBERS[array.dtype.name]) + message(8, name.encode()) + message(9, raw))


def _encoded(node: Node) -> bytes:
    """A NodeProto."""
    out = b"".join(message(1, name.encode()) for name in node.inputs)
    out += b"".join(message(2, name.encode()) for name in node.outputs)
    out += message(4, node.op.encode())
    for name, content in node.attributes.items():
        if isinstance(content, float):
            body, kind = varint(2 << 3 | FIXED32) + struct.pack("<f", content), 1
        elif isinstance(content, int):
            body, kind = integer(3, content), 2
        elif isinstance(content, str):
            body, kind = message(4, content.encode()), 3
        else:
            body, kind = b"".join(integer(8, n) for n in content), 7
        out += message(5, message(1, name.encode()) + body + integer(20, kind))
    return out + (message(7, node.domain.encode()) if node.domain else b"")
