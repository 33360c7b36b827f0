"""The CPU load that other processes cause on the cores of this one."""

from __future__ import annotations

import os
import time
from pathlib import Path

from ..machine import affinity

_NEGLIGIBLE = 0.05  # every system has background load up to this share

_IDLE = (3, 4)  # columns of /proc/stat: idle, iowait
_COLUMNS = 8  # the columns after these, guest time, are included in the first two


class OtherLoad:
    """Measures the load of other processes from its creation on."""

    def __init__(self) -> None:
        self._begin = _now()

    def share(self) -> float:
        """Return the load as a share of the cores, from 0 to below 1. Time that a hypervisor withheld counts as load.

        It is 0 if the load is negligible, or if the system has no /proc/stat.
        """
        begin, end = self._begin, _now()
        if begin is None or end is None or not (capacity := end[0] - begin[0]):
            return 0.0
        share = (end[1] - begin[1]) / capacity
        return min(share, 0.99) if share >= _NEGLIGIBLE else 0.0


def _now() -> tuple[float, float] | None:
    """Return the total time of the cores so far, and the time in which other processes ran, in seconds."""
    try:
        lines = Path("/proc/stat").read_text().splitlines()
        tick, allowed = os.sysconf("SC_CLK_TCK"), affinity()
    except (OSError, ValueError):
        return None
    rows = {name: [int(n) for n in columns[:_COLUMNS]] for name, *columns in map(str.split, lines) if name.startswith("cpu")}
    cores = [row for cpu in allowed if (row := rows.get(f"cpu{cpu}")) is not None]
    busy = sum(sum(row) - sum(row[i] for i in _IDLE) for row in cores) / tick
    return time.perf_counter() * len(cores), busy - time.process_time()
