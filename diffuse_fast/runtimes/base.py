"""What every runtime gives the engine, and the few things they share."""

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
    """A network bound to buffers that were allocated once. It belongs to one sampling call at a time.

    Attributes:
        x: (batch, *shape) float32, C-contiguous: the engine's state lives here, and the step updates it in place.
        output: (batch, *output shape) float32, C-contiguous: where a call leaves the model output. The same memory for
            every call, and never that of ``x`` or of another bound call.
    """

    x: np.ndarray
    output: np.ndarray

    def condition(self, cond: dict[str, np.ndarray]) -> None:
        """Take other values for the conditioning inputs, of the names, shapes and dtypes that were bound. They are copied."""
        ...

    def __call__(self, t: float | np.ndarray) -> np.ndarray:
        """Run the network on ``x`` at time ``t``, one for the whole batch or a float64 array of one per sample, and return
        ``output``.

        Raises:
            ArgumentError: the network takes whole timesteps and ``t`` is none, or takes one time and ``t`` are several.
            NetworkError: the network failed, or returned something other than its output.
        """
        ...


class Network(Protocol):
    """A network as a runtime runs it. Any thread may bind it.

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
            output_shape: Shape of the network's output for one sample; None means what the model says, else ``shape``.

        Raises:
            ArgumentError, ArgumentTypeError: an input is missing, unknown, or of a wrong shape or dtype.
        """
        ...


class Memory(Protocol):
    """Memory of a device, as far as a runtime needs it. Arrays have ``__cuda_array_interface__`` or ``data_ptr()`` on a GPU."""

    name: str

    def alloc(self, shape: tuple[int, ...], dtype: Any = np.float32) -> Any:
        """A zeroed contiguous array."""
        ...

    def upload(self, array: Any, into: Any) -> None:
        """Copy an array of the host, or of this device: then the caller keeps it until the work is done. In stream order."""
        ...


class DeviceCall(Protocol):
    """A network bound to static memory of a device. Everything it does is in the order of the device's stream, and nothing waits.

    Attributes:
        x: (batch, *shape) float32: the engine's state, which the step updates in place.
        t: (batch,) float32: the time of each sample, which the step sets for the next call.
        captures_itself: Whether the runtime replays a graph of its own: then the engine captures none around it.
    """

    x: Any
    t: Any
    captures_itself: bool

    def condition(self, cond: list[dict[str, Any]]) -> None:
        """Copy other values of the conditioning inputs into the static memory, one dict per evaluation, as bound: arrays of the
        host or of this device."""
        ...

    def check(self, t: float) -> None:
        """Whether the network can be called at this time; told before anything runs.

        Raises:
            ArgumentError: the network takes whole timesteps and ``t`` is none.
        """
        ...

    def __call__(self, evaluations: int, whole: bool) -> list[Any]:
        """Enqueue one call of the network at ``x`` and ``t`` with the first ``evaluations`` conditions, as one batch.

        Args:
            evaluations: How many of the bound conditions, from 1.
            whole: Whether every time is a whole number.

        Returns:
            The outputs, each (batch, *output shape) in the network's own dtype: static memory where ``captures_itself``, else
            the network's own.

        Raises:
            NetworkError: the network failed, or returned something other than its output.
        """
        ...


class DeviceNetwork(Protocol):
    """A network that runs where a device's memory is. Any thread may bind it.

    Attributes:
        name: The runtime's name.
        best_graph: What ``graph="auto"`` is for it.
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
        """Allocate the static memory of a batch; ``cond`` has one dict per evaluation of a guided call, of arrays of the host or of
        this device, else as :meth:`Network.bind`."""
        ...

    def fingerprint(self) -> Any:
        """What a captured graph relies on besides the bound memory: where the weights lie. Another value: capture again."""
        ...


class MemoryCall:
    """A :class:`BoundCall` of a runtime that reads its inputs where NumPy has them: a call fills in the time and runs.

    Attributes:
        _run: Runs the network on the inputs, into ``output``; set by the runtime.
    """

    _run: Callable[[], Any]

    def __init__(self, inputs: dict[str, np.ndarray], sample: str, time: str, into: np.ndarray) -> None:
        self.x, self.output = inputs[sample], into
        self._inputs, self._t = inputs, inputs[time]  # held: the runtime knows addresses only
        self._integer = self._t.dtype.kind == "i"
        self._per_sample = self._t.shape == (len(self.x),)

    def condition(self, cond: dict[str, np.ndarray]) -> None:
        for name, array in cond.items():
            np.copyto(self._inputs[name], array, casting="same_kind")

    def __call__(self, t: float | np.ndarray) -> np.ndarray:
        if self._integer:
            whole(t)
        if isinstance(t, float):
            self._t.fill(t)
        elif self._per_sample:
            self._t[...] = t
        else:
            self._t.fill(same(t))
        try:
            self._run()
        except Exception as error:
            raise failed(t, error) from error
        return self.output


@dataclass(frozen=True, slots=True)
class Inputs:
    """What an artifact says of its inputs, without the model itself, which a network must not keep alive.

    Attributes:
        sample: Name of the input that takes the sample.
        shape: Shape of one sample.
        time: The time input.
        time_dims: How many dimensions it has.
        per_sample: Whether it takes one time for each sample.
        conditioning: The other inputs.
    """

    sample: str
    shape: tuple[int, ...]
    time: Time
    time_dims: int
    per_sample: bool
    conditioning: tuple[Conditioning, ...]

    def arrays(self, batch: int, shape: tuple[int, ...], cond: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The memory of a batch by name, in the network's own dtypes, with the conditioning copied into it.

        Raises:
            ArgumentError, ArgumentTypeError: as :meth:`Network.bind`.
        """
        check_names(cond, [c.name for c in self.conditioning])
        if shape != self.shape:
            raise ArgumentError(f"shape: the network's input {self.sample!r} is {self.shape} for a sample, but {shape} was given.")
        inputs = {self.sample: aligned((batch, *shape))}
        inputs[self.time.input] = aligned((batch,) if self.per_sample else (1,) * self.time_dims, self.time.dtype)
        given = own_cond(cond, batch)
        for c in self.conditioning:
            array, dtype = given[c.name], np.dtype(c.dtype)
            if not np.can_cast(array.dtype, dtype, "same_kind") or (dtype.kind in "iu" and array.dtype.kind == "b"):
                raise ArgumentTypeError(f"cond[{c.name!r}] has the dtype {array.dtype}; the network takes {dtype}.")
            if array.shape[1:] != c.shape:
                raise ArgumentError(f"cond[{c.name!r}]: for a sample the network takes {c.shape}, but {array.shape[1:]} was given.")
            inputs[c.name] = np.ascontiguousarray(array, dtype)
        return inputs


