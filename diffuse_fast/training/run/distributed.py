"""The processes of one run: one, or as many as ``torchrun`` started.

Plain ``torch.distributed``, not ``accelerate``: what is needed are DDP, fully_shard and three collectives, and a run must not
depend on a launcher's configuration file beside its own.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import Tensor

from ...errors import TrainingError


@contextmanager
def process_group(device: str = "cpu") -> Iterator[None]:
    """Within it the processes that ``torchrun`` started know each other (gloo on the CPU, NCCL on GPUs). Without ``torchrun``,
    or where a group is there already, it does nothing."""
    if int(os.environ.get("WORLD_SIZE", "1")) < 2 or dist.is_initialized():
        yield
        return
    if device == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if device == "cuda" else "gloo")
    try:
        yield
    finally:
        dist.destroy_process_group()


def rank() -> int:
    """Number of this process, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def world() -> int:
    """How many processes there are."""
    return dist.get_world_size() if dist.is_initialized() else 1


def mean(value: Tensor) -> Tensor:
    """The mean of a tensor over all processes."""
    if world() > 1:
        value = value.clone()
        dist.all_reduce(value)
        value /= world()
    return value


def anyone(flag: bool, device: torch.device) -> bool:
    """Whether a flag is set in any process; every process must call it."""
    if world() == 1:
        return flag
    value = torch.tensor(float(flag), device=device)
    dist.all_reduce(value)
    return value.item() > 0.0


def everyone(values: Tensor) -> Tensor:
    """A tensor of each process, of one shape, after each other in the order of the processes."""
    if world() == 1:
        return values
    parts = [torch.empty_like(values) for _ in range(world())]
    dist.all_gather(parts, values)
    return torch.cat(parts)


@contextmanager
def first_alone() -> Iterator[bool]:
    """What only the first process does, while the others wait; it yields whether this is the first. If it fails there, it fails
    everywhere."""
    error: BaseException | None = None
    try:
        yield rank() == 0
    except Exception as raised:
        error = raised
    if world() > 1:
        told: list[str | None] = [None if error is None else str(error)]
        dist.broadcast_object_list(told)
        if error is None and told[0] is not None:
            raise TrainingError(f"the first process failed: {told[0]}")
    if error is not None:
        raise error


def whole(tensor: Tensor) -> Tensor:
    """A tensor that may be sharded among the processes, in full; every process must call it."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


@torch.no_grad()
def fill(tensor: Tensor, values: Tensor) -> None:
    """Give a tensor, perhaps sharded, the values of a full one."""
    from torch.distributed.tensor import DTensor, distribute_tensor

    if isinstance(tensor, DTensor):
        values = distribute_tensor(values.to(tensor.device), tensor.device_mesh, tensor.placements)
    tensor.copy_(values)
