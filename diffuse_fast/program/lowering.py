"""The state of a lowering: the values of the graph so far and the operations that compute them."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import ArtifactError, UnsupportedError
from ..onnx.network import MAX_VALUES, SMALL, Network, Node
from . import views
from .draft import ROW, Draft
from .program import (
    Attention,
    Binary,
    Convolution,
    Gather,
    Kind,
    Level,
    Linear,
    Map,
    Norm,
    Operation,
    Reduce,
    Resize,
    Softmax,
    Stage,
    Unary,
    View,
)
from .views import Dim

MAX_SECONDS = 10.0
MAX_RANK = 16
MAX_ATOMS = 64  # of a view
MAX_ELEMENTS = 1 << 40  # of a buffer

# The same function with its operands exchanged.
EXCHANGED = {
    "add": "add", "multiply": "multiply", "maximum": "maximum", "minimum": "minimum",
    "subtract": "reverse_subtract", "reverse_subtract": "subtract", "divide": "reverse_divide", "reverse_divide": "divide",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Tensor:
    """A value that is computed when the network is loaded or runs. Every other value is a folded constant, a NumPy array.

    Attributes:
        view: Where it is.
        dtype: NumPy's name of its type in the graph. In the program all values are float32.
    """

    view: View
    dtype: str = "float32"

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape, with the batch."""
        return self.view.shape


Value = Tensor | np.ndarray


