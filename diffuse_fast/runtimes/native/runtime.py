"""The runtime ``native``: networks of the core, and their calls."""

from __future__ import annotations

import math
import threading
import weakref

import numpy as np

from ... import _core
from ...errors import NetworkError
from ...machine import physical_cores
from ...model import Model
from ..base import Inputs, aligned, check_output, network_error, require_integer_times
from ..fork_safety import forget_in_child
from .bits import float32_layers, instruction_set
from .loading import load
from .programs import program_of

# By model, then by instruction set and precision: a core network has the packed weights, and any thread may run it.
_loaded: weakref.WeakKeyDictionary[Model, dict[tuple[str, str], _core.Network]] = weakref.WeakKeyDictionary()
_lock = threading.Lock()


def _forget() -> None:
    """Reset the lock in a forked child; loaded networks own no threads and stay valid."""
    global _lock
    _lock = threading.Lock()


forget_in_child(lambda: (), _forget)


def network(model: Model, *, threads: int | None = None, precision: str = "float32") -> NativeNetwork:
    """Make a network from a ``df.Model``.

    Raises:
        UnsupportedError: an operation of the network cannot be lowered. The message names its operator, node and module.
        ArtifactError: the file is damaged, or a weight is not finite.
        MemoryLimitError: the network would take more memory than this process may use.
        UnavailableError: ``DIFFUSE_FAST_KERNEL`` names an instruction set that this machine cannot run.
    """
    isa = instruction_set()
    with _lock:
        loaded = _loaded.setdefault(model, {})
        if (isa, precision) not in loaded:
            program = program_of(model)
            with model.files.unchanged():
                loaded[isa, precision] = load(program, model.path, isa, precision, float32_layers(model))
        core = loaded[isa, precision]
    inputs = Inputs(model.input, model.shape, model.time, 1, True, tuple(model.conditioning))
    return NativeNetwork(core, inputs, model.output_shape, threads)


class NativeNetwork:
    """A network of the core, and the inputs of its artifact."""

    name = "native"

    def __init__(self, core: _core.Network, inputs: Inputs, output_shape: tuple[int, ...], threads: int | None):
        self.core = core
        self._inputs, self._output_shape = inputs, output_shape
        self._threads, self._cores = threads, physical_cores()

    @property
    def threads(self) -> int:
        """Threads of a call: as asked for, else the physical cores, at most as ``df.set_num_threads`` says."""
        return self._threads or min(_core.num_threads(), self._cores)

    def check_shapes(self, shape: tuple[int, ...], output_shape: tuple[int, ...]) -> None:
        """Check the shapes of the network's input and output for one sample.

        Raises:
            ArgumentError, NetworkError: they are others.
        """
        self._inputs.check_shape(shape)
        if self.core.output_size != math.prod(output_shape):
            check_output((1, *self._output_shape), (1, *output_shape))

    def check_times(self, times: float | np.ndarray) -> None:
        """Raises ArgumentError if the network takes integer timesteps and a time is not an integer."""
        if np.dtype(self._inputs.time.dtype).kind == "i":
            require_integer_times(times)

    def prepare(self, cond: dict[str, np.ndarray], batch: int) -> _core.PreparedRows:
        """Compute what depends on the conditioning alone, for each sample of a batch.

        Args:
            cond: The conditioning inputs, each (batch, *its shape).
            batch: Number of samples.

        Raises:
            ArgumentError, ArgumentTypeError: an input is missing, unknown, or of a wrong shape or dtype.
            NetworkError: the network failed on it: an index is outside its table.
        """
        given = [array.reshape(batch, -1).astype(np.float32) for array in self._inputs.conditions(cond, batch).values()]
        try:
            return self.core.prepare_conditions(given, batch)
        except RuntimeError as error:
            raise NetworkError(f"the network failed on its conditioning: {error}") from error

    def bind(
        self, batch: int, shape: tuple[int, ...], cond: dict[str, np.ndarray], output_shape: tuple[int, ...] | None = None
    ) -> NativeCall:
        output_shape = output_shape or self._output_shape
        self.check_shapes(shape, output_shape)
        return NativeCall(self, aligned((batch, *shape)), aligned((batch, *output_shape)), self.prepare(cond, batch))


class NativeCall:
    """A network of the core bound to the memory of its input and output, and to what it computed from the conditioning."""

    def __init__(self, network: NativeNetwork, x: np.ndarray, output: np.ndarray, conditions: _core.PreparedRows) -> None:
        self.x, self.output = x, output
        self._network, self._conditions = network, conditions

    def condition(self, cond: dict[str, np.ndarray]) -> None:
        self._conditions = self._network.prepare(cond, len(self.x))

    def __call__(self, t: float | np.ndarray) -> np.ndarray:
        self._network.check_times(t)
        core = self._network.core
        try:
            times = core.prepare_times(np.atleast_1d(np.asarray(t, np.float32)))
            core.run(self.x, self.output, times, self._conditions, self._network.threads)
        except Exception as error:
            raise network_error(t, error) from error
        return self.output
