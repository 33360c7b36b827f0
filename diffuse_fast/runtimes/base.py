"""Protocols of the runtimes, and the helpers that they share."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from ..artifact.document import Conditioning, Time
from ..errors import ArgumentError, ArgumentTypeError, DiffuseFastError, NetworkError, suggest

CACHE_LINE = 64


class BoundCall(Protocol):
    """A network bound to preallocated buffers. Only one sampling call may use it at a time.

    Attributes:
        x: (batch, *shape) float32, C-contiguous: the state of the engine, which the step updates in place.
        output: (batch, *output shape) float32, C-contiguous: a call writes the model output here. It is the same memory for
            every call, and never shared with ``x`` or another bound call.
    """

    x: np.ndarray
    output: np.ndarray

    def condition(self, cond: dict[str, np.ndarray]) -> None:
        """Copy new values into the conditioning inputs. Names, shapes and dtypes must be those that were bound."""
        ...

    def __call__(self, t: float | np.ndarray) -> np.ndarray:
        """Run the network on ``x`` and return ``output``.

        Args:
            t: The time: a float for the batch, or a float64 array with one time per sample.

        Raises:
            ArgumentError: the network takes integer timesteps and ``t`` is fractional, or it takes a single time and ``t`` has
                several.
            NetworkError: the network failed, or its output has the wrong type or shape.
        """
        ...


class Network(Protocol):
    """A network in a runtime. Any thread may bind it.

    Attributes:
        name: The runtime's name.
    """

    name: str

    def bind(
        self, batch: int, shape: tuple[int, ...], cond: dict[str, np.ndarray], output_shape: tuple[int, ...] | None = None
    ) -> BoundCall:
        """Allocate the buffers of a batch.

        Args:
            batch: Number of samples.
            shape: Shape of one sample.
            cond: The conditioning inputs, each (batch, *its shape). They are copied.
            output_shape: Shape of the network's output for one sample; None for that of the model, or else ``shape``.

        Raises:
            ArgumentError, ArgumentTypeError: an input is missing, unknown, or of a wrong shape or dtype.
        """
        ...


class Memory(Protocol):
    """The memory operations of a device that a runtime needs. GPU arrays have ``__cuda_array_interface__`` or ``data_ptr()``."""

    name: str

    def alloc(self, shape: tuple[int, ...], dtype: Any = np.float32) -> Any:
        """Allocate a zeroed contiguous array."""
        ...

    def upload(self, array: Any, into: Any) -> None:
        """Copy an array of the host or of this device, in stream order. The caller keeps a device array alive until then."""
        ...


class DeviceCall(Protocol):
    """A network bound to static memory of a device. It enqueues work on the device's stream and never waits.

    Attributes:
        x: (batch, *shape) float32: the state of the engine, which the step updates in place.
        t: (batch,) float32: the time of each sample, which the step sets for the next call.
        captures_itself: Whether the runtime captures and replays a CUDA graph. The engine then captures none around it.
    """

    x: Any
    t: Any
    captures_itself: bool

    def condition(self, cond: list[dict[str, Any]]) -> None:
        """Copy new values into the conditioning inputs: one dict per evaluation, with arrays of the host or of this device."""
        ...

    def check(self, t: float) -> None:
        """Check that the network can be called at this time.

        Raises:
            ArgumentError: the network takes integer timesteps and ``t`` is fractional.
        """
        ...

    def __call__(self, evaluations: int, integer_times: bool) -> list[Any]:
        """Enqueue one call of the network at ``x`` and ``t`` with the first ``evaluations`` conditions, as one batch.

        Args:
            evaluations: How many of the bound conditions to use, from 1.
            integer_times: Whether every time is an integer.

        Returns:
            The outputs, each (batch, *output shape) in the network's dtype. With ``captures_itself`` they are static memory.

        Raises:
            NetworkError: the network failed, or its output has the wrong type or shape.
        """
        ...


@dataclass(frozen=True, slots=True)
class Placement:
    """Where and how a network runs on a CUDA device.

    Attributes:
        runtime: Name of the runtime.
        index: Number of the device.
        stream: The stream of the engine; None for a runtime that works on the current one.
        graph: ``tick`` if the runtime should capture each call in a CUDA graph.
    """

    runtime: str
    index: int
    stream: int | None
    graph: str


class DeviceNetwork(Protocol):
    """A network on a device. Any thread may bind it.

    Attributes:
        name: The runtime's name.
        best_graph: The value that ``graph="auto"`` stands for.
    """

    name: str
    best_graph: str

    def bind_device(
        self,
        memory: Memory,
        batch: int,
        shape: tuple[int, ...],
        cond: list[dict[str, Any]],
        output_shape: tuple[int, ...] | None = None,
    ) -> DeviceCall:
        """Allocate the static memory of a batch.

        ``cond`` has one dict per evaluation of a guided call, with arrays of the host or of this device. The other arguments are
        those of :meth:`Network.bind`.
        """
        ...

    def fingerprint(self) -> Any:
        """Return a value that changes when a captured graph becomes invalid, because the weights moved to other memory."""
        ...


class MemoryCall:
    """A :class:`BoundCall` of a runtime that reads inputs from NumPy's memory: a call sets the time and runs.

    Attributes:
        _run: Runs the network on the inputs and writes ``output``. Set by the subclass.
    """

    _run: Callable[[], Any]

    def __init__(self, inputs: dict[str, np.ndarray], sample: str, time: str, into: np.ndarray) -> None:
        self.x, self.output = inputs[sample], into
        self._inputs, self._t = inputs, inputs[time]  # kept alive: the runtime has addresses only
        self._integer = self._t.dtype.kind == "i"
        self._per_sample = self._t.shape == (len(self.x),)

    def condition(self, cond: dict[str, np.ndarray]) -> None:
        for name, array in cond.items():
            np.copyto(self._inputs[name], array, casting="same_kind")

    def __call__(self, t: float | np.ndarray) -> np.ndarray:
        if self._integer:
            require_integer_times(t)
        if isinstance(t, float):
            self._t.fill(t)
        elif self._per_sample:
            self._t[...] = t
        else:
            self._t.fill(single_time(t))
        try:
            self._run()
        except Exception as error:
            raise network_error(t, error) from error
        return self.output


@dataclass(frozen=True, slots=True)
class Inputs:
    """The inputs of an artifact. A copy, because a network must not keep its model alive.

    Attributes:
        sample: Name of the input that takes the sample.
        shape: Shape of one sample.
        time: The time input.
        time_dims: How many dimensions it has.
        per_sample: Whether it takes one time per sample.
        conditioning: The other inputs.
    """

    sample: str
    shape: tuple[int, ...]
    time: Time
    time_dims: int
    per_sample: bool
    conditioning: tuple[Conditioning, ...]

    def arrays(self, batch: int, shape: tuple[int, ...], cond: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Allocate the inputs of a batch in the network's dtypes, and copy the conditioning into them.

        Raises:
            ArgumentError, ArgumentTypeError: as :meth:`Network.bind`.
        """
        self.check_shape(shape)
        inputs = {self.sample: aligned((batch, *shape))}
        inputs[self.time.input] = aligned((batch,) if self.per_sample else (1,) * self.time_dims, self.time.dtype)
        return inputs | self.conditions(cond, batch)

    def check_shape(self, shape: tuple[int, ...]) -> None:
        """Raises ArgumentError for another shape of a sample."""
        if shape != self.shape:
            raise ArgumentError(
                f"shape is {shape}, but the network's input {self.sample!r} has the shape {self.shape} for one sample."
            )

    def conditions(self, cond: dict[str, np.ndarray], batch: int) -> dict[str, np.ndarray]:
        """Return copies of the conditioning in the network's order and dtypes.

        Raises:
            ArgumentError, ArgumentTypeError: as :meth:`Network.bind`.
        """
        check_names(cond, [c.name for c in self.conditioning])
        given, inputs = copied_cond(cond, batch), {}
        for c in self.conditioning:
            array = cast_cond(c.name, given[c.name], c.dtype)
            if array.shape[1:] != c.shape:
                raise ArgumentError(
                    f"cond[{c.name!r}] has the shape {array.shape[1:]} for one sample; the network takes {c.shape}."
                )
            inputs[c.name] = array
        return inputs


