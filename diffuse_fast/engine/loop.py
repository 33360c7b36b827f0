"""The loop: from checked batches and requests to samples."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from ..kernels.cpu import CpuKernel
from .devices.cpu import CpuSlots
from .devices.native import NativeSlots
from .progress import bar
from .request import Batch, Defaults
from .setup import Setup
from .slots import OnRow, Pool, Slots


def slots_class(setup: Setup) -> type[Slots]:
    """Return the slots for a setup: where the network and the step are the core's, so is the loop."""
    if setup.device is not None:
        from .devices.cuda import CudaSlots

        return CudaSlots
    if setup.network.name == "native" and isinstance(setup.kernel, CpuKernel):
        return NativeSlots
    return CpuSlots


def draw_batch(
    setup: Setup, pool: Pool, batch: Batch, size: int, *, as_tensor: bool, progress: bool, callback: OnRow | None
) -> Iterator[Any]:
    """Draw a batch in parts of at most ``size`` samples, and yield each part's samples when it is done."""
    n, kind = len(batch.seeds), slots_class(setup)
    with bar(progress, -(-n // size) * len(batch.plan.rows)) as advance:
        for first in range(0, n, size):
            part = batch if size >= n else batch.part(slice(first, min(n, first + size)))
            key = part.form if kind.any_plan else (id(part.plan), part.form)
            slots = pool.take(key) or kind(setup, len(part.seeds))
            slots.admit_batch(part)
            slots.run(advance, callback)
            result = slots.results(as_tensor)
            pool.give(key, slots)
            yield result


def draw_requests(
    setup: Setup, pool: Pool, defaults: Defaults, requests: Sequence[Any], size: int, *, progress: bool, callback: OnRow | None
) -> Any:
    """Draw requests, at most ``size`` together, and return their samples in order."""
    pieces, kind = [], slots_class(setup)
    for first in range(0, len(requests), size):
        part = requests[first : first + size]
        kept = pool.take(("requests", len(part))) if kind.any_plan else None
        slots = kept or kind(setup, len(part))
        slots.clear(defaults)
        for number, request in enumerate(part, first):
            slots.admit(request, number)
        with bar(progress, slots.ticks) as advance:
            slots.run(advance, callback)
        pieces.append(slots.results())
        if kind.any_plan:
            pool.give(("requests", len(part)), slots)
    return joined(pieces)


def joined(pieces: list[Any]) -> Any:
    """Concatenate arrays or tensors."""
    if len(pieces) == 1:
        return pieces[0]
    return np.concatenate(pieces) if isinstance(pieces[0], np.ndarray) else sys.modules["torch"].cat(pieces)
