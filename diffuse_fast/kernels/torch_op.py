"""The step as a torch operator, ``torch.ops.diffuse_fast.step``, which ``torch.compile`` calls without tracing into it.

``df.step`` is for eager code. A compiled loop calls :func:`step` of this module, with the rows as a tensor (:func:`rows_tensor`).
Importing this module imports torch and registers the operator.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from .. import _core
from ..errors import ArgumentError, UnavailableError
from ..plans.plan import Row
from .registry import ENVIRONMENT, get_kernel, kernels
from .rows import ROW, pack


def rows_tensor(rows: Sequence[Row]) -> torch.Tensor:
    """The rows as a tensor for the operator: (rows, bytes of a row) uint8, on the CPU.

    Example:
        >>> import diffuse_fast as df
        >>> from diffuse_fast.kernels.torch_op import rows_tensor
        >>> rows_tensor(df.plan(df.Schedule.linear(), "ddim", 10, prediction_type="epsilon").rows).shape
        torch.Size([10, 164])
    """
    return torch.from_numpy(pack(rows).view(np.uint8).reshape(len(rows), ROW.itemsize))


# A launch copies the row to the device, which cannot be captured in a CUDA graph: the engine's own graphs bind rows once instead.
@torch.library.custom_op("diffuse_fast::step", mutates_args={"registers"}, tags=(torch.Tag.cudagraph_unsafe,))
def step(
    x: torch.Tensor,
    outputs: Sequence[torch.Tensor],
    rows: torch.Tensor,
    row: int,
    seeds: torch.Tensor,
    indices: torch.Tensor,
    registers: torch.Tensor | None = None,
) -> torch.Tensor:
    """Apply one row: the operator ``diffuse_fast::step``, for CPU and CUDA tensors, not differentiable.

    Args:
        x: The state (batch, ...), float32, float16 or bfloat16, contiguous.
        outputs: Up to three model outputs of x's shape, of one dtype; the conditional one first.
        rows: A plan's rows from :func:`rows_tensor`.
        row: Number of the row, also used for its noise.
        seeds, indices: int64 (batch,) on the CPU: the seed of each sample (its 64 bits) and its index.
        registers: float32 (registers, batch, ...); the register that the row writes is changed in place.

    Raises:
        ArgumentError: a tensor has a wrong shape or dtype, or there is no such row.

    Returns:
        The new state. NaN and Inf of a model output are passed on and not reported, so that a compiled loop does not wait.

    Example:
        >>> import torch, diffuse_fast as df
        >>> from diffuse_fast.kernels.torch_op import rows_tensor, step
        >>> rows = rows_tensor(df.plan(df.Schedule.linear(), "ddim", 10, prediction_type="epsilon").rows)
        >>> x, zeros = torch.ones(2, 3), torch.zeros(2, dtype=torch.int64)
        >>> step(x, [torch.zeros(2, 3)], rows, 0, zeros, torch.arange(2)).shape
        torch.Size([2, 3])
    """
    _check(x, outputs, rows, row, seeds, indices, registers)
    record = rows[row : row + 1].contiguous().numpy().view(ROW).reshape(1)
    out = torch.empty_like(x, memory_format=torch.contiguous_format)
    tensors = [x.contiguous(), out, *(m.contiguous() for m in outputs)]
    keys = seeds.numpy().view(np.uint64), indices.numpy().astype(np.uint32)
    if x.is_cuda:
        kernel = _kernel("cuda")
        # Triton launches on torch's current stream.
        on = {} if kernel.name == "triton" else {"stream": torch.cuda.current_stream(x.device).cuda_stream}
        bound = kernel.bind(
            record, x=tensors[0], out=out, outputs=tensors[2:], registers=registers, seeds=keys[0], indices=keys[1], **on
        )
        bound.place([0] * len(x), [row] * len(x), **on)
        bound.launch(**on)
        return out
    arrays = [(t.view(torch.uint16) if t.dtype == torch.bfloat16 else t).numpy() for t in tensors]
    bound = _kernel("cpu").bind(
        record,
        x=arrays[0],
        out=arrays[1],
        outputs=arrays[2:],
        registers=None if registers is None else registers.numpy(),
        seeds=keys[0],
        indices=keys[1],
    )
    bound.run(0, row)
    return out


@step.register_fake
def _(x, outputs, rows, row, seeds, indices, registers=None):  # its types are those of `step`
    return torch.empty_like(x, memory_format=torch.contiguous_format)


def _check(x, outputs, rows, row, seeds, indices, registers) -> None:  # its types are those of `step`
    """Raise an error for arguments that would make a kernel access memory outside the tensors."""
    if rows.dtype != torch.uint8 or rows.ndim != 2 or rows.shape[1] != ROW.itemsize or not 0 <= row < len(rows):
        raise ArgumentError(f"row is {row}, rows is {rows.dtype} {tuple(rows.shape)}; give rows_tensor(plan.rows), a row of them.")
    for m in outputs:
        if m.shape != x.shape or m.dtype != outputs[0].dtype:
            raise ArgumentError(f"an output is {m.dtype} {tuple(m.shape)}; all must have one dtype and x's shape {tuple(x.shape)}.")
    for name, keys in (("seeds", seeds), ("indices", indices)):
        if keys.dtype != torch.int64 or keys.shape != x.shape[:1]:
            raise ArgumentError(f"{name} is {keys.dtype} {tuple(keys.shape)}; it must be int64 ({len(x)},).")
    if registers is None:
        return
    if registers.dtype != torch.float32 or registers.shape[1:] != x.shape or not registers.is_contiguous():
        given = f"{registers.dtype} {tuple(registers.shape)}"
        raise ArgumentError(f"registers is {given}; it must be float32, contiguous, (registers, *{tuple(x.shape)}).")


def _kernel(device: str) -> Any:
    """The forced kernel, else the best one: Triton's on CUDA."""
    name = _core.environment(ENVIRONMENT)
    if name is None:
        able = [k.name for k in kernels() if k.device == device and k.unavailable is None]
        name = "triton" if device == "cuda" and "triton" in able else able[0] if able else "cuda"
    elif next((k.device for k in kernels() if k.name == name), device) != device or name == "reference":
        raise UnavailableError(f"{ENVIRONMENT}={name} does not step {device} tensors.")
    return get_kernel(name)
