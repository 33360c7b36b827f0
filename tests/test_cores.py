"""The CPU quota of a container counts as the cores that there are: files of control groups as kernels write them."""

from __future__ import annotations

import os

import pytest

from diffuse_fast import cores

V1 = "4:memory:/docker/ab\n2:cpu,cpuacct:/docker/ab\n1:cpuset:/docker/ab\n"


def written(folder, own, files):
    (folder / "own").write_text(own)
    for name, text in files.items():
        path = folder / "mount" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return cores.quota(folder / "own", folder / "mount")


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
    assert cores.quota(tmp_path / "own", tmp_path) is None


def test_no_more_than_the_quota(monkeypatch):
    monkeypatch.setattr(cores, "quota", lambda: 1)
    assert cores.cores() == cores.physical_cores() == 1
    monkeypatch.setattr(cores, "quota", lambda: 10**6)
    assert cores.cores() == (len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count())