class Lowering:
    """Makes a draft of a network.

    Attributes:
        draft: The operations so far.
        network: What is lowered.
        batch: The prime that stands for the batch.
        values: The values so far, by name.
        producers: The node that computes a value, by name.
    """

    def __init__(self, network: Network, batch: int):
        self.network = network
        self.batch = batch
        self.draft = Draft(batch)
        self.values: dict[str, Value] = {}
        self.producers: dict[str, Node] = {}
        self.source = ""  # of the operations that are added
        self._writers: dict[int, Operation] = {}  # of buffers that one operation fills
        self._known: dict[tuple[object, ...], View] = {}  # results by what computes them: equal operations are added once
        self._weights: dict[str, Tensor] = {}
        self._constants: dict[tuple[object, ...], View] = {}
        self._folded = 0  # bytes of folded constants
        self._deadline = time.monotonic() + MAX_SECONDS

    def reserve(self, elements: int) -> None:
        """Count elements of folded constants before they are made."""
        self._folded += 8 * elements
        if self._folded > MAX_VALUES:
            raise ArtifactError(f"the folded constants of the graph take more than {MAX_VALUES >> 20} MiB.")

    def check_time(self) -> None:
        """Raise an error if lowering takes too long, as it would only for a hostile file."""
        if time.monotonic() > self._deadline:
            raise ArtifactError(f"the graph takes more than {MAX_SECONDS:g} s to lower; it is not read further.")

    # ---- values ---------------------------------------------------------------------------------

    def value(self, name: str) -> Value:
        """The value of a name."""
        found = self.values.get(name)
        if found is None:
            if name in self.producers:
                raise UnsupportedError(f"a further output of {self.producers[name].op}")
            if name not in self.network.initializers:
                raise ArtifactError(f"the graph uses the value {name!r} before it is computed.")
            initializer = self.network.initializers[name]
            values = initializer.values
            # One number is part of the program, as an epsilon; more floats are weights.
            literal = values is not None and (values.size <= 1 or initializer.dtype != "float32")
            found = self.values[name] = values if values is not None and literal else self.weight(name)
        return found

    def weight(self, name: str) -> Tensor:
        """An initializer as a buffer."""
        if name not in self._weights:
            initializer = self.network.initializers[name]
            if initializer.dtype != "float32":
                raise UnsupportedError(f"the initializer {name!r} is {initializer.dtype}; the native runtime reads float32.")
            size = math.prod(initializer.shape)
            if size == 0:
                raise UnsupportedError(f"the initializer {name!r} is empty.")
            buffer = self.draft.buffer(size, Level.CONSTANT, initializer=name)
            self._weights[name] = Tensor(views.row_major(buffer, initializer.shape, 0))
        return self._weights[name]

    def known(self, value: Value) -> np.ndarray | None:
        """The elements of a folded constant or of a small initializer; None for others."""
        if isinstance(value, np.ndarray):
            return value
        name = self.draft.buffers[value.view.buffer].initializer
        if name is None or value.view != self.weight(name).view:
            return None
        values = self.network.initializers[name].values
        return values if values is not None and values.size <= SMALL else None

    def tensor(self, value: Value) -> Tensor:
        """A value as a buffer."""
        return value if isinstance(value, Tensor) else Tensor(self.constant(value), value.dtype.name)

    def constant(self, array: np.ndarray) -> View:
        """A folded constant as a buffer. It must be the same for every sample."""
        if array.size == 0:
            raise UnsupportedError("an empty tensor is used in a computation.")
        dims: list[Dim] = []
        for axis in range(array.ndim):
            size = array.shape[axis]
            if size % self.batch:
                dims.append(((size, 1),) if size != 1 else ())
                continue
            split = array.reshape(*array.shape[:axis], self.batch, size // self.batch, *array.shape[axis + 1 :])
            first = split.take(0, axis)
            if not (split == np.expand_dims(first, axis)).all():
                raise UnsupportedError("a constant differs between the samples of a batch.")
            array = first
            dims.append(views.dim_of(size, 1, self.batch))
        stored = np.ascontiguousarray(array, np.float32).ravel()
        if array.dtype.kind != "f" and not (stored == array.ravel()).all():
            raise UnsupportedError("an integer constant is not a float32.")
        placed, size = views.new_dims(range(len(dims)), dims)
        key = (size, stored.tobytes())
        if key not in self._constants:
            self.reserve(size)
            self._constants[key] = View(self.draft.buffer(size, Level.CONSTANT, values=stored), 0, ())
        return View(self._constants[key].buffer, 0, placed)

    def level(self, view: View) -> Level:
        """What a view depends on."""
        return self.draft.buffers[view.buffer].level

    # ---- operations -----------------------------------------------------------------------------

    def emit(
        self,
        kind: Kind,
        inputs: Sequence[View],
        layout: tuple[tuple[Dim, ...], int],
        prologue: Sequence[Stage] = (),
        epilogue: Sequence[Stage] = (),
    ) -> View:
        """Add an operation that fills a new buffer, and return the result.

        Args:
            kind, inputs, prologue, epilogue: See :class:`.program.Operation`. Dimensions include the batch.
            layout: The dimensions of the result, and the size of the buffer.
        """
        key = (kind, tuple(inputs), layout[0], tuple(prologue), tuple(epilogue))
        known = self._known.get(key)
        if known is None:
            output = View(self.new_buffer(layout[1], self._level(inputs, prologue, epilogue)), 0, layout[0])
            self._writers[output.buffer] = self._add(kind, inputs, output, prologue, epilogue)
            known = self._known[key] = output
        return known

    def write(self, source: View, target: View) -> None:
        """Copy a view to a part of a buffer that several operations fill."""
        self.fill(Map(), (source,), target)

    def fill(self, kind: Kind, inputs: Sequence[View], target: View) -> None:
        """Add an operation that fills a part of a buffer."""
        self._add(kind, inputs, target, (), ())

    def new_buffer(self, size: int, level: Level) -> int:
        """Add a buffer."""
        if not 0 < size < MAX_ELEMENTS:
            raise UnsupportedError(f"a value has {size} elements; from 1 to {MAX_ELEMENTS - 1} are supported.")
        return self.draft.buffer(size, level)

    def map(self, x: View, *stages: Stage) -> View:
        """Apply stages to each element."""
        return self.emit(Map(), (x,), views.dims_like(x), stages)

    def copy(self, x: View) -> View:
        """A row-major copy, of which every reshape is a view."""
        return self.emit(Map(), (x,), views.new_dims(range(len(x.dims)), x.dims))

    def concatenate(self, parts: Sequence[View], axis: int) -> View:
        """Put parts side by side in a new buffer. They have the same shape in the other dimensions."""
        key = ("concatenate", tuple(parts), axis)
        known = self._known.get(key)
        if known is not None:
            return known
        others = {part.shape[:axis] + part.shape[axis + 1 :] for part in parts}
        if len(others) > 1:
            raise ArtifactError(f"tensors of shapes {sorted(others)[:5]}, besides one dimension, are concatenated.")
        dims = [self.broadcast([part.dims[i] for part in parts]) for i in range(len(parts[0].dims)) if i != axis]
        if any(stride == ROW for part in parts for _, stride in part.dims[axis]):
            raise UnsupportedError("concatenation of samples is not supported.")
        sizes = [part.shape[axis] for part in parts]
        dims.insert(axis, views.merged([(sum(sizes), 1)]))
        largest = max(parts, key=lambda part: (int(self.level(part)), math.prod(part.shape)))
        placed, size = views.new_dims(views.memory_order(largest), dims)
        whole = View(self.new_buffer(size, self._level(parts, (), ())), 0, placed)
        start = 0
        for part, count in zip(parts, sizes, strict=True):
            target = views.narrow(whole, axis, start, count)
            assert target is not None  # one atom of a new buffer
            self.write(part, target)
            start += count
        self._known[key] = whole
        return whole

    def reshape(self, x: View, shape: Sequence[int]) -> View:
        """Reshape, with a copy where no view will do."""
        if math.prod(shape) != math.prod(x.shape):
            raise ArtifactError(f"a tensor of shape {list(x.shape)} is reshaped to {list(shape)}.")
        found = views.reshape(x, shape)
        if found is None:
            found = views.reshape(self.copy(x), shape)
        if found is None:
            raise UnsupportedError(f"a reshape from {list(x.shape)} to {list(shape)} mixes samples ({self.batch} is the batch).")
        return found

    def narrow(self, x: View, axis: int, start: int, count: int, step: int = 1) -> View:
        """Take a part of a dimension, with a copy where no view will do."""
        found = views.narrow(x, axis, start, count, step)
        if found is None:
            found = views.narrow(self.copy(x), axis, start, count, step)
        if found is None:
            raise UnsupportedError("a slice takes some of the samples.")
        return found

    def select(self, x: View, axis: int, indices: np.ndarray) -> View:
        """Take elements of a dimension by constant indices, which are not negative."""
        steps = np.diff(indices)
        step = int(steps[0]) if steps.size else 1
        if step > 0 and (steps == step).all():
            return self.narrow(x, axis, int(indices[0]), indices.size, step)
        if any(stride == ROW for _, stride in x.dims[axis]):
            raise UnsupportedError("samples are selected by index.")
        order = (axis, *(i for i in range(len(x.dims)) if i != axis))
        table = views.permute(x, order)
        places = self.constant(indices)
        memory = [order.index(i) for i in views.memory_order(x)]
        found = self.emit(Gather(), (table, places), views.new_dims(memory, [places.dims[0], *table.dims[1:]]))
        return views.permute(found, [order.index(i) for i in range(len(order))])

    def broadcast(self, dims: Sequence[Dim]) -> Dim:
        """The dimension to which dimensions of several values are broadcast."""
        found: Dim = ()
        for dim in dims:
            if not dim:
                continue
            if not found:
                found = dim
            elif math.prod(n for n, _ in dim) != math.prod(n for n, _ in found):
                raise ArtifactError(f"sizes {[math.prod(n for n, _ in d) for d in dims]} are combined.")
            elif _batch_inside(dim) != _batch_inside(found):
                raise UnsupportedError("samples and another dimension are combined in different orders.")
        return found

    def broadcast_views(self, *given: View) -> list[View]:
        """Views of one shape."""
        rank = max(len(x.dims) for x in given)
        padded = [views.unsqueeze(x, range(rank - len(x.dims))) for x in given]
        dims = [self.broadcast([x.dims[i] for x in padded]) for i in range(rank)]
        return [views.expand(x, dims) for x in padded]

    def unary(self, function: str, x: View, parameter: float = 0.0) -> View:
        """Apply a function of one argument."""
        return self.map(x, Unary(function, parameter))

    def binary(self, function: str, x: View, y: View | float) -> View:
        """Combine two values with broadcasting."""
        if not isinstance(y, View):
            return self.map(x, Binary(function, y))
        x_wide, y_wide = self.broadcast_views(x, y)
        # The larger one comes first: the other becomes an operand that repeats.
        if function in EXCHANGED and (_elements(y), int(self.level(y))) > (_elements(x), int(self.level(x))):
            x_wide, y_wide, function = y_wide, x_wide, EXCHANGED[function]
        return self.map(x_wide, Binary(function, y_wide))

    def writer(self, view: View) -> Operation | None:
        """The operation whose whole result a view is."""
        found = self._writers.get(view.buffer)
        return found if found is not None and found.output == view else None

    def stage(self, view: View, kind: type[Stage], function: str) -> tuple[View, Stage] | None:
        """If a view is the result of one stage, what the stage was applied to, and the stage."""
        found = self.writer(view)
        if found is None or not isinstance(found.kind, Map) or len(found.prologue) != 1:
            return None
        stage = found.prologue[0]
        return (found.inputs[0], stage) if isinstance(stage, kind) and getattr(stage, "function", "") == function else None

    def _level(self, inputs: Sequence[View], prologue: Sequence[Stage], epilogue: Sequence[Stage]) -> Level:
        bits = 0
        for view in inputs:
            bits |= self.level(view).value
        for stage in (*prologue, *epilogue):
            if isinstance(stage, Binary) and isinstance(stage.operand, View):
                bits |= self.level(stage.operand).value
        return Level(bits).stage

    def _add(
        self, kind: Kind, inputs: Sequence[View], output: View, prologue: Sequence[Stage], epilogue: Sequence[Stage]
    ) -> Operation:
        operation = Operation(kind, tuple(inputs), output, tuple(prologue), tuple(epilogue), self.source)
        for view in (output, *operation.reads):
            if len(view.dims) > MAX_RANK or sum(map(len, view.dims)) > MAX_ATOMS:
                raise UnsupportedError("a tensor has too many dimensions.")
        _check_batch(operation)
        self.draft.operations.append(operation)
        return operation


def _elements(view: View) -> int:
    """Distinct elements of a view."""
    return math.prod(size for dim in view.dims for size, stride in dim if stride)


def _batch_inside(dim: Dim) -> int | None:
    place = views.batch_place(View(0, 0, (dim,)))
    return None if place is None else place[1]


def _check_batch(operation: Operation) -> None:
    """Check that samples stay apart: :mod:`.finish` removes the batch from each view."""
    kind = operation.kind
    x = operation.inputs[0]
    place = views.batch_place(x)
    for stages, with_stages in ((operation.prologue, place), (operation.epilogue, views.batch_place(operation.output))):
        for stage in stages:
            if isinstance(stage, Binary) and isinstance(stage.operand, View) and views.batch_place(stage.operand) != with_stages:
                raise UnsupportedError("samples and another dimension are combined in different orders.")
    if isinstance(kind, Gather):
        return
    if isinstance(kind, Attention) and any(p and p[0] >= len(x.dims) - 2 for p in map(views.batch_place, operation.inputs)):
        raise UnsupportedError("samples are mixed: an operation runs over the batch.")
    if isinstance(kind, Convolution | Linear | Resize) and any(views.batch_place(view) for view in operation.inputs[1:]):
        raise UnsupportedError("the weights differ between samples.")
    if place is None:
        return
    axes: tuple[int, ...] = ()
    if isinstance(kind, Linear):
        axes = (len(x.dims) - 1,)
    elif isinstance(kind, Reduce):
        axes = kind.axes
    elif isinstance(kind, Softmax | Resize):
        axes = (kind.axis,)
    if place[0] in axes or any(place[0] in stage.axes for stage in operation.prologue if isinstance(stage, Norm)):
        raise UnsupportedError("samples are mixed: an operation runs over the batch.")
