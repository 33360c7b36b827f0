"""Reading the CPU, and cores within a container's CPU quota, from files as kernels write them."""

from __future__ import annotations

import os

import pytest

from diffuse_fast import machine

V1 = "4:memory:/docker/ab\n2:cpu,cpuacct:/docker/ab\n1:cpuset:/docker/ab\n"


def written(folder, own, files):
    (folder / "own").write_text(own)
    for name, text in files.items():
        path = folder / "mount" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return machine.quota(folder / "own", folder / "mount")


@pytest.mark.parametrize(
    ("own", "files", "expected"),
    [
        ("0::/\n", {"cpu.max": "200000 100000\n"}, 2),
        ("0::/\n", {"cpu.max": "150000 100000\n"}, 2),  # a part of a core is one
        ("0::/\n", {"cpu.max": "10000 100000\n"}, 1),
        ("0::/\n", {"cpu.max": "max 100000\n"}, None),
        ("0::/\n", {}, None),
        ("0::/a/b\n", {"a/cpu.max": "100000 50000\n", "a/b/cpu.max": "max 100000\n"}, 2),  # of a group around its own
        ("0::/a/b\n", {"a/cpu.max": "400000 100000\n", "a/b/cpu.max": "300000 100000\n"}, 3),
        ("0::/of/the/host\n", {"cpu.max": "300000 100000\n"}, 3),  # in a container without a namespace of groups
        (V1, {"cpu,cpuacct/docker/ab/cpu.cfs_quota_us": "250000", "cpu,cpuacct/docker/ab/cpu.cfs_period_us": "100000"}, 3),
        (V1, {"cpu,cpuacct/cpu.cfs_quota_us": "100000", "cpu,cpuacct/cpu.cfs_period_us": "100000"}, 1),
        (V1, {"cpu/docker/ab/cpu.cfs_quota_us": "-1", "cpu/docker/ab/cpu.cfs_period_us": "100000"}, None),
        ("1:cpuset:/\n", {"cpu/cpu.cfs_quota_us": "100000", "cpu/cpu.cfs_period_us": "100000"}, None),
        ("0::/\n", {"cpu.max": "nonsense\n"}, None),
    ],
)
def test_quotas(tmp_path, own, files, expected):
    assert written(tmp_path, own, files) == expected


def test_without_control_groups(tmp_path):
    assert machine.quota(tmp_path / "own", tmp_path) is None


V1_MEMORY = {"limit_in_bytes": "1000", "usage_in_bytes": "800", "stat": "active_file 30\ninactive_file 20\n"}
STAT = "cache 900\nactive_file 30\ninactive_file 20\nanon 500\n"


@pytest.mark.parametrize(
    ("own", "files", "expected"),
    [
        ("0::/\n", {}, 2048),
        ("0::/\n", {"memory.max": "1000\n", "memory.current": "600\n", "memory.stat": STAT}, 450),
        ("0::/\n", {"memory.max": "max\n", "memory.current": "600\n", "memory.stat": STAT}, 2048),
        ("0::/\n", {"memory.max": "100\n", "memory.current": "600\n", "memory.stat": STAT}, 0),
        ("0::/\n", {"memory.max": "99000\n", "memory.current": "600\n", "memory.stat": STAT}, 2048),
        (
            "0::/a/b\n",
            {"a/memory.max": "700\n", "a/memory.current": "600\n", "a/memory.stat": STAT, "a/b/memory.max": "max\n"},
            150,
        ),
        (
            V1,
            {f"memory/docker/ab/memory.{n}": t for n, t in (("limit_in_bytes", "1000"), ("usage_in_bytes", "800"), ("stat", STAT))},
            250,
        ),
        (V1, {"cpu/memory.limit_in_bytes": "1000"}, 2048),
        ("0::/\n", {"memory.max": "nonsense\n", "memory.current": "600\n", "memory.stat": STAT}, 2048),
    ],
)
def test_free_memory(tmp_path, own, files, expected):
    written(tmp_path, own, files)
    (tmp_path / "meminfo").write_text("MemTotal:  8 kB\nMemAvailable:   2 kB\n")
    assert machine.free_memory(tmp_path / "own", tmp_path / "mount", tmp_path / "meminfo") == expected


def test_free_memory_of_this_machine(tmp_path):
    assert machine.free_memory(tmp_path / "own", tmp_path, tmp_path / "meminfo") is None
    if os.path.exists("/proc/meminfo"):
        assert machine.free_memory() > 1 << 20


def test_no_more_than_the_quota(monkeypatch):
    monkeypatch.setattr(machine, "quota", lambda: 1)
    assert machine.cores() == machine.physical_cores() == 1
    monkeypatch.setattr(machine, "quota", lambda: 10**6)
    assert machine.cores() == (len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count())


X86 = """processor\t: 0
cpu family\t: 6
model\t\t: 143
model name\t: A CPU @ 2.00GHz
flags\t\t: fpu avx2 fma
bugs\t\t:

processor\t: 1
model name\t: Another
flags\t\t: fpu
"""
ARM = "processor\t: 0\nFeatures\t: fp asimd\nCPU part\t: 0xd40\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (X86, machine.Cpu("A CPU @ 2.00GHz", "6", "143", ("fpu", "avx2", "fma"))),
        (ARM, machine.Cpu(flags=("fp", "asimd"))),
        ("nonsense\n", machine.Cpu()),
        (None, machine.Cpu()),
    ],
)
def test_cpu_is_the_first_processor(tmp_path, text, expected):
    if text is not None:
        (tmp_path / "cpuinfo").write_text(text)
    assert machine.cpu(tmp_path / "cpuinfo") == expected
