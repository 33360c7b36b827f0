"""Lower a network to a program: each node becomes views and at most a few operations, which :mod:`.fuse` merges."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..errors import ArtifactError, UnsupportedError
from ..onnx import network as reader
from ..onnx.header import Value as Declared
from ..onnx.network import Initializer, Network, Node, Subgraph
from . import views
from .call import Call, unsupported
from .constants import FOLDED
from .draft import Draft
from .finish import finish
from .fuse import fuse
from .lowering import Lowering, Tensor, Value
from .operators import HANDLERS
from .program import Input, Level, Program

if TYPE_CHECKING:
    from ..model import Model

OPSETS = range(13, 25)
PRIMES = (61, 67, 71, 73, 79, 83, 89, 97, 101, 103, 107, 109, 113, 127, 131, 137, 139, 149, 151, 157, 163, 167, 173, 179, 181, 191)

_LEVELS = (Level.SAMPLE, Level.TIME)  # of the first inputs; the others are conditioning


def lower_model(model: Model) -> Program:
    """Lower the network of a model.

    Returns:
        The program. Its inputs are the sample, the time, then the conditioning in the order of ``model.conditioning``.

    Raises:
        UnsupportedError: an operation is not supported. The message names the operator, its node and its module.
        ArtifactError: the file is damaged or hostile, or was replaced since it was loaded.
    """
    with model.files.unchanged():
        network = reader.read(model.path)
    declared = {value.name: value for value in network.inputs}
    shapes = {model.input: model.shape, **{c.name: c.shape for c in model.conditioning}}
    names = (model.input, model.time.input, *(c.name for c in model.conditioning))
    network.inputs = tuple(declared[name] for name in names)
    network.outputs = (model.output,)
    return lower_network(network, shapes)


def lower_file(path: Path) -> Program:
    """Lower the network of any ONNX file: its inputs are the sample, the time, then the conditioning, its result the first output.

    Raises:
        UnsupportedError, ArtifactError: as :func:`lower_model`.
    """
    return lower_network(reader.read(path))


def lower_network(network: Network, shapes: Mapping[str, tuple[int, ...]] | None = None) -> Program:
    """Lower a network.

    Args:
        network: The network; it is not changed.
        shapes: Shapes of inputs for one sample, where the file leaves them open.
    """
    sizes = _sizes(network, shapes or {})
    for batch in [p for p in PRIMES if all(n % p for n in sizes)][:3]:
        program = finish(fuse(lower(network, batch, shapes)))
        if program is not None:
            return program
    raise UnsupportedError("no prime is free to stand for the batch.")


def lower(network: Network, batch: int, shapes: Mapping[str, tuple[int, ...]] | None = None) -> Draft:
    """Lower a network, without fusing, with a prime that stands for the batch and is a factor of no size."""
    lowering = Lowering(network, batch)
    _inputs(lowering, shapes or {})
    if len(network.outputs) < 1:
        raise ArtifactError("the graph has no output.")
    for node in _needed(network):
        _node(lowering, node)
    result = lowering.tensor(lowering.value(network.outputs[0]))
    lowering.source = "output"
    if result.dtype != "float32":
        raise UnsupportedError(f"the output of the network is {result.dtype}, not float32.")
    view = result.view
    if not view.dims or view.dims[0] != ((batch, -1),):
        raise UnsupportedError(f"the first dimension of the output is not the batch: {list(view.shape)}.")
    output = views.row_major(lowering.new_buffer(math.prod(view.shape[1:]), Level.SAMPLE), view.shape, batch)
    lowering.write(view, output)
    lowering.draft.output = output
    return lowering.draft


def _sizes(network: Network, shapes: Mapping[str, tuple[int, ...]]) -> set[int]:
    """The sizes and integers of a network, of which the batch must not be a factor."""
    found = {n for shape in shapes.values() for n in shape}
    for value in network.inputs:
        found.update(n for n in value.shape or () if isinstance(n, int))
    _add_sizes(network.nodes, network.initializers, found)
    found.discard(0)
    return found


def _add_sizes(nodes: Iterable[Node], initializers: Mapping[str, Initializer], found: set[int]) -> None:
    for initializer in initializers.values():
        found.update(initializer.shape)
        if initializer.values is not None and initializer.dtype.startswith("int") and initializer.values.size <= 64:
            found.update(initializer.values.ravel().tolist())
    for node in nodes:
        for attribute in node.attributes.values():
            if isinstance(attribute, tuple):
                found.update(n for n in attribute if isinstance(n, int))
            elif isinstance(attribute, np.ndarray) and attribute.dtype.kind == "i" and attribute.size <= 64:
                found.update(attribute.ravel().tolist())
            elif isinstance(attribute, Subgraph):
                _add_sizes(attribute.nodes, attribute.initializers, found)


def _inputs(lowering: Lowering, shapes: Mapping[str, tuple[int, ...]]) -> None:
    for i, value in enumerate(lowering.network.inputs):
        level = _LEVELS[i] if i < len(_LEVELS) else Level.CONDITION
        shape = _input_shape(value, shapes.get(value.name), lowering.batch, time=i == 1)
        row = shape[1:] if shape[:1] == (lowering.batch,) else shape
        buffer = lowering.new_buffer(math.prod(row), level)
        lowering.draft.inputs.append(Input(value.name, buffer, row))
        if value.dtype not in ("float32", "int64", "int32", "bool"):
            raise UnsupportedError(f"the input {value.name!r} is {value.dtype}, which is not supported.")
        lowering.values[value.name] = Tensor(views.row_major(buffer, shape, lowering.batch), value.dtype)


def _input_shape(value: Declared, row: tuple[int, ...] | None, batch: int, *, time: bool) -> tuple[int, ...]:
    declared = value.shape
    if declared is None:
        raise UnsupportedError(f"the input {value.name!r} has no known rank.")
    if time and declared in ((), (1,)):
        return () if declared == () else (1,)
    rest = declared[1:] if row is None else row
    if not declared or isinstance(declared[0], int) or len(rest) != len(declared) - 1:
        raise UnsupportedError(f"the input {value.name!r} has the shape {list(declared)}; its first dimension must be the batch.")
    sizes = [n for n in rest if isinstance(n, int) and 0 < n < 1 << 40]
    if len(sizes) != len(rest):
        raise UnsupportedError(f"the input {value.name!r} has the shape {list(declared)}; only the batch may be open.")
    return batch, *sizes


def _needed(network: Network) -> list[Node]:
    """The nodes that the output depends on."""
    wanted = {network.outputs[0]}
    out = []
    for node in reversed(network.nodes):
        if not wanted.isdisjoint(node.outputs):
            wanted.update(_names(node))
            out.append(node)
    wanted.discard("")
    out.reverse()
    return out


def _names(node: Node) -> set[str]:
    """The values that a node uses. Of an If the values of both branches, as its condition is not known yet."""
    inside = [name for graph in node.subgraphs for one in graph.nodes for name in _names(one)]
    return {*node.inputs, *inside, *(name for graph in node.subgraphs for name in graph.outputs)}


def _node(lowering: Lowering, node: Node) -> None:
    """Add what a node computes."""
    lowering.check_time()
    lowering.source = node.name or node.outputs[0]
    branch = None
    results: tuple[Value, ...] = ()
    try:
        if node.op == "If" and not node.domain:
            branch = _branch(lowering, node)
        else:
            results = _results(lowering, node)
    except ArtifactError:
        raise
    except UnsupportedError as error:
        raise unsupported(lowering, node, str(error).rstrip(".")) from None
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise ArtifactError(f"the node {lowering.source!r} ({node.op}) is malformed: {error}.") from error
    if branch is not None:
        for inner in branch.nodes:
            _node(lowering, inner)
        results = tuple(map(lowering.value, branch.outputs))
    for i, name in enumerate(node.outputs):
        if name in lowering.producers or name in lowering.values or name in lowering.network.initializers:
            raise ArtifactError(f"the graph computes {name!r} twice.")
        if name:
            lowering.producers[name] = node
            if i < len(results):
                lowering.values[name] = results[i]


def _branch(lowering: Lowering, node: Node) -> Subgraph:
    """The branch that an If takes, with names of its own. The condition must be known, as that on a shape is."""
    call = Call(lowering, node)
    condition = call.constant(0)
    if condition.size != 1 or condition.dtype != bool:
        raise call.malformed(f"has a condition of {condition.dtype} {list(condition.shape)}")
    both = call.graph("then_branch"), call.graph("else_branch")
    call.finish()
    taken = both[0] if condition.item() else both[1]
    own = {*taken.initializers, *(name for one in taken.nodes for name in one.outputs if name)}
    branch = taken.renamed(lambda name: f"{node.outputs[0]}/{name}" if name in own else name)
    for name, initializer in branch.initializers.items():
        if initializer.values is None:
            raise call.unsupported(f"the weight {name!r} inside of a branch")
        lowering.values[name] = initializer.values
    return branch


def _results(lowering: Lowering, node: Node) -> tuple[Value, ...]:
    if node.domain or (node.op not in HANDLERS and node.op not in FOLDED):
        raise UnsupportedError(f"domain {node.domain!r}" if node.domain else "no such operation")
    if node.opset not in OPSETS:
        raise UnsupportedError(f"operator set {node.opset}; {OPSETS.start} to {OPSETS.stop - 1} are")
    call = Call(lowering, node)
    values = [lowering.value(name) for name in node.inputs if name]
    constant = all(isinstance(value, np.ndarray) for value in values)
    if not constant and node.op not in HANDLERS:
        constant = all(lowering.known(value) is not None for value in values)
    if constant and node.op in FOLDED:
        with np.errstate(all="ignore"):
            folded = FOLDED[node.op](call)
        # A function of NumPy may return a scalar.
        result: Value | tuple[Value, ...] = folded if isinstance(folded, tuple) else np.asarray(folded)
    elif node.op in HANDLERS:
        result = HANDLERS[node.op](call)
    else:
        raise call.unsupported("it is computed while the network runs")
    call.finish()
    return result if isinstance(result, tuple) else (result,)
