"""Which processors a run uses: one for each thread, of different cores where there are enough."""

from __future__ import annotations

import functools

from diffuse_fast.machine import affinity, siblings


@functools.cache
def allowed() -> tuple[int, ...]:
    """The processors that this process may use, one of every core before the second of any."""
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
    """One, and two where there are two."""
    return (1, 2) if len(allowed()) > 1 else (1,)
