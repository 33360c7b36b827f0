"""Split a batch into parts that run concurrently, each on its own core: the runtimes release the GIL."""

from __future__ import annotations

import contextlib
from collections import deque
from typing import Any

import numpy as np

from .base import BoundCall, Network, aligned, copied_cond
from .fork_safety import ThreadOwner


class SplitNetwork:
    """A network that splits its batches into parts whose sizes differ by at most one, the larger first.

    If the result of the network for a sample does not depend on the batch, the bits do not depend on the number of parts.
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
        cond = copied_cond(cond, batch)
        size, remainder = divmod(batch, parts)
        ends = np.cumsum([size + (i < remainder) for i in range(parts)]).tolist()
        slices = [slice(start, stop) for start, stop in zip([0, *ends], ends, strict=False)]
        calls = [self._inner.bind(s.stop - s.start, shape, {n: v[s] for n, v in cond.items()}, output_shape) for s in slices]
        return SplitCall(calls, slices)


class SplitCall(ThreadOwner):
    """See :class:`~diffuse_fast.runtimes.base.BoundCall`. Each part has its own buffers; copying in and out costs nothing
    compared to a network call that is worth splitting."""

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
                except IndexError:  # none is left
                    return
                self._run(part, t)

        others: list[Any] = []
        # If no more threads can be started, the existing ones do the work: each takes part after part.
        with contextlib.suppress(RuntimeError):
            while self._pool is not None and len(others) < len(self._parts) - 1:
                others.append(self._pool.submit(take))
        try:
            take()
        finally:
            for other in others:  # no thread may write after the call has returned
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
    """Return a thread pool; None if the interpreter starts no more threads because its main thread has ended."""
    try:
        from concurrent.futures import ThreadPoolExecutor  # this import fails too, then

        return ThreadPoolExecutor(count, "diffuse_fast_split")
    except RuntimeError:
        return None
