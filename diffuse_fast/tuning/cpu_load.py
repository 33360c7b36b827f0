"""What other processes take of the cores that this one may run on."""

from __future__ import annotations

import os
import time
from pathlib import Path

from ..machine import affinity

_QUIET = 0.05  # below it, it is what every system does

_IDLE = (3, 4)  # columns of a line of /proc/stat: idle, and waiting for a disk
_COUNTED_ALREADY = 8  # columns from here on, the time of guests, are in the first two


class Others:
    """Measures from when it is made."""

    def __init__(self) -> None:
        self._begin = _now()

    def share(self) -> float:
        """Of the cores, from 0 to below 1; 0 where they rest, or where the system does not tell (no /proc/stat). What a
        hypervisor withheld counts too."""
        begin, end = self._begin, _now()
        if begin is None or end is None or not (capacity := end[0] - begin[0]):
            return 0.0
        share = (end[1] - begin[1]) / capacity
        return min(share, 0.99) if share >= _QUIET else 0.0


def _now() -> tuple[float, float] | None:
    """Seconds that the cores have had so far, all together, and those that others worked in."""
    try:
        lines = Path("/proc/stat").read_text().splitlines()
        tick, mine = os.sysconf("SC_CLK_TCK"), affinity()
    except (OSError, ValueError):
        return None
    rows = {name: [int(n) for n in rest[:_COUNTED_ALREADY]] for name, *rest in map(str.split, lines) if name.startswith("cpu")}
    here = [row for cpu in mine if (row := rows.get(f"cpu{cpu}")) is not None]
    worked = sum(sum(row) - sum(row[i] for i in _IDLE) for row in here) / tick
    return time.perf_counter() * len(here), worked - time.process_time()
