"""``df.step``: apply one row to one batch of NumPy arrays or tensors. The engine binds a whole table of rows once instead."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..checks import require_int
from ..errors import ArgumentError, ArgumentTypeError, NonFiniteError
from ..plans.row import MAX_ELEMENTS, MAX_OUTPUTS, MAX_REGISTERS, Row
from .arrays import SINGLE, Arrays, arrays_for
from .base import DeviceKernel, HostKernel
from .cpu import CpuKernel
from .overlap import check_step
from .registry import get_kernel

# The ends of the ranges of seeds and sample indices.
SEEDS_END, INDICES_END = 1 << 64, 1 << 32
# What SingleRow.run returns besides the number of a bad sample.
_ALL_FINITE, _NOT_SIMPLE = -1, -2


def step(
    x: Any,
    model_output: Any,
    row: Row,
    *,
    registers: Any = None,
    seed: int | Sequence[int] = 0,
    step: int = 0,
    index: int | Sequence[int] | None = None,
    out: Any = None,
    variance: Any = None,
    known: Any = None,
    mask: Any = None,
    element_offset: int = 0,
    kernel: str | None = None,
) -> Any:
    """Apply one row of a plan: ``x' = a·x + b·m + d·x0 + Σ c·h + s·z`` in one pass (``csrc/step/step.h``).

    Args:
        x: The state (batch, ...), contiguous: a NumPy array, float32 or float16, or a tensor, also bfloat16. If it is on a CUDA
            device, all arrays must be tensors on that device, and the call waits for the device to check the model output.
        model_output: One array of x's shape, or up to three (conditional first), all of one dtype.
        row: A row of a plan.
        registers: float32 (registers, batch, ...); the register the row writes is changed in place.
        seed: Seed of the generator, or one per sample; 0 <= seed < 2**64.
        step: Number of the row in its plan: the second counter word of the noise, 0 <= step < 2**32.
        index: Sample indices, 0 <= index < 2**32; an integer is the first of consecutive ones. Default: 0, 1, ...; with a list of
            seeds, all 0.
        out: Where to write: ``x`` or another input itself, or an array that overlaps none of them. Default: a new array.
        variance: The variance half of the network's output, for rows with a learned standard deviation.
        known, mask: float32, of x's shape: the known region, and where it is known.
        element_offset: Logical index of the first element of each sample, for shards of one sample.
        kernel: Name of a kernel. Default: the best one for x's device.

    Returns:
        The new state: ``out``, or a new array of x's kind and dtype.

    Raises:
        ArgumentError, ArgumentTypeError: a shape, dtype or value does not fit; arrays are never copied silently.
        UnavailableError: the forced kernel cannot run on this machine, or not on x's device.
        NonFiniteError: the model output holds NaN or Inf. ``out`` has been written.

    Example:
        >>> import numpy as np, diffuse_fast as df
        >>> plan = df.plan(df.Schedule.linear(), "ddim", 10, prediction_type="epsilon")
        >>> x = np.ones((2, 3, 4), np.float32)
        >>> df.step(x, np.zeros_like(x), plan.rows[0]).shape
        (2, 3, 4)
    """
    check_row(row)
    step = require_int("step", step, 0, bits=32)
    element_offset = require_int("element_offset", element_offset, 0)
    on_device = getattr(x, "is_cuda", False)
    chosen = get_kernel(kernel, device="cuda" if on_device else "cpu")
    first = 0 if index is None else index
    simple = registers is None and variance is None and known is None and mask is None and out is not None and element_offset == 0
    if (
        simple
        and type(seed) is int
        and 0 <= seed < SEEDS_END
        and type(first) is int
        and 0 <= first < INDICES_END
        and isinstance(chosen, CpuKernel)
    ):
        bad = chosen.single_row(row).run(x, model_output, out, seed, first, step)
        if bad == _ALL_FINITE:
            return out
        if bad != _NOT_SIMPLE:
            finite = np.isfinite(model_output).reshape(len(model_output), -1).all(axis=1)
            raise not_finite(np.flatnonzero(~finite).tolist(), step)
    buffers, result = bind_arguments(
        arrays_for(x, "x"),
        x,
        model_output,
        row,
        registers=registers,
        seed=seed,
        index=index,
        out=out,
        variance=variance,
        known=known,
        mask=mask,
        element_offset=element_offset,
    )
    step_once: Any = launch_once if on_device else run_once
    step_once(chosen, row, step, buffers)
    return result


def bind_arguments(
    arrays: Arrays,
    x: Any,
    model_output: Any,
    row: Row,
    *,
    registers: Any,
    seed: Any,
    index: Any,
    out: Any,
    variance: Any,
    known: Any,
    mask: Any,
    element_offset: int,
) -> tuple[dict[str, Any], Any]:
    """The checked arguments of :func:`step` as keywords of :meth:`~.base.Kernel.bind`, and the array to return."""
    state = arrays.check(x, "x")
    if state.ndim < 1 or 0 in state.shape:
        raise ArgumentError(f"x has shape {tuple(state.shape)}; it needs a batch axis and at least one element.")
    shape, batch = state.shape, len(state)
    elements = math.prod(shape[1:])
    if not 0 <= element_offset <= MAX_ELEMENTS - elements:
        raise ArgumentError(f"element_offset is {element_offset}; a sample has the elements 0 to 2**34 - 1.")
    given = model_output if isinstance(model_output, list | tuple) else [] if model_output is None else [model_output]
    outputs = [arrays.check(m, "model_output", shape=shape) for m in given]
    if len({m.dtype for m in outputs}) > 1:
        raise ArgumentTypeError("the model outputs have different dtypes; all must have one.")
    check_outputs(row, len(outputs))
    target, result = arrays.target(out, "out", x, state)
    needed = registers_of(row)
    bank = None
    if needed:
        if registers is None:
            raise ArgumentError(f"the row uses {needed} registers; give registers=, float32 of shape ({needed}, *x.shape).")
        bank = arrays.check(registers, "registers", dtypes=SINGLE)
        if bank.ndim != state.ndim + 1 or bank.shape[1:] != shape or len(bank) < needed:
            raise ArgumentError(f"registers has shape {tuple(bank.shape)}; it must be float32, ({needed}, *{tuple(shape)}).")
        if row.write is not None and not arrays.is_writeable(bank):
            raise ArgumentError(f"registers is read-only, and the row writes register {row.write}; give a writeable array.")
    known, mask = (
        None if a is None else arrays.check(a, name, dtypes=SINGLE, shape=shape) for a, name in ((known, "known"), (mask, "mask"))
    )
    if mask is not None and known is None and row.known_y != 0.0:
        raise ArgumentError("mask is given without known; give known=, the values where the mask is 1.")
    variance_offset = -1
    if row.log_s is not None:
        if variance is None:
            raise ArgumentError("the row has a learned standard deviation; give variance=, the other half of the output.")
        v = arrays.check(variance, "variance", dtypes=(arrays.dtype(outputs[0]),), shape=shape)
        # The kernel reads the variance from the memory of output 0, after each sample's output, where networks write it.
        outputs = [arrays.stack(m, v) for m in outputs]
        variance_offset = elements
    read = (("x", state), *(("model_output", m) for m in outputs), ("known", known), ("mask", mask))
    check_step(
        arrays.memory("out", target),
        [arrays.memory(name, a) for name, a in read if a is not None],
        None if bank is None else arrays.memory("registers", bank),
        0 if bank is None else len(bank),
        row.write,
    )
    seeds, indices = noise_address(seed, index, batch)
    return {
        "x": state, "out": target, "outputs": outputs, "registers": bank, "seeds": seeds, "indices": indices, "y": known,
        "mask": mask, "variance_offset": variance_offset, "element_offset": element_offset,
    }, result  # fmt: skip


def run_once(kernel: HostKernel, row: Row, step: int, buffers: dict[str, Any]) -> None:
    """Bind and apply one row on the host.

    Raises:
        NonFiniteError: a model output holds NaN or Inf.
    """
    bound = kernel.bind([row], **buffers)
    if bound.run(0, step) >= 0:
        raise not_finite(bound.bad_samples(), step)


def launch_once(kernel: DeviceKernel, row: Row, step: int, buffers: dict[str, Any]) -> None:
    """Bind and apply one row on a device, and wait for it.

    Raises:
        NonFiniteError: a model output holds NaN or Inf.
    """
    bound = kernel.bind([row], **buffers)
    batch = len(buffers["seeds"])
    bound.place([0] * batch, [step] * batch)
    bound.launch()
    bad = np.flatnonzero(bound.first_bad_rows() >= 0)
    if bad.size:
        raise not_finite(bad.tolist(), step)


def check_row(row: Any) -> None:
    """Raise an error if ``row`` is not a row of a plan."""
    if not isinstance(row, Row):
        raise ArgumentTypeError(f"row is a {type(row).__name__}; give a row of a plan, for example plan.rows[0].")


def check_outputs(row: Row, given: int) -> None:
    """Raise an error if fewer model outputs are given than the row reads, or more than a row can read."""
    if given > MAX_OUTPUTS:
        raise ArgumentError(f"{given} model outputs were given; a row reads at most {MAX_OUTPUTS}.")
    if row.reads and row.reads[-1] >= given:
        raise ArgumentError(f"the row reads {row.reads[-1] + 1} model outputs; {given} were given.")


def registers_of(row: Row) -> int:
    """The number of registers that the row needs."""
    needed = max([row.write + 1 if row.write is not None else 0, *(k + 1 for w in (row.c, row.f) for k, c in enumerate(w) if c)])
    if needed > MAX_REGISTERS:
        raise ArgumentError(f"the row names register {needed - 1}; there are {MAX_REGISTERS}, from 0.")
    return needed


def not_finite(samples: Sequence[int], row: int) -> NonFiniteError:
    message = f"the model output of sample {samples[0]} holds NaN or Inf (row {row})."
    return NonFiniteError(message, row=row, samples=tuple(samples))


def noise_address(seed: Any, index: Any, batch: int) -> tuple[np.ndarray, np.ndarray]:
    """The checked noise keys: seeds (uint64) and sample indices (uint32), one per sample."""
    values = _require_ints("seed", seed)
    many = isinstance(values, list)
    if isinstance(values, int):
        values = [values]
    elif len(values) != batch:
        raise ArgumentError(f"seed is a list of {len(values)}; it must hold one seed per sample ({batch}), or be one integer.")
    if not all(0 <= s < SEEDS_END for s in values):
        raise ArgumentError("a seed must be an integer from 0 to 2**64 - 1.")
    given = _require_ints("index", ([0] * batch if many else 0) if index is None else index)
    # A single integer is the first sample's index. Check the range before allocating memory.
    numbers = range(given, given + batch) if isinstance(given, int) else given
    ends = (numbers[0], numbers[-1]) if isinstance(numbers, range) and numbers else numbers
    if len(numbers) != batch or not all(0 <= i < INDICES_END for i in ends):
        raise ArgumentError(f"index must be one integer or one per sample ({batch}), from 0 to 2**32 - 1.")
    seeds = np.array(values, np.uint64) if many else np.full(batch, values[0], np.uint64)
    indices = np.arange(numbers.start, numbers.stop) if isinstance(numbers, range) else np.array(numbers)
    return seeds, indices.astype(np.uint32)


def _require_ints(name: str, values: Any) -> int | list[int]:
    """An integer, or a list of integers, checked."""
    if isinstance(values, int | np.integer) and not isinstance(values, bool):
        return int(values)
    if isinstance(values, str | bytes) or not isinstance(values, Sequence | np.ndarray) or np.ndim(values) == 0:
        raise ArgumentTypeError(f"{name} is {values!r}; it must be an integer, or a list with one per sample.")
    for value in values:
        if isinstance(value, bool) or not isinstance(value, int | np.integer):
            raise ArgumentTypeError(f"{name} holds {value!r}; it must hold integers.")
    return [int(value) for value in values]
