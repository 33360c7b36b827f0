"""What other processes took, from counters that are told: nothing is measured here."""

from __future__ import annotations

import pytest

from diffuse_fast.tuning import cpu_load

STAT = "cpu  9 9 9 9 9 9 9 9 0 0\ncpu0 {} 0 0 100 0 0 0 {} 50 0\ncpu1 0 0 {} 100 7 0 0 0 0 0\ncpu2 900 0 0 0 0 0 0 0 0 0\nintr 5\n"


@pytest.mark.parametrize(
    ("user", "steal", "system", "own", "share"),
    [(100, 0, 0, 0.0, 0.5), (100, 0, 0, 1.0, 0.0), (0, 100, 60, 0.6, 0.5), (1, 0, 1, 0.0, 0.0), (0, 0, 0, 1.0, 0.0)],
)
def test_others_are_what_the_cores_did_besides(monkeypatch, user, steal, system, own, share):
    texts = iter([STAT.format(0, 0, 0), STAT.format(user, steal, system)])
    clock, worked = iter([10.0, 11.0]), iter([5.0, 5.0 + own])
    monkeypatch.setattr(cpu_load.Path, "read_text", lambda self: next(texts))
    monkeypatch.setattr(cpu_load.os, "sysconf", lambda name: 100)
    monkeypatch.setattr(cpu_load.os, "sched_getaffinity", lambda pid: {0, 1}, raising=False)
    monkeypatch.setattr(cpu_load.time, "perf_counter", lambda: next(clock))
    monkeypatch.setattr(cpu_load.time, "process_time", lambda: next(worked))
    assert cpu_load.OtherLoad().share() == pytest.approx(share)


def test_where_the_system_does_not_tell_there_are_none(monkeypatch):
    def missing(self):
        raise FileNotFoundError(self)

    monkeypatch.setattr(cpu_load.Path, "read_text", missing)
    assert cpu_load.OtherLoad().share() == 0.0
