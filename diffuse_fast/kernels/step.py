"""``df.step``: one row on one batch, NumPy arrays or tensors. The engine binds once instead; this is the kernel, bare."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..errors import ArgumentError, ArgumentTypeError, NonFiniteError, UnavailableError
from ..plans.plan import MAX_OUTPUTS, MAX_REGISTERS, Row
from .cpu import DTYPE_CODES, CpuKernel, _address
from .overlap import Memory, check_step
from .registry import get_kernel

_U64 = 1 << 64
_U32 = 1 << 32
# Answers of SingleRow.run besides the number of a bad sample.
_ALL_GOOD, _NOT_PLAIN = -1, -2
MAX_ELEMENTS = 1 << 34  # four per counter, and the counter's word has 32 bits


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
        x: The state (batch, ...): a NumPy array, float32 or float16, or a tensor, also bfloat16. Contiguous. With a tensor
            on a CUDA device, all are tensors on that device, and the call waits for it: the output is looked at.
        model_output: One array of x's shape, or up to three (conditional first), all of one dtype.
        row: A row of a plan.
        registers: float32 (registers, batch, ...); the register the row writes is changed in place.
        seed: Seed of the generator, or one per sample; 0 <= seed < 2**64.
        step: Number of the row in its plan: the second counter word of the noise, 0 <= step < 2**32.
        index: Sample indices, 0 <= index < 2**32; a whole number is the first of consecutive ones. Default: 0, 1, ...; with a list
            of seeds, all 0.
        out: Where to write: ``x`` or another array that is read, exactly, or memory apart from all of them. Default: a new array.
        variance: The variance half of the network's output, for rows with a learned standard deviation.
        known, mask: float32, of x's shape: the known region, and where it is known.
        element_offset: Logical index of the first element of each sample, for shards of one sample.
        kernel: A kernel by name; default: the best of this machine for where x is.

    Returns:
        The new state: ``out``, or a new array of x's kind and dtype.

    Raises:
        ArgumentError, ArgumentTypeError: shapes, dtypes or values that do not fit; arrays are never copied silently.
        UnavailableError: the kernel that is forced cannot run here, or does not run where x is.
        NonFiniteError: the model output holds NaN or Inf. ``out`` has been written.

    Example:
        >>> import numpy as np, diffuse_fast as df
        >>> plan = df.plan(df.Schedule.linear(), "ddim", 10, prediction_type="epsilon")
        >>> x = np.ones((2, 3, 4), np.float32)
        >>> df.step(x, np.zeros_like(x), plan.rows[0]).shape
        (2, 3, 4)
    """
    check_row(row)
    step = whole("step", step, _U32)
    element_offset = whole("element_offset", element_offset, MAX_ELEMENTS)
    if getattr(x, "is_cuda", False):
        from .device_step import step_on_device

        return step_on_device(
            get_kernel(kernel, device="cuda"),
            x,
            model_output,
            row,
            registers=registers,
            seed=seed,
            step=step,
            index=index,
            out=out,
            variance=variance,
            known=known,
            mask=mask,
            element_offset=element_offset,
        )
    chosen = get_kernel(kernel, device="cpu")
    plain = registers is None and variance is None and known is None and mask is None and out is not None and element_offset == 0
    first = 0 if index is None else index
    if (
        plain
        and type(seed) is int
        and 0 <= seed < _U64
        and type(first) is int
        and 0 <= first < _U32
        and isinstance(chosen, CpuKernel)
    ):
        bad = chosen.single(row).run(x, model_output, out, seed, first, step)
        if bad == _ALL_GOOD:
            return out
        if bad != _NOT_PLAIN:
            finite = np.isfinite(model_output).reshape(len(model_output), -1).all(axis=1)
            raise not_finite(tuple(np.flatnonzero(~finite).tolist()), step)
    state = _as_array(x, "x")
    if state.ndim < 1 or state.size == 0:
        raise ArgumentError(f"x has shape {state.shape}; it needs a batch axis and at least one element.")
    batch = len(state)
    if element_offset + state.size // batch > MAX_ELEMENTS:
        raise ArgumentError(f"element_offset is {element_offset}; a sample has the elements 0 to 2**34 - 1.")
    given = model_output if isinstance(model_output, list | tuple) else [] if model_output is None else [model_output]
    outputs = [_fitting(m, "model_output", state.shape) for m in given]
    if len({m.dtype for m in outputs}) > 1:
        raise ArgumentTypeError("the model outputs have different dtypes; give all in one.")
    check_outputs(row, len(outputs))
    target, result = _target(x, state, out)
    needed = registers_of(row)
    bank = None
    if needed:
        if registers is None:
            raise ArgumentError(f"the row uses {needed} registers; give registers=, float32 of shape ({needed}, *x.shape).")
        bank = _as_array(registers, "registers")
        if bank.dtype != np.float32 or bank.ndim != state.ndim + 1 or bank.shape[1:] != state.shape or len(bank) < needed:
            raise ArgumentError(
                f"registers has shape {bank.shape} and dtype {bank.dtype}; it must be float32, ({needed}, *{state.shape})."
            )
        if row.write is not None and not bank.flags.writeable:
            raise ArgumentError(f"registers is read-only, and the row writes register {row.write}; give memory to write to.")
    known_array, mask_array = (
        None if a is None else _fitting(a, name, state.shape, np.float32) for a, name in ((known, "known"), (mask, "mask"))
    )
    if mask_array is not None and known_array is None and row.known_y != 0.0:
        raise ArgumentError("mask is given without known; give known=, the values where the mask is 1.")
    variance_offset = -1
    if row.log_s is not None:
        if variance is None:
            raise ArgumentError("the row has a learned standard deviation; give variance=, the other half of the output.")
        v = _fitting(variance, "variance", state.shape, outputs[0].dtype)
        # The kernel finds the variance beside output 0 of each sample, as networks emit it.
        outputs = [np.stack([m.reshape(batch, -1), v.reshape(batch, -1)], axis=1) for m in outputs]
        variance_offset = state.size // batch
    read = (("x", state), *(("model_output", m) for m in outputs), ("known", known_array), ("mask", mask_array))
    check_step(
        _memory("out", target),
        [_memory(name, a) for name, a in read if a is not None],
        None if bank is None else _memory("registers", bank),
        0 if bank is None else len(bank),
        row.write,
    )
    seeds, indices = noise_address(seed, index, batch)
    bound = chosen.bind(
        [row], x=state, out=target, outputs=outputs, registers=bank, seeds=seeds, indices=indices, y=known_array,
        mask=mask_array, variance_offset=variance_offset, element_offset=element_offset,
    )  # fmt: skip
    if bound.run(0, step) >= 0:
        raise not_finite(tuple(bound.bad_samples()), step)
    return result