def aligned(shape: tuple[int, ...], dtype: Any = np.float32) -> np.ndarray:
    """Allocate a zeroed C-contiguous array aligned to a cache line, so that no vector load of the step crosses two lines."""
    dtype = np.dtype(dtype)
    size = math.prod(shape) * dtype.itemsize
    raw = np.zeros(size + CACHE_LINE, np.uint8)
    start = -raw.ctypes.data % CACHE_LINE
    return raw[start : start + size].view(dtype).reshape(shape)


def copied_cond(cond: dict[str, Any], batch: int, on_device: Callable[[Any], bool] = lambda value: False) -> dict[str, Any]:
    """Return checked copies of the conditioning inputs. Arrays that are ``on_device`` are not copied."""
    own = {}
    for name, value in cond.items():
        array = value if on_device(value) else np.array(value, order="C", copy=True)
        if isinstance(array, np.ndarray) and array.dtype.kind not in "fiub":
            raise ArgumentTypeError(f"cond[{name!r}] has the dtype {array.dtype}; it must be numbers.")
        if tuple(array.shape[:1]) != (batch,):
            found = tuple(array.shape)
            raise ArgumentError(f"cond[{name!r}] has the shape {found}; its first dimension must be the batch, {batch}.")
        own[name] = array
    return own


