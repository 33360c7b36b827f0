"""The cores that this process may use: those of its affinity, and no more than its container's CPU quota pays for."""

from __future__ import annotations

import math
import os
from pathlib import Path

_OWN, _MOUNT = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")
_V1_MOUNTS = ("cpu,cpuacct", "cpuacct,cpu", "cpu")  # of the controller cpu, as distributions name them


def cores() -> int:
    """Cores that this process may use."""
    mine = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(mine, quota() or mine)


def physical_cores() -> int:
    """The same, but those that share their units (SMT) once: the threads of a call where nothing else was said or tuned. OpenVINO
    counts them so itself, but for the quota."""
    if not hasattr(os, "sched_getaffinity"):
        return cores()
    siblings = Path("/sys/devices/system/cpu")
    try:
        mine = len({(siblings / f"cpu{n}/topology/thread_siblings_list").read_text() for n in os.sched_getaffinity(0)})
    except OSError:
        return cores()
    return min(mine, quota() or mine)


def quota(own: Path = _OWN, mount: Path = _MOUNT) -> int | None:
    """The cores that the CPU quota of this process's control group pays for, a part of one as a whole one; None where there is no
    quota. The least one on the way to the root counts (cgroup v2: ``cpu.max``; v1: ``cpu.cfs_quota_us``).

    Args:
        own: The groups of this process.
        mount: Where the file systems of control groups are mounted.
    """
    try:
        lines = own.read_text().splitlines()
    except OSError:
        return None
    found = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            tops = [mount, mount / "unified"]
        elif "cpu" in controllers.split(","):
            tops = [mount / name for name in _V1_MOUNTS]
        else:
            continue
        # Inside a container the path may be the host's, of which only the root is mounted.
        for group in (Path(path), *Path(path).parents):
            found += [limit for top in tops if (limit := _limit(top / str(group).lstrip("/"))) is not None]
    return min(found, default=None)


def _limit(group: Path) -> int | None:
    """The cores that one group's own quota pays for."""
    try:
        if (group / "cpu.max").exists():
            spent, period = (group / "cpu.max").read_text().split()
        else:
            spent, period = ((group / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        return max(1, math.ceil(int(spent) / int(period))) if int(spent) > 0 else None
    except (OSError, ValueError, ZeroDivisionError):  # "max": no quota
        return None
