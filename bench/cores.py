"""The processors of a run: one per thread, on different cores if there are enough."""

from __future__ import annotations

import functools

from diffuse_fast.machine import affinity, siblings


@functools.cache
def allowed() -> tuple[int, ...]:
    """The processors that this process may use; the first of every core comes before the second of any."""
    first: list[int] = []
    second: list[int] = []
    seen = set()
    for cpu in affinity():
        core = siblings(cpu) or str(cpu)
        (second if core in seen else first).append(cpu)
        seen.add(core)
    return (*first, *second)


def cores(threads: int) -> tuple[int, ...]:
    return allowed()[:threads]


def thread_counts() -> tuple[int, ...]:
    """One, and two if there are two processors."""
    return (1, 2) if len(allowed()) > 1 else (1,)