def cast_cond(name: str, array: np.ndarray, dtype: Any) -> np.ndarray:
    """Return a conditioning input as a C-contiguous array of the network's dtype.

    Raises:
        ArgumentTypeError: it is of another kind of number. Labels are not booleans.
    """
    dtype = np.dtype(dtype)
    if not np.can_cast(array.dtype, dtype, "same_kind") or (dtype.kind in "iu" and array.dtype.kind == "b"):
        raise ArgumentTypeError(f"cond[{name!r}] has the dtype {array.dtype}; the network takes {dtype}.")
    return np.ascontiguousarray(array, dtype)


def check_names(given: dict[str, Any], wanted: list[str]) -> None:
    """Check that ``cond`` names exactly the conditioning inputs of a network."""
    for name in given:
        if name not in wanted:
            raise ArgumentError(
                f"cond has {name!r}, which the network does not take.{suggest(str(name), wanted) if wanted else ''}"
            )
    for name in wanted:
        if name not in given:
            raise ArgumentError(f"the network needs the conditioning input {name!r}; give it as cond={{{name!r}: ...}}.")


def is_integer(t: float | np.ndarray) -> bool:
    """Return whether a time, or every time of an array, is an integer."""
    return t == math.floor(t) if isinstance(t, float) else bool((t == np.floor(t)).all())


def times(t: float | np.ndarray, batch: int, as_floats: bool) -> np.ndarray:
    """Return the time of each sample, for a module or a function: int64 if all are integers and not ``as_floats``, else float32."""
    return np.full(batch, t, np.int64 if not as_floats and is_integer(t) else np.float32)


def require_integer_times(t: float | np.ndarray) -> float | np.ndarray:
    """Return the times. Raises ArgumentError unless they are integers."""
    if not is_integer(t):
        first = t if isinstance(t, float) else float(t[t != np.floor(t)][0])
        raise ArgumentError(
            f"the time {first!r} is not an integer, but this network takes integer timesteps; choose a spacing or timesteps "
            f"that are integers, or make the plan with timestep_rounding='nearest'."
        )
    return t


def single_time(t: np.ndarray) -> float:
    """Return the time of a batch, for a network that takes a single one. Raises ArgumentError if the times differ."""
    if (t != t[0]).any():
        raise ArgumentError("this network takes one time for the whole batch; its samples cannot be at different timesteps.")
    return float(t[0])


def network_error(t: float | np.ndarray, error: Exception) -> DiffuseFastError:
    """Return the error to raise for a network that raised ``error`` at time ``t``."""
    if isinstance(error, DiffuseFastError):
        return error
    return NetworkError(f"the network failed at time {t}: {type(error).__name__}: {str(error)[:1000]}")


def check_output(shape: tuple[int, ...], expected: tuple[int, ...]) -> None:
    """Check the shape of a network's output."""
    if tuple(shape) != expected:
        doubled = len(expected) > 1 and tuple(shape) == (expected[0], 2 * expected[1], *expected[2:])
        hint = (
            " If the network has twice the channels for a learned variance, give variance='learned_range' (or 'learned')."
            if doubled
            else ""
        )
        raise NetworkError(f"the network returned the shape {tuple(shape)}; for this batch it must be {expected}.{hint}")
