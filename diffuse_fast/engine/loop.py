"""The loop: from checked batches and requests to samples."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from .devices.cpu import CpuSlots
from .progress import bar
from .request import Batch, Defaults
from .setup import Setup
from .slots import OnRow, Pool, Slots


def make_slots(setup: Setup, capacity: int, defaults: Defaults | None = None) -> Slots:
    """Return empty slots on the device of a setup."""
    if setup.device is None:
        return CpuSlots(setup, capacity, defaults)
    from .devices.cuda import CudaSlots

    return CudaSlots(setup, capacity, defaults)


def draw_batch(
    setup: Setup, pool: Pool, batch: Batch, size: int, *, as_tensor: bool, progress: bool, callback: OnRow | None
) -> Iterator[Any]:
    """Draw a batch in parts of at most ``size`` samples, and yield each part's samples when it is done."""
    n = len(batch.seeds)
    with bar(progress, -(-n // size) * len(batch.plan.rows)) as advance:
        for first in range(0, n, size):
            part = batch if size >= n else batch.part(slice(first, min(n, first + size)))
            # On the CPU slots are bound to a plan; on a device, what is captured runs the rows of any plan.
            key = part.form if setup.device is not None else (id(part.plan), part.form)
            slots = pool.take(key) or make_slots(setup, len(part.seeds))
            slots.admit_batch(part)
            slots.run(advance, callback)
            result = slots.results(as_tensor)
            pool.give(key, slots)
            yield result


def draw_requests(
    setup: Setup, pool: Pool, defaults: Defaults, requests: Sequence[Any], size: int, *, progress: bool, callback: OnRow | None
) -> Any:
    """Draw requests, at most ``size`` together, and return their samples in order."""
    pieces = []
    for first in range(0, len(requests), size):
        part = requests[first : first + size]
        # What the CPU binds for requests is for these alone; a device's captured graphs serve others too.
        kept = None if setup.device is None else pool.take(("requests", len(part)))
        slots = kept or make_slots(setup, len(part))
        slots.clear(defaults)
        for number, request in enumerate(part, first):
            slots.admit(request, number)
        with bar(progress, slots.ticks) as advance:
            slots.run(advance, callback)
        pieces.append(slots.results())
        if setup.device is not None:
            pool.give(("requests", len(part)), slots)
    return joined(pieces)


def joined(pieces: list[Any]) -> Any:
    """Concatenate arrays or tensors."""
    if len(pieces) == 1:
        return pieces[0]
    return np.concatenate(pieces) if isinstance(pieces[0], np.ndarray) else sys.modules["torch"].cat(pieces)
