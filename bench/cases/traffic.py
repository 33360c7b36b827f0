"""Bytes that a step moves per element, counted and not timed: what eager PyTorch's operators read and write, and the fused step.

On a GPU a step is bound by memory, so that this ratio is what a fused step can gain at most. It holds on every machine.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import diffuse_fast as df
from diffuse_fast.kernels.rows import pack
from diffuse_fast.kernels.triton_variant import canonicalize, terms_of
from diffuse_fast.plans.plan import Row

from ..report import Line

SHAPE = (2, 3, 32, 32)  # the count per element is that of any size


class _Counted(TorchDispatchMode):
    """Adds up the bytes of the tensors that operators take and return; views move none, scalars are not counted."""

    total = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        if not function.is_view:
            tensors = (t for t in tree_leaves((args, kwargs, result)) if isinstance(t, torch.Tensor) and t.ndim)
            self.total += sum(t.numel() * t.element_size() for t in tensors)
        return result


def bytes_per_element(call: Callable[[], torch.Tensor]) -> float:
    """What the operators of ``call`` read and write, over the elements of what it returns."""
    with _Counted() as counted:
        result = call()
    return counted.total / result.numel()


def fused_bytes_per_element(row: Row) -> int:
    """What the fused step reads and writes in float32: each tensor that the row names, once."""
    has = terms_of(canonicalize(pack([row])), masked=False)
    touched = ("x", "g0", "g1", "g2", "learned_s", "write")
    return 4 * (1 + sum(int(has[name][0]) for name in touched) + int((has["c"] | has["f"]).sum()))


def eager_ddim(
    x: torch.Tensor, m: torch.Tensor, alpha: float, sigma: float, alpha_next: float, sigma_next: float, *, rederive: bool = False
) -> torch.Tensor:
    """Clipped DDIM as a line of PyTorch per equation; ``rederive`` takes epsilon from the clipped prediction."""
    x0 = ((x - sigma * m) / alpha).clamp(-1, 1)
    epsilon = (x - alpha * x0) / sigma if rederive else m
    return alpha_next * x0 + sigma_next * epsilon


def run(seconds: float) -> list[Line]:
    x, m = torch.zeros(SHAPE), torch.zeros(SHAPE)
    lines = []
    for name, rederive in (("ddim, clipped", False), ("ddim, clipped, epsilon rederived", True)):
        plan = df.plan(df.Schedule.linear(), "ddim", 10, prediction_type="epsilon", clip=(-1, 1), rederive_epsilon=rederive)
        eager = bytes_per_element(lambda rederive=rederive: eager_ddim(x, m, 0.8, 0.6, 0.9, 0.43, rederive=rederive))  # type: ignore[misc]  # mypy infers no type of a lambda with a default
        lines.append(Line(f"{name}, eager", value=eager, unit="bytes/element"))
        lines.append(Line(f"{name}, fused", value=fused_bytes_per_element(plan.rows[0]), unit="bytes/element", limit=12.0))
    return lines
