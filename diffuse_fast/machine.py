"""The machine that this process runs on: its CPU, and how many of the cores and how much memory the process may use.

Linux only in its details. Where the system does not provide a value, the functions return None or the count that Python reports.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_CPUINFO, _MEMINFO = Path("/proc/cpuinfo"), Path("/proc/meminfo")
_TOPOLOGY = Path("/sys/devices/system/cpu")
_CGROUP, _CGROUP_MOUNT = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")
# Mount names of the controllers in version 1, which distributions choose.
_CGROUP_V1 = {"cpu": ("cpu,cpuacct", "cpuacct,cpu", "cpu"), "memory": ("memory",)}
_CGROUP_V1_MEMORY = ("memory.limit_in_bytes", "memory.usage_in_bytes")


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
    return min((limit for group in _groups("cpu", cgroup, mount) if (limit := _limit(group)) is not None), default=None)


def free_memory(cgroup: Path = _CGROUP, mount: Path = _CGROUP_MOUNT, meminfo: Path = _MEMINFO) -> int | None:
    """Return how many bytes this process can still take without swapping; None if unknown.

    That is what the machine has available, at most what the limits of this process's control group leave (cgroup v2:
    ``memory.max``; v1: ``memory.limit_in_bytes``). Pages of files that the kernel can drop count as free.

    Args:
        cgroup, mount: As for :func:`quota`.
        meminfo: File with the machine's memory.
    """
    free = [left for group in _groups("memory", cgroup, mount) if (left := _left(group)) is not None]
    with contextlib.suppress(OSError, ValueError, IndexError):
        free += [int(line.split()[1]) * 1024 for line in meminfo.read_text().splitlines() if line.startswith("MemAvailable:")]
    return min(free, default=None)


def _groups(controller: str, cgroup: Path, mount: Path) -> Iterator[Path]:
    """Folders of the control groups that may limit this process: its own and those around it, up to the root."""
    try:
        lines = cgroup.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            roots = [mount, mount / "unified"]
        elif controller in controllers.split(","):
            roots = [mount / name for name in _CGROUP_V1[controller]]
        else:
            continue
        # Inside a container the path may be the host's, while only the container's root is mounted.
        for group in (Path(path), *Path(path).parents):
            yield from (root / str(group).lstrip("/") for root in roots)


def _left(group: Path) -> int | None:
    """Read what the limit of one group leaves, in bytes."""
    limit, used = ("memory.max", "memory.current") if (group / "memory.max").exists() else _CGROUP_V1_MEMORY
    try:
        stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        files = sum(int(stat.get(name, 0)) for name in ("active_file", "inactive_file"))
        return max(0, int((group / limit).read_text()) - int((group / used).read_text()) + files)
    except (OSError, ValueError):  # "max": no limit
        return None


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