def check_row(row: Any) -> None:
    """Refuses what is no row."""
    if not isinstance(row, Row):
        raise ArgumentTypeError(f"row is a {type(row).__name__}; give a row of a plan, as plan.rows[0].")


def whole(name: str, value: Any, end: int) -> int:
    """A whole number from 0 to below ``end``, a power of two."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise ArgumentTypeError(f"{name} is {value!r}; it must be a whole number.")
    if not 0 <= value < end:
        raise ArgumentError(f"{name} is {value}; it must be a whole number from 0 to 2**{end.bit_length() - 1} - 1.")
    return int(value)


def check_outputs(row: Row, given: int) -> None:
    """Refuses fewer model outputs than the row reads, and more than there can be."""
    if given > MAX_OUTPUTS:
        raise ArgumentError(f"{given} model outputs were given; a row reads at most {MAX_OUTPUTS}.")
    if row.reads and row.reads[-1] >= given:
        raise ArgumentError(f"the row reads {row.reads[-1] + 1} model outputs; {given} were given.")


def registers_of(row: Row) -> int:
    """How many registers the row needs."""
    needed = max([row.write + 1 if row.write is not None else 0, *(k + 1 for w in (row.c, row.f) for k, c in enumerate(w) if c)])
    if needed > MAX_REGISTERS:
        raise ArgumentError(f"the row names register {needed - 1}; there are {MAX_REGISTERS}, from 0.")
    return needed


def not_finite(samples: tuple[int, ...], row: int) -> NonFiniteError:
    return NonFiniteError(f"the model output of sample {samples[0]} holds NaN or Inf (row {row}).", row=row, samples=samples)


def noise_address(seed: Any, index: Any, batch: int) -> tuple[np.ndarray, np.ndarray]:
    """Seeds (uint64) and sample indices (uint32), one per sample, checked."""
    values = _wholes("seed", seed)
    many = isinstance(values, list)
    if isinstance(values, int):
        values = [values]
    elif len(values) != batch:
        raise ArgumentError(f"seed is a list of {len(values)}; it must hold one seed per sample ({batch}), or be one number.")
    if not all(0 <= s < _U64 for s in values):
        raise ArgumentError("a seed must be a whole number from 0 to 2**64 - 1.")
    given = _wholes("index", ([0] * batch if many else 0) if index is None else index)
    # One number is the first sample's: all are checked before memory is taken for them.
    numbers = range(given, given + batch) if isinstance(given, int) else given
    ends = (numbers[0], numbers[-1]) if isinstance(numbers, range) and numbers else numbers
    if len(numbers) != batch or not all(0 <= i < _U32 for i in ends):
        raise ArgumentError(f"index must be one whole number or one per sample ({batch}), from 0 to 2**32 - 1.")
    seeds = np.array(values, np.uint64) if many else np.full(batch, values[0], np.uint64)
    indices = np.arange(numbers.start, numbers.stop) if isinstance(numbers, range) else np.array(numbers)
    return seeds, indices.astype(np.uint32)


def _wholes(name: str, values: Any) -> int | list[int]:
    """A whole number, or those of a list."""
    if isinstance(values, int | np.integer) and not isinstance(values, bool):
        return int(values)
    if isinstance(values, str | bytes) or not isinstance(values, Sequence | np.ndarray) or np.ndim(values) == 0:
        raise ArgumentTypeError(f"{name} is {values!r}; it must be a whole number, or a list of one per sample.")
    for value in values:
        if isinstance(value, bool) or not isinstance(value, int | np.integer):
            raise ArgumentTypeError(f"{name} holds {value!r}; it must hold whole numbers.")
    return [int(value) for value in values]


def _as_array(value: Any, name: str) -> np.ndarray:
    """The memory of a NumPy array or a CPU tensor, never a copy; bfloat16 as its bits."""
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(value, torch.Tensor):
        if value.requires_grad:
            raise ArgumentError(f"{name} requires grad; pass {name}.detach(): the step is not differentiable.")
        if value.device.type != "cpu":
            raise UnavailableError(f"{name} is on {value.device}; give all tensors on one device, the CPU or a CUDA device.")
        try:
            value = (value.view(torch.uint16) if value.dtype == torch.bfloat16 else value).numpy()
        except (RuntimeError, TypeError, ValueError) as error:
            raise ArgumentTypeError(f"{name} is a tensor without memory of its own to read: {error}") from None
    elif isinstance(value, np.ndarray) and value.dtype == np.uint16:
        raise ArgumentTypeError(f"{name} has dtype uint16; give float32 or float16.")
    if not isinstance(value, np.ndarray):
        raise ArgumentTypeError(f"{name} is a {type(value).__name__}; give a NumPy array or a CPU tensor.")
    if value.dtype not in DTYPE_CODES:
        raise ArgumentTypeError(f"{name} has dtype {value.dtype}; give float32, float16, or a bfloat16 tensor.")
    if not value.flags.c_contiguous:
        raise ArgumentError(f"{name} is not contiguous; pass np.ascontiguousarray({name}) (or {name}.contiguous()).")
    if not value.flags.aligned:
        raise ArgumentError(f"{name} does not begin at a multiple of its elements' size; pass {name}.copy().")
    return value


def _fitting(value: Any, name: str, shape: tuple[int, ...], dtype: Any = None) -> np.ndarray:
    array = _as_array(value, name)
    if array.shape != shape:
        raise ArgumentError(f"{name} has shape {array.shape}; it must have x's shape {shape}.")
    if dtype is not None and array.dtype != dtype:
        raise ArgumentTypeError(f"{name} has dtype {array.dtype}; it must be {np.dtype(dtype)}.")
    return array


def _target(x: Any, state: np.ndarray, out: Any) -> tuple[np.ndarray, Any]:
    """The memory to write and what to return for it."""
    if out is None:
        result = np.empty_like(x) if isinstance(x, np.ndarray) else x.new_empty(x.shape)
        return _as_array(result, "out"), result
    target = _fitting(out, "out", state.shape, state.dtype)
    if not target.flags.writeable:
        raise ArgumentError("out is read-only.")
    return target, out


def _memory(name: str, array: np.ndarray) -> Memory:
    return Memory(name, _address(array), array.nbytes, array.itemsize)
