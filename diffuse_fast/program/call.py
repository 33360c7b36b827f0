"""A node while it is lowered: its inputs and attributes, checked."""

from __future__ import annotations

import numpy as np

from ..errors import ArtifactError, UnsupportedError
from ..onnx.network import Node, Subgraph
from .lowering import MAX_RANK, Lowering, Tensor, Value
from .program import View


class Call:
    """A node while its handler runs. A handler reads every attribute and every input; :meth:`finish` refuses what it left.

    Attributes:
        node: The node.
        lowering: Where operations are added.
    """

    def __init__(self, lowering: Lowering, node: Node):
        self.node = node
        self.lowering = lowering
        self._attributes = dict(node.attributes)
        self._inputs = {i for i, name in enumerate(node.inputs) if name}

    def unsupported(self, why: str) -> UnsupportedError:
        """An error; :mod:`.lower` adds the operator, the node and the module."""
        return UnsupportedError(why)

    def malformed(self, why: str) -> ArtifactError:
        """An error about a node that no runtime could run."""
        return ArtifactError(f"the node {self.node.name or self.node.outputs[0]!r} ({self.node.op}) {why}.")

    def finish(self) -> None:
        """Check that nothing was left unread."""
        if self._attributes:
            name, value = next(iter(self._attributes.items()))
            raise self.unsupported(f"the attribute {name} = {str(value)[:100]}")
        if self._inputs:
            raise self.unsupported(f"the input {min(self._inputs)}")

    # ---- inputs ---------------------------------------------------------------------------------

    def has(self, index: int) -> bool:
        """Whether an optional input is given."""
        return index < len(self.node.inputs) and bool(self.node.inputs[index])

    def value(self, index: int) -> Value:
        """An input."""
        if not self.has(index):
            raise self.malformed(f"lacks its input {index}")
        self._inputs.discard(index)
        return self.lowering.value(self.node.inputs[index])

    def tensor(self, index: int) -> Tensor:
        """An input as a buffer."""
        value = self.value(index)
        name = self.node.inputs[index]
        if isinstance(value, np.ndarray) and value.dtype == np.float32 and name in self.lowering.network.initializers:
            return self.lowering.weight(name)  # a parameter of one element stays a weight
        return self.lowering.tensor(value)

    def view(self, index: int) -> View:
        """An input of floats as a buffer."""
        tensor = self.tensor(index)
        if tensor.dtype != "float32":
            raise self.unsupported(f"an input of {tensor.dtype}")
        return tensor.view

    def optional(self, index: int) -> View | None:
        """An optional input of floats as a buffer."""
        return self.view(index) if self.has(index) else None

    def constant(self, index: int) -> np.ndarray:
        """An input that must be known when the network is loaded."""
        known = self.lowering.known(self.value(index))
        if known is None:
            raise self.unsupported(f"the input {index} is no constant")
        return known

    def integers_of(self, index: int) -> tuple[int, ...]:
        """An input that is a constant list of integers."""
        array = self.constant(index)
        if array.dtype.kind not in "iu" or array.ndim > 1 or array.size > MAX_RANK * 4:
            raise ArtifactError(f"the input {index} of the node {self.node.name!r} ({self.node.op}) must be a list of integers.")
        return tuple(array.ravel().tolist())

    # ---- attributes -----------------------------------------------------------------------------

    def integer(self, name: str, default: int = 0) -> int:
        """An attribute."""
        value = self._attributes.pop(name, default)
        if not isinstance(value, int):
            raise self._wrong(name)
        return value

    def number(self, name: str, default: float = 0.0) -> float:
        """An attribute."""
        value = self._attributes.pop(name, default)
        if not isinstance(value, float):
            raise self._wrong(name)
        return value

    def text(self, name: str, default: str = "") -> str:
        """An attribute."""
        value = self._attributes.pop(name, default)
        if not isinstance(value, str):
            raise self._wrong(name)
        return value

    def integers(self, name: str) -> tuple[int, ...] | None:
        """An attribute; None if it is absent."""
        value = self._attributes.pop(name, None)
        if value is None:
            return None
        integers = tuple(n for n in value if isinstance(n, int)) if isinstance(value, tuple) else ()
        if not isinstance(value, tuple) or len(integers) < len(value):
            raise self._wrong(name)
        return integers

    def array(self, name: str) -> np.ndarray | None:
        """A tensor attribute; None if it is absent."""
        value = self._attributes.pop(name, None)
        if value is not None and not isinstance(value, np.ndarray):
            raise self._wrong(name)
        return value

    def graph(self, name: str) -> Subgraph:
        """An attribute."""
        value = self._attributes.pop(name, None)
        if not isinstance(value, Subgraph):
            raise self._wrong(name)
        return value

    def literal(self) -> np.ndarray:
        """The content of a Constant: its only attribute."""
        if len(self._attributes) != 1:
            raise ArtifactError(f"the node {self.node.name!r} (Constant) has {len(self._attributes)} values.")
        name, value = self._attributes.popitem()
        if name == "value" and isinstance(value, np.ndarray):
            return value
        if name in ("value_int", "value_ints"):
            return np.array(value, np.int64)
        if name in ("value_float", "value_floats"):
            return np.array(value, np.float32)
        raise self.unsupported(name)

    def ignore(self, *names: str) -> None:
        """Drop attributes that do not change what this library computes."""
        for name in names:
            self._attributes.pop(name, None)

    def _wrong(self, name: str) -> ArtifactError:
        return ArtifactError(f"the attribute {name!r} of the node {self.node.name!r} ({self.node.op}) has the wrong type.")

    def axis(self, value: int, rank: int) -> int:
        """An axis counted from the front."""
        if not -rank <= value < rank:
            raise self.malformed(f"names the axis {value} of {rank}")
        return value % rank


def unsupported(lowering: Lowering, node: Node, why: str) -> UnsupportedError:
    """An error about a node, with its module."""
    module = _module(lowering, node)
    where = f" in the module {module!r}" if module else ""
    return UnsupportedError(f"the native runtime does not support {node.op} ({why}), node {node.name or node.outputs[0]!r}{where}.")


def _module(lowering: Lowering, node: Node) -> str:
    """The module of a node: the path in the name of its weight, or of the next weight before it."""
    pending, seen = [node], 0
    while pending and seen < 200:
        current = pending.pop(0)
        seen += 1
        for name in current.inputs:
            if name in lowering.network.initializers and "." in name:
                return name.rpartition(".")[0]
            if name in lowering.producers:
                pending.append(lowering.producers[name])
    return ""
