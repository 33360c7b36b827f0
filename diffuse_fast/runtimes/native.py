"""The network in the compiled core: the ONNX graph lowered to a program of fused operations. Needs no other package."""

from __future__ import annotations

import contextlib
import copy
import math
import threading
import weakref
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .. import _core
from ..errors import ArgumentError, ArtifactError, MemoryLimitError, NetworkError, UnavailableError, UnsupportedError, suggest
from ..machine import free_memory, physical_cores
from ..model import Model
from ..onnx.weights import Initializers
from ..program.encoding import encode
from ..program.identity import layer_name, program_hash
from ..program.lower import lower_model
from ..program.program import VERSION, Convolution, Program
from .base import Inputs, aligned, check_output, network_error, require_integer_times
from .fork_safety import forget_in_child
from .native_cache import measured

ENVIRONMENT = "DIFFUSE_FAST_KERNEL"
_ISAS = ("avx512", "avx2", "neon", "scalar")

# By model: its program, or why it has none.
_programs: weakref.WeakKeyDictionary[Model, Program | UnsupportedError] = weakref.WeakKeyDictionary()
# By model, then by instruction set and precision: a core network has the packed weights, and any thread may run it.
_loaded: weakref.WeakKeyDictionary[Model, dict[tuple[str, str], _core.Network]] = weakref.WeakKeyDictionary()
_lock = threading.RLock()


def _forget() -> None:
    """Reset the lock in a forked child; loaded networks own no threads and stay valid."""
    global _lock
    _lock = threading.RLock()


forget_in_child(lambda: (), _forget)


def network(model: Any, *, threads: int | None = None, time_dtype: str | None = None, precision: str = "float32") -> NativeNetwork:
    """Make a network from a ``df.Model``.

    Raises:
        UnsupportedError: an operation of the network cannot be lowered. The message names its operator, node and module.
        ArtifactError: the file is damaged, or a weight is not finite.
        MemoryLimitError: the network would take more memory than this process may use.
        UnavailableError: ``DIFFUSE_FAST_KERNEL`` names an instruction set that this machine cannot run.
    """
    if time_dtype is not None:
        raise ArgumentError("time_dtype is for modules and callables; an ONNX file fixes the type of its time itself.")
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


def program_of(model: Model) -> Program:
    """The program of a model's network, lowered once.

    Raises:
        UnsupportedError, ArtifactError: as :func:`network`.
    """
    with _lock:
        found = _programs.get(model)
        if found is None:
            try:
                found = lower_model(model)
            except UnsupportedError as error:
                found = error.with_traceback(None)
            _programs[model] = found
    if isinstance(found, UnsupportedError):
        raise copy.copy(found)
    return found


def unsuitable(model: Model) -> str | None:
    """Why ``auto`` takes another runtime for a model; None if it does not."""
    if next(name for name, reason in _core.kernels() if reason is None) == "scalar":
        return "this CPU has neither AVX2 with FMA, AVX-512 nor NEON."
    try:
        program_of(model)
    except (ArtifactError, UnsupportedError) as error:
        return str(error)
    return None


def instruction_set() -> str:
    """The instruction set of ``DIFFUSE_FAST_KERNEL`` if it names one, else the best of this machine."""
    reasons = dict(_core.kernels())  # best first
    forced = _core.environment(ENVIRONMENT)
    if forced in _ISAS:
        if forced not in reasons:
            raise UnavailableError(f"{ENVIRONMENT} is {forced!r}, which this build does not have.{suggest(forced, list(reasons))}")
        if reasons[forced] is not None:
            raise UnavailableError(f"{ENVIRONMENT} is {forced!r} and cannot run: {reasons[forced]}.")
        return forced
    return next(name for name, reason in reasons.items() if reason is None)


def float32_layers(model: Model) -> tuple[str, ...]:
    """The layers that ``float32-fast`` computes as ``float32`` does, as the export of the model or ``doctor`` recorded them."""
    found = measured(model)
    return () if found is None else found.float32_layers


