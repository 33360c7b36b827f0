"""The machine that this process runs on: its CPU, and how many of the cores the process may use.

Linux only in its details. Where the system does not provide a value, the functions return None or the count that Python reports.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path

_CPUINFO = Path("/proc/cpuinfo")
_TOPOLOGY = Path("/sys/devices/system/cpu")
_CGROUP, _CGROUP_MOUNT = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")
_CGROUP_V1_CPU = ("cpu,cpuacct", "cpuacct,cpu", "cpu")  # mount names of the cpu controller, which distributions choose


@dataclass(frozen=True, slots=True)
class Cpu:
    """The first processor of ``/proc/cpuinfo``. A field is None where the system does not report it.

    Attributes:
        name: Model name, such as ``"Intel(R) Xeon(R) Platinum 8488C"``.
        family, model: Numbers of the CPU family and model, as text.
        flags: Instruction set flags, such as ``"avx2"``, in the order of the file.
    """

    name: str | None = None
    family: str | None = None
    model: str | None = None
    flags: tuple[str, ...] | None = None


def cpu(path: Path = _CPUINFO) -> Cpu:
    """Read the CPU's model and instruction sets."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return Cpu()
    fields: dict[str, str] = {}
    for line in text.splitlines():
        key, colon, value = line.partition(":")
        if colon:
            fields.setdefault(key.strip(), value.strip())
    flags = fields.get("flags") or fields.get("Features")  # x86, ARM
    return Cpu(
        fields.get("model name"), fields.get("cpu family"), fields.get("model"), None if flags is None else tuple(flags.split())
    )


def affinity() -> tuple[int, ...]:
    """Return the logical CPUs that this process may run on, in ascending order."""
    return tuple(sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1))


def siblings(logical: int) -> str | None:
    """Return the list of logical CPUs that share a physical core (SMT) with one of them, as Linux writes it; None if unknown."""
    try:
        return (_TOPOLOGY / f"cpu{logical}/topology/thread_siblings_list").read_text().strip()
    except OSError:
        return None


def cores() -> int:
    """Return how many logical CPUs this process may use: those of its affinity, at most its container's CPU quota."""
    allowed = len(affinity())
    return min(allowed, quota() or allowed)


def physical_cores() -> int:
    """Return how many physical cores this process may use, at most its container's CPU quota.

    This is the default for the threads of a network call. OpenVINO counts in the same way, but ignores the quota.
    """
    groups = {siblings(logical) for logical in affinity()}
    if None in groups:
        return cores()
    return min(len(groups), quota() or len(groups))


def quota(cgroup: Path = _CGROUP, mount: Path = _CGROUP_MOUNT) -> int | None:
    """Return the CPU quota of this process's control group in cores, rounded up; None without a quota.

    The smallest quota between the group and the root applies (cgroup v2: ``cpu.max``; v1: ``cpu.cfs_quota_us``).

    Args:
        cgroup: File that lists the control groups of the process.
        mount: Folder where the control group file systems are mounted.
    """
    try:
        lines = cgroup.read_text().splitlines()
    except OSError:
        return None
    limits = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            roots = [mount, mount / "unified"]
        elif "cpu" in controllers.split(","):
            roots = [mount / name for name in _CGROUP_V1_CPU]
        else:
            continue
        # Inside a container the path may be the host's, while only the container's root is mounted.
        for group in (Path(path), *Path(path).parents):
            limits += [limit for root in roots if (limit := _limit(root / str(group).lstrip("/"))) is not None]
    return min(limits, default=None)


def _limit(group: Path) -> int | None:
    """Read the quota of one group, in cores."""
    try:
        if (group / "cpu.max").exists():
            time, period = (group / "cpu.max").read_text().split()
        else:
            time, period = ((group / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        return max(1, math.ceil(int(time) / int(period))) if int(time) > 0 else None
    except (OSError, ValueError, ZeroDivisionError):  # "max": no quota
        return None
