"""``df.step`` on tensors of a device: the checks of :mod:`.step`, then a row bound, launched once, and looked at."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import ArgumentError, ArgumentTypeError
from ..plans.plan import Row
from .overlap import Memory, check_step
from .step import MAX_ELEMENTS, check_outputs, noise_address, not_finite, registers_of


def step_on_device(
    kernel: Any,
    x: Any,
    model_output: Any,
    row: Row,
    *,
    registers: Any,
    seed: Any,
    step: int,
    index: Any,
    out: Any,
    variance: Any,
    known: Any,
    mask: Any,
    element_offset: int,
) -> Any:
    """``df.step`` by a device kernel; everything else as :func:`~.step.step` says."""
    import torch

    def fitting(value: Any, name: str, dtypes: tuple[Any, ...], shape: Any = None) -> Any:
        if not isinstance(value, torch.Tensor):
            raise ArgumentTypeError(f"{name} is a {type(value).__name__}; x is on {x.device}: give a tensor there.")
        if value.device != x.device:
            raise ArgumentError(f"{name} is on {value.device} and x on {x.device}; give all tensors on one device.")
        if value.requires_grad:
            raise ArgumentError(f"{name} requires grad; pass {name}.detach(): the step is not differentiable.")
        if value.dtype not in dtypes:
            raise ArgumentTypeError(f"{name} has dtype {value.dtype}; give {' or '.join(map(str, dtypes))}.")
        if shape is not None and value.shape != shape:
            raise ArgumentError(f"{name} has shape {tuple(value.shape)}; it must have shape {tuple(shape)}.")
        if not value.is_contiguous():
            raise ArgumentError(f"{name} is not contiguous; pass {name}.contiguous().")
        return value

    floats, single = (torch.float32, torch.float16, torch.bfloat16), (torch.float32,)
    fitting(x, "x", floats)
    if x.ndim < 1 or x.numel() == 0:
        raise ArgumentError(f"x has shape {tuple(x.shape)}; it needs a batch axis and at least one element.")
    batch, elements = len(x), x.numel() // len(x)
    if element_offset < 0 or element_offset + elements > MAX_ELEMENTS:
        raise ArgumentError(f"element_offset is {element_offset}; a sample has the elements 0 to 2**34 - 1.")
    given = model_output if isinstance(model_output, list | tuple) else [] if model_output is None else [model_output]
    outputs = [fitting(m, "model_output", floats, x.shape) for m in given]
    if len({m.dtype for m in outputs}) > 1:
        raise ArgumentTypeError("the model outputs have different dtypes; give all in one.")
    check_outputs(row, len(outputs))
    out = torch.empty_like(x) if out is None else fitting(out, "out", (x.dtype,), x.shape)
    needed = registers_of(row)
    if needed:
        if registers is None:
            raise ArgumentError(f"the row uses {needed} registers; give registers=, float32 of shape ({needed}, *x.shape).")
        fitting(registers, "registers", single)
        if registers.shape[1:] != x.shape or len(registers) < needed:
            raise ArgumentError(f"registers has shape {tuple(registers.shape)}; it must be ({needed}, *{tuple(x.shape)}).")
    known, mask = (None if a is None else fitting(a, name, single, x.shape) for a, name in ((known, "known"), (mask, "mask")))
    if mask is not None and known is None and row.known_y != 0.0:
        raise ArgumentError("mask is given without known; give known=, the values where the mask is 1.")
    variance_offset = -1
    if row.log_s is not None:
        if variance is None:
            raise ArgumentError("the row has a learned standard deviation; give variance=, the other half of the output.")
        v = fitting(variance, "variance", (outputs[0].dtype,) if outputs else floats, x.shape)
        # The kernel finds the variance beside output 0 of each sample, as networks emit it.
        outputs = [torch.stack([m.reshape(batch, -1), v.reshape(batch, -1)], dim=1) for m in outputs]
        variance_offset = elements

    def memory(name: str, value: Any) -> Memory:
        return Memory(name, value.data_ptr(), value.numel() * value.element_size(), value.element_size())

    read = (("x", x), *(("model_output", m) for m in outputs), ("known", known), ("mask", mask))
    check_step(
        memory("out", out),
        [memory(name, a) for name, a in read if a is not None],
        memory("registers", registers) if needed else None,
        len(registers) if needed else 0,
        row.write,
    )
    seeds, indices = noise_address(seed, index, batch)
    bound = kernel.bind(
        [row], x=x, out=out, outputs=outputs, registers=registers if needed else None, seeds=seeds, indices=indices, y=known,
        mask=mask, variance_offset=variance_offset, element_offset=element_offset,
    )  # fmt: skip
    bound.place([0] * batch, [step] * batch)
    bound.launch()
    bad = np.flatnonzero(bound.first_bad_rows() >= 0)
    if bad.size:
        raise not_finite(tuple(bad.tolist()), step)
    return out