def aligned(shape: tuple[int, ...], dtype: Any = np.float32) -> np.ndarray:
    """A zeroed C-contiguous array that starts on a cache line, so that no vector load of the step straddles two."""
    dtype = np.dtype(dtype)
    size = math.prod(shape) * dtype.itemsize
    raw = np.zeros(size + CACHE_LINE, np.uint8)
    start = -raw.ctypes.data % CACHE_LINE
    return raw[start : start + size].view(dtype).reshape(shape)


def own_cond(cond: dict[str, Any], batch: int, there: Callable[[Any], bool] = lambda value: False) -> dict[str, Any]:
    """Copies of the conditioning inputs, checked for their batch. What is ``there``, on the device, stays as it is."""
    own = {}
    for name, value in cond.items():
        array = value if there(value) else np.array(value, order="C", copy=True)
        if isinstance(array, np.ndarray) and array.dtype.kind not in "fiub":
            raise ArgumentTypeError(f"cond[{name!r}] has the dtype {array.dtype}; it must be numbers.")
        if tuple(array.shape[:1]) != (batch,):
            found = tuple(array.shape)
            raise ArgumentError(f"cond[{name!r}] has the shape {found}; its first dimension must be the batch, {batch}.")
        own[name] = array
    return own


def check_names(given: dict[str, Any], wanted: list[str]) -> None:
    """Whether ``cond`` names exactly the inputs that a network has."""
    for name in given:
        if name not in wanted:
            raise ArgumentError(
                f"cond has {name!r}, which the network does not take.{suggest(str(name), wanted) if wanted else ''}"
            )
    for name in wanted:
        if name not in given:
            raise ArgumentError(f"the network needs the conditioning input {name!r}; give it as cond={{{name!r}: ...}}.")


def is_whole(t: float | np.ndarray) -> bool:
    """Whether a time, or every one of several, is a whole number."""
    return t == math.floor(t) if isinstance(t, float) else bool((t == np.floor(t)).all())


def whole(t: float | np.ndarray) -> float | np.ndarray:
    """The same time, or times, refused where the network takes whole numbers and these are not."""
    if not is_whole(t):
        first = t if isinstance(t, float) else float(t[t != np.floor(t)][0])
        raise ArgumentError(
            f"the time {first!r} is not whole, but this network takes integer timesteps; choose a spacing or timesteps that are "
            f"whole, or make the plan with timestep_rounding='nearest'."
        )
    return t


def same(t: np.ndarray) -> float:
    """The one time of a batch, for a network that has a single one."""
    if (t != t[0]).any():
        raise ArgumentError("this network takes one time for the whole batch; its samples cannot be at different timesteps.")
    return float(t[0])


def failed(t: float | np.ndarray, error: Exception) -> DiffuseFastError:
    """The error of a network that raised ``error`` at time ``t``."""
    if isinstance(error, DiffuseFastError):
        return error
    return NetworkError(f"the network failed at time {t}: {type(error).__name__}: {str(error)[:1000]}")


def check_output(shape: tuple[int, ...], expected: tuple[int, ...]) -> None:
    """Whether a network's output has its shape."""
    if tuple(shape) != expected:
        twice = len(expected) > 1 and tuple(shape) == (expected[0], 2 * expected[1], *expected[2:])
        hint = " With twice the channels for a learned variance, say variance='learned_range' (or 'learned')." if twice else ""
        raise NetworkError(f"the network returned the shape {tuple(shape)}; for this batch it must be {expected}.{hint}")
