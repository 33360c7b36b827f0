"""Load a program and its weights into the core: one weight at a time, checked, once there is memory for all."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ... import _core
from ...errors import ArtifactError, MemoryLimitError
from ...machine import free_memory
from ...onnx.weights import Initializers
from ...program.encoding import encode
from ...program.identity import layer_name
from ...program.program import Convolution, Program


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


def _check_memory(needed: tuple[int, int, int]) -> None:
    free = free_memory()
    if free is not None and sum(needed) > free:
        weights, activations, workspace = (f"{n / 1e6:,.0f} MB" for n in needed)
        raise MemoryLimitError(
            f"the network takes {sum(needed) / 1e6:,.0f} MB ({weights} for weights, {activations} for activations, {workspace} of "
            f"workspace), and this process can take {free / 1e6:,.0f} MB."
        )
