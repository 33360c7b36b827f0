"""``df.step``: one row on one batch, NumPy arrays or tensors. The engine binds once instead; this is the kernel, bare."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..errors import ArgumentError, ArgumentTypeError, KernelUnavailableError, NonFiniteError
from ..plan import MAX_REGISTERS, Row
from .cpu import DTYPE_CODES, CpuKernel, _address
from .overlap import check_out
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
        step: Number of the row in its plan: the second counter word of the noise.
        index: Sample indices; a whole number is the first of consecutive ones. Default: 0, 1, ...; with a list of seeds, all 0.
        out: Where to write; ``x`` itself is allowed. Default: a new array.
        variance: The variance half of the network's output, for rows with a learned standard deviation.
        known, mask: float32, of x's shape: the known region, and where it is known.
        element_offset: Logical index of the first element of each sample, for shards of one sample.
        kernel: A kernel by name; default: the best of this machine for where x is.

    Returns:
        The new state: ``out``, or a new array of x's kind and dtype.

    Raises:
        ArgumentError, ArgumentTypeError: shapes, dtypes or values that do not fit; arrays are never copied silently.
        KernelUnavailableError: the kernel that is forced cannot run here, or does not run where x is.
        NonFiniteError: the model output holds NaN or Inf. ``out`` has been written.

    Example:
        >>> import numpy as np, diffuse_fast as df
        >>> plan = df.plan(df.Schedule.linear(), "ddim", 10, prediction_type="epsilon")
        >>> x = np.ones((2, 3, 4), np.float32)
        >>> df.step(x, np.zeros_like(x), plan.rows[0]).shape
        (2, 3, 4)
    """
    if getattr(x, "is_cuda", False):
        from .device_step import step_on_device

        return step_on_device(
            get_kernel(kernel, device="cuda"), x, model_output, row, registers=registers, seed=seed, step=step, index=index,
            out=out, variance=variance, known=known, mask=mask, element_offset=element_offset,
        )  # fmt: skip
    chosen = get_kernel(kernel, device="cpu")
    plain = registers is None and variance is None and known is None and mask is None and out is not None and element_offset == 0
    if plain and type(seed) is int and 0 <= seed < _U64 and (index is None or type(index) is int) and isinstance(chosen, CpuKernel):
        bad = chosen.single(row).run(x, model_output, out, seed, index or 0, step)
        if bad == _ALL_GOOD:
            return out
        if bad != _NOT_PLAIN:
            finite = np.isfinite(model_output).reshape(len(model_output), -1).all(axis=1)
            raise not_finite(tuple(np.flatnonzero(~finite).tolist()), step)
    state = _as_array(x, "x")
    if state.ndim < 1 or state.size == 0:
        raise ArgumentError(f"x has shape {state.shape}; it needs a batch axis and at least one element.")
    batch = len(state)
    if element_offset < 0 or element_offset + state.size // batch > MAX_ELEMENTS:
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
    known_array, mask_array = (None if a is None else _fitting(a, name, state.shape, np.float32)
                               for a, name in ((known, "known"), (mask, "mask")))  # fmt: skip
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
    seeds, indices = noise_address(seed, index, batch)
    bound = chosen.bind(
        [row], x=state, out=target, outputs=outputs, registers=bank, seeds=seeds, indices=indices, y=known_array,
        mask=mask_array, variance_offset=variance_offset, element_offset=element_offset,
    )  # fmt: skip
    if bound.run(0, step) >= 0:
        raise not_finite(tuple(bound.bad_samples()), step)
    return result


def check_outputs(row: Row, given: int) -> None:
    """Refuses fewer model outputs than the row weighs."""
    weights = [j for j, g in enumerate(row.g) if g != 0.0] if row.calls_network else []
    if weights and weights[-1] >= given:
        raise ArgumentError(f"the row weighs {weights[-1] + 1} model outputs; {given} were given.")


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
    many = not isinstance(seed, int | np.integer)
    if many and len(seed) != batch:
        raise ArgumentError(f"seed is a list of {len(seed)}; it must hold one seed per sample ({batch}), or be one number.")
    values = _wholes("seed", seed) if many else [int(seed)]
    if not all(0 <= s < _U64 for s in values):
        raise ArgumentError("a seed must be a whole number from 0 to 2**64 - 1.")
    if index is None:
        index = [0] * batch if many else 0
    # One number is the first sample's: all are checked before memory is taken for them.
    numbers = range(int(index), int(index) + batch) if isinstance(index, int | np.integer) else _wholes("index", index)
    ends = (numbers[0], numbers[-1]) if isinstance(numbers, range) and numbers else numbers
    if len(numbers) != batch or not all(0 <= i < _U32 for i in ends):
        raise ArgumentError(f"index must be one whole number or one per sample ({batch}), from 0 to 2**32 - 1.")
    seeds = np.array(values, np.uint64) if many else np.full(batch, values[0], np.uint64)
    indices = np.arange(numbers.start, numbers.stop) if isinstance(numbers, range) else np.array(numbers)
    return seeds, indices.astype(np.uint32)


def _wholes(name: str, values: Any) -> list[int]:
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
            raise KernelUnavailableError(f"{name} is on {value.device}; give all tensors on one device, the CPU or a CUDA device.")
        value = (value.view(torch.uint16) if value.dtype == torch.bfloat16 else value).numpy()
    elif isinstance(value, np.ndarray) and value.dtype == np.uint16:
        raise ArgumentTypeError(f"{name} has dtype uint16; give float32 or float16.")
    if not isinstance(value, np.ndarray):
        raise ArgumentTypeError(f"{name} is a {type(value).__name__}; give a NumPy array or a CPU tensor.")
    if value.dtype not in DTYPE_CODES:
        raise ArgumentTypeError(f"{name} has dtype {value.dtype}; give float32, float16, or a bfloat16 tensor.")
    if not value.flags.c_contiguous:
        raise ArgumentError(f"{name} is not contiguous; pass np.ascontiguousarray({name}) (or {name}.contiguous()).")
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
    if target is not state:
        check_out(_address(state), _address(target), state.nbytes)
    return target, out