def identity(model: Model, precision: str) -> dict[str, Any]:
    """What determines the bits of a model's results besides its weights, as JSON data.

    ``algorithms`` names the algorithm of each convolution, in the order of the program.
    """
    program = program_of(model)
    return {
        "precision": precision,
        "instruction_set": instruction_set(),
        "program_version": VERSION,
        "program": program_hash(program),
        "algorithms": list(algorithms(program, precision, float32_layers(model)).values()),
    }


def algorithms(program: Program, precision: str, as_float32: Collection[str] = ()) -> dict[int, str]:
    """The algorithm of each convolution, by index of the operation: ``direct``, ``F(2,3)`` or ``F(4,3)``."""
    words = encode(program)
    exact = dict(_core.network_algorithms(words, "float32"))
    found = _core.network_algorithms(words, precision)
    return {index: exact[index] if layer_name(program, index) in as_float32 else name for index, name in found}


def load(
    program: Program,
    source: Path | Mapping[str, np.ndarray],
    isa: str,
    precision: str = "float32",
    as_float32: Collection[str] = (),
) -> _core.Network:
    """Load a program into the core.

    Args:
        program: What to run.
        source: The ONNX file with its initializers, or these by name, float32.
        isa: The instruction set.
        precision: ``float32`` or ``float32-fast``.
        as_float32: Names of convolutions that compute as in ``float32`` whatever the precision.

    Raises:
        ArtifactError: a weight is missing, of another size, or not finite, or the program is not valid.
        MemoryLimitError: the network would take more memory than this process may use.
    """
    words = encode(program)
    exact = exact_operations(program, as_float32)
    with contextlib.ExitStack() as stack:
        try:
            _check_memory(_core.network_memory(isa, words, precision))
            return _core.Network(isa, words, stack.enter_context(constants_of(program, source)), precision, exact)
        except ValueError as error:
            if isinstance(error, ArtifactError):
                raise
            raise ArtifactError(f"the network cannot be loaded: {error}") from None


def exact_operations(program: Program, as_float32: Collection[str]) -> list[int]:
    """The indices of the convolutions with these names."""
    convolutions = [i for i, op in enumerate(program.operations) if isinstance(op.kind, Convolution)] if as_float32 else []
    return [i for i in convolutions if layer_name(program, i) in as_float32]


@contextlib.contextmanager
def constants_of(program: Program, source: Path | Mapping[str, np.ndarray]) -> Iterator[Sequence[np.ndarray]]:
    """The initializers and folded constants of a program, in the order of its buffers; each is read when it is asked for.

    Args:
        program: The program.
        source: The ONNX file with its initializers, or these by name.

    Raises:
        ArtifactError: the file is damaged, or an initializer is missing, of another size, or not finite.
    """
    if isinstance(source, Mapping):
        yield _Constants(program, source.__getitem__)
        return
    sizes = {b.initializer: b.size for b in program.buffers if b.initializer is not None}
    with Initializers(source, sizes) as initializers:
        yield _Constants(program, initializers.read)


def _check_memory(needed: tuple[int, int, int]) -> None:
    free = free_memory()
    if free is not None and sum(needed) > free:
        weights, activations, workspace = (f"{n / 1e6:,.0f} MB" for n in needed)
        raise MemoryLimitError(
            f"the network takes {sum(needed) / 1e6:,.0f} MB ({weights} for weights, {activations} for activations, {workspace} of "
            f"workspace), and this process can take {free / 1e6:,.0f} MB."
        )


class _Constants(Sequence[np.ndarray]):
    """See :func:`constants_of`."""

    def __init__(self, program: Program, read: Callable[[str], np.ndarray]):
        self._buffers = [b for b in program.buffers if b.initializer is not None or b.values is not None]
        self._read = read

    def __len__(self) -> int:
        return len(self._buffers)

    def __getitem__(self, index: Any) -> Any:
        buffer = self._buffers[index]
        if buffer.initializer is None:
            return np.ascontiguousarray(buffer.values, np.float32)
        value = np.ascontiguousarray(self._read(buffer.initializer), np.float32)
        if not np.isfinite(value).all():
            raise ArtifactError(f"the initializer {buffer.initializer!r} holds NaN or Inf.")
        return value


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
