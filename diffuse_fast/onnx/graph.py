"""Edit the nodes of an ONNX file in memory, without the onnx package and without parsing weights that are not used.

Unchanged parts keep their bytes. Field numbers are those of ``onnx.proto3``.
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
from .header import DTYPES, Value, parse_opset, parse_value
from .protobuf import BYTES, FIXED32, Field, Span, WireReader, bytes_field, integer_field, varint

_BUDGET_FACTOR, _BUDGET_BYTES = 4, 64 << 20  # new constants may take this many times the file's size, plus these bytes
MAX_NODES = 250_000  # SDXL's UNet has some 20,000

_GRAPH, _OPSET = 7, 8  # of ModelProto
_NODE, _INITIALIZER, _INPUT, _OUTPUT, _VALUE_INFO = 1, 5, 11, 12, 13  # of GraphProto

# Least and most inputs of the operators that are inspected or changed.
_INPUTS = {
    "Conv": (2, 3), "ConvTranspose": (2, 3), "Gemm": (2, 3), "GroupNormalization": (3, 3), "MatMul": (2, 2), "Resize": (1, 4),
    "Softmax": (1, 1),
}  # fmt: skip

Attribute = int | float | str | tuple[int, ...]

_NUMBERS = {name: number for number, name in DTYPES.items()}


@dataclass(slots=True)
class Node:
    """One operation.

    Attributes:
        op: Name of the operator.
        inputs, outputs: Names of values; ``""`` for an optional value that is absent.
        attributes: The attributes that are integers, floats, strings or lists of integers.
        domain: Domain of the operator set; ``""`` is ONNX's own, also for files that call it ``"ai.onnx"``.
        raw: Its bytes in the file, with attributes of all kinds; None for a new node.
    """

    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, Attribute] = field(default_factory=dict)
    domain: str = ""
    raw: bytes | None = None


class Graph:
    """The graph of a model file, for editing.

    Attributes:
        nodes: The nodes in topological order. Edit this list in place.
        values: Types and shapes by name: of inputs and outputs, and of intermediate values for which the file has them.
        pinned: Names that must keep their meaning: inputs and outputs of the graph, and values that subgraphs read.
        subgraph_nodes: The nodes of all subgraphs, such as the branches of an If. Read only.
        opset: Version of the default operator set; 0 if the file does not import it.
    """

    def __init__(self, path: Path):
        self._wire = WireReader(path.read_bytes())
        self._budget = _BUDGET_BYTES + _BUDGET_FACTOR * len(self._wire.buffer)
        self.nodes: list[Node] = []
        self.opset = 0
        self.values: dict[str, Value] = {}
        self.pinned: set[str] = set()
        self.subgraph_nodes: list[Node] = []
        self._added: list[bytes] = []  # inputs and outputs
        self._constants: dict[str, np.ndarray] = {}
        self._node_count = 0
        self._arrays: dict[str, np.ndarray | None] = {}  # weights that were read: thousands of nodes may share one
        self._names: set[str] = set()
        self._initializers: dict[str, Field] = {}
        self._read: set[str] = set()  # names of these weights: to_bytes drops those that no node uses any more
        graphs = []
        for f in self._wire.fields(self._wire.root, "the model"):
            if f.number == _GRAPH:
                graphs.append(f)
            elif f.number == _OPSET:
                opset = parse_opset(self._wire, self._wire.message(f, "an opset import"))
                self.opset = self.opset if opset is None else opset
        if len(graphs) != 1:
            raise ArtifactError(f"the file is not an ONNX model: it has {len(graphs)} graphs and must have one.")
        self._graph = graphs[0]
        for f in self._wire.fields(self._graph.span, "the graph"):
            if f.number == _NODE:
                self.nodes.append(self._node(f))
            elif f.number == _INITIALIZER:
                self._initializer(f)
            elif f.number in (_INPUT, _OUTPUT, _VALUE_INFO):
                one = parse_value(self._wire, self._wire.message(f, "a value"))
                self.values[one.name] = one
                self._names.add(one.name)
                if f.number != _VALUE_INFO:
                    self.pinned.add(one.name)

    def replace(self, make: Callable[[Node], list[Node] | None]) -> bool:
        """Replace each node by the nodes that ``make`` returns for it; None keeps it. Returns True if any node was replaced."""
        replacements = [make(node) for node in self.nodes]
        self.nodes[:] = [
            new for node, made in zip(self.nodes, replacements, strict=True) for new in ([node] if made is None else made)
        ]
        return any(made is not None for made in replacements)

    def new_name(self, like: str) -> str:
        """Return an unused name of a value that begins with ``like``."""
        name, number = f"{like}/df", 0
        while name in self._names:
            name, number = f"{like}/df{number}", number + 1
        self._names.add(name)
        return name

    def add_constant(self, like: str, array: np.ndarray) -> str:
        """Add an initializer and return its name, which begins with ``like``.

        Raises:
            ArtifactError: the added constants take several times the size of the file, as when thousands of nodes share a weight.
        """
        self._budget -= array.nbytes
        if self._budget < 0:
            raise ArtifactError(
                "the rewritten weights would take several times the size of the file; share fewer of them between nodes."
            )
        name = self.new_name(like)
        self._constants[name] = np.asarray(array, order="C")
        return name

    def add_output(self, name: str) -> None:
        """Append a float32 value to the outputs of the graph."""
        kind = bytes_field(1, integer_field(1, _NUMBERS["float32"]))
        self._added.append(bytes_field(_OUTPUT, bytes_field(1, name.encode()) + bytes_field(2, kind)))

    def add_input(self, like: str, dtype: str) -> str:
        """Append a scalar input to the graph and return its name."""
        name = self.new_name(like)
        kind = bytes_field(1, integer_field(1, _NUMBERS[dtype]) + bytes_field(2, b""))  # a shape without dimensions
        self._added.append(bytes_field(_INPUT, bytes_field(1, name.encode()) + bytes_field(2, kind)))
        return name

    def weight(self, name: str) -> np.ndarray | None:
        """Return the array of an initializer; None unless it exists and is float32 and stored in the file."""
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

    def rewired(self, node: Node, inputs: tuple[str, ...], outputs: tuple[str, ...]) -> Node:
        """Return the node with other inputs and outputs, and with all its attributes."""
        if node.raw is None:
            return dataclasses.replace(node, inputs=inputs, outputs=outputs)
        wire = WireReader(node.raw)
        rest = b"".join(wire.buffer[f.begin : self._end(f)] for f in wire.fields(wire.root, "a node") if f.number not in (1, 2))
        names = [bytes_field(1, name.encode()) for name in inputs] + [bytes_field(2, name.encode()) for name in outputs]
        return dataclasses.replace(node, inputs=inputs, outputs=outputs, raw=b"".join(names) + rest)

    def to_bytes(self) -> bytes:
        """Serialize the model with the edited nodes. Weights that were read and that no node uses any more are dropped."""
        read = self.pinned.union(*(node.inputs for node in self.nodes))
        unread = {f.begin for name, f in self._initializers.items() if name in self._read and name not in read}
        kept = [
            self._wire.buffer[f.begin : self._end(f)]
            for f in self._wire.fields(self._graph.span, "the graph")
            if f.number != _NODE and f.begin not in unread
        ]
        nodes = [bytes_field(_NODE, node.raw if node.raw is not None else _encoded(node)) for node in self.nodes]
        constants = [_initializer(name, array) for name, array in self._constants.items() if name in read]
        graph = b"".join([*nodes, *kept, *self._added, *constants])
        return self._wire.buffer[: self._graph.begin] + bytes_field(_GRAPH, graph) + self._wire.buffer[self._graph.span.stop :]

    # ---- reading --------------------------------------------------------------------------------

    def _node(self, f: Field) -> Node:
        self._node_count += 1
        if self._node_count > MAX_NODES:
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
                f"inputs and at least one output."
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
            elif f.number == 2 and f.wire_type == FIXED32:
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
        """Collect the nodes of a subgraph and pin the names that it reads. Its own names are pinned too, which does no harm."""
        for g in self._wire.fields(self._wire.message(f, "a subgraph"), "a subgraph"):
            if g.number == _NODE:
                self.subgraph_nodes.append(self._node(g))
                self.pinned.update(self.subgraph_nodes[-1].inputs)
            elif g.number == _OUTPUT:
                self.pinned.add(parse_value(self._wire, self._wire.message(g, "a value")).name)

    def _initializer(self, f: Field) -> None:
        for g in self._wire.fields(self._wire.message(f, "an initializer"), "an initializer"):
            if g.number == 8:
                name = self._wire.text(g, "the name of an initializer")
                self._names.add(name)
                self._initializers[name] = f

    def _end(self, f: Field) -> int:
        if f.wire_type == BYTES:
            return f.span.stop
        # All fields of a GraphProto hold bytes. The end of another kind of field is not known here.
        raise ArtifactError(f"the graph has an unknown field {f.number} of wire type {f.wire_type}.")


def _initializer(name: str, array: np.ndarray) -> bytes:
    """Encode an initializer as a field of the graph."""
    dims = b"".join(integer_field(1, n) for n in array.shape)
    dtype, name_field = integer_field(2, _NUMBERS[array.dtype.name]), bytes_field(8, name.encode())
    raw = bytes_field(9, array.astype(array.dtype.newbyteorder("<")).tobytes())
    return bytes_field(_INITIALIZER, dims + dtype + name_field + raw)


def _encoded(node: Node) -> bytes:
    """Encode a NodeProto."""
    out = b"".join(bytes_field(1, name.encode()) for name in node.inputs)
    out += b"".join(bytes_field(2, name.encode()) for name in node.outputs)
    out += bytes_field(4, node.op.encode())
    for name, content in node.attributes.items():
        if isinstance(content, float):
            body, kind = varint(2 << 3 | FIXED32) + struct.pack("<f", content), 1
        elif isinstance(content, int):
            body, kind = integer_field(3, content), 2
        elif isinstance(content, str):
            body, kind = bytes_field(4, content.encode()), 3
        else:
            body, kind = b"".join(integer_field(8, n) for n in content), 7
        out += bytes_field(5, bytes_field(1, name.encode()) + body + integer_field(20, kind))
    return out + (bytes_field(7, node.domain.encode()) if node.domain else b"")
