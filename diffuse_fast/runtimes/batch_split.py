"""A batch in parts that run beside each other, each on a core of its own: the runtimes release the interpreter's lock."""

from __future__ import annotations

import contextlib
from collections import deque
from typing import Any

import numpy as np

from .base import BoundCall, Network, aligned, own_cond
from .fork_safety import Threaded


class SplitNetwork:
    """A network whose batches are cut into parts of sizes that differ by one at most, the larger first.

    With a network whose result for a sample does not depend on its batch, the result is the same bits in any number of parts.
    """

    def __init__(self, inner: Network, parts: int):
        self._inner, self._parts = inner, parts
        self.name = inner.name

    def bind(
        self, batch: int, shape: tuple[int, ...], cond: dict[str, np.ndarray], output_shape: tuple[int, ...] | None = None
    ) -> BoundCall:
        parts = min(self._parts, batch)
        if parts == 1:
            return self._inner.bind(batch, shape, cond, output_shape)
        cond = own_cond(cond, batch)
        small, more = divmod(batch, parts)
        ends = np.cumsum([small + (i < more) for i in range(parts)]).tolist()
        slices = [slice(start, stop) for start, stop in zip([0, *ends], ends, strict=False)]
        calls = [self._inner.bind(s.stop - s.start, shape, {n: v[s] for n, v in cond.items()}, output_shape) for s in slices]
        return SplitCall(calls, slices)


class SplitCall(Threaded):
    """See :class:`~diffuse_fast.runtimes.base.BoundCall`. A part has buffers of its own: copying in and out is nothing beside a
    network call that is worth splitting."""

    def __init__(self, calls: list[BoundCall], slices: list[slice]):
        super().__init__()
        batch = slices[-1].stop
        self.x = aligned((batch, *calls[0].x.shape[1:]))
        self.output = aligned((batch, *calls[0].output.shape[1:]))
        self._parts = list(zip(calls, slices, strict=True))
        self._pool = _threads(len(calls) - 1)

    def condition(self, cond: dict[str, np.ndarray]) -> None:
        for call, part in self._parts:
            call.condition({name: value[part] for name, value in cond.items()})

    def __call__(self, t: float | np.ndarray) -> np.ndarray:
        self.check_process()
        todo = deque(range(len(self._parts)))

        def take() -> None:
            while True:
                try:
                    part = todo.popleft()
                except IndexError:  # all are taken
                    return
                self._run(part, t)

        others: list[Any] = []
        # Where no thread can be started, those that are there do the work: a thread takes part after part.
        with contextlib.suppress(RuntimeError):
            while self._pool is not None and len(others) < len(self._parts) - 1:
                others.append(self._pool.submit(take))
        try:
            take()
        finally:
            for other in others:  # none may go on writing when the call is over
                other.exception()
        for other in others:
            other.result()
        return self.output

    def _run(self, i: int, t: float | np.ndarray) -> None:
        call, part = self._parts[i]
        np.copyto(call.x, self.x[part])
        np.copyto(self.output[part], call(t if isinstance(t, float) else t[part]))

    def __del__(self) -> None:
        if getattr(self, "_pool", None) is not None:
            self._pool.shutdown(wait=False)


def _threads(count: int) -> Any:
    """A pool, or None where the interpreter gives no threads any more: its main thread has ended."""
    try:
        from concurrent.futures import ThreadPoolExecutor  # which cannot be imported then

        return ThreadPoolExecutor(count, "diffuse_fast_split")
    except RuntimeError:
        return None
