"""The processes of one run: one, or as many as ``torchrun`` started.

Plain ``torch.distributed``, not ``accelerate``: training needs only DDP, fully_shard and three collectives, and a run must not
depend on a launcher's configuration file.
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
    """Initialise the process group of ``torchrun`` (gloo on the CPU, NCCL on GPUs), and destroy it on exit. Without
    ``torchrun``, or if there is a group already, do nothing."""
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
    """The rank of this process."""
    return dist.get_rank() if dist.is_initialized() else 0


def world() -> int:
    """The number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


def mean(value: Tensor) -> Tensor:
    """The mean of a tensor over all processes."""
    if world() > 1:
        value = value.clone()
        dist.all_reduce(value)
        value /= world()
    return value


def any_process(flag: bool, device: torch.device) -> bool:
    """Whether a flag is set in any process. Every process must call this."""
    if world() == 1:
        return flag
    value = torch.tensor(float(flag), device=device)
    dist.all_reduce(value)
    return value.item() > 0.0


def all_gather(values: Tensor) -> Tensor:
    """Concatenate the tensors of all processes, which have one shape, in the order of ranks."""
    if world() == 1:
        return values
    parts = [torch.empty_like(values) for _ in range(world())]
    dist.all_gather(parts, values)
    return torch.cat(parts)


@contextmanager
def first_process_only() -> Iterator[bool]:
    """Run a block on the first process while the others wait; yields whether this is the first. A failure there raises in all
    processes."""
    error: BaseException | None = None
    try:
        yield rank() == 0
    except Exception as raised:
        error = raised
    if world() > 1:
        message: list[str | None] = [None if error is None else str(error)]
        dist.broadcast_object_list(message)
        if error is None and message[0] is not None:
            raise TrainingError(f"the first process failed: {message[0]}")
    if error is not None:
        raise error


def full_tensor(tensor: Tensor) -> Tensor:
    """Gather a tensor that may be sharded. Every process must call this."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


@torch.no_grad()
def load_full(tensor: Tensor, values: Tensor) -> None:
    """Copy a full tensor into one that may be sharded."""
    from torch.distributed.tensor import DTensor, distribute_tensor

    if isinstance(tensor, DTensor):
        values = distribute_tensor(values.to(tensor.device), tensor.device_mesh, tensor.placements)
    tensor.copy_(values)
