"""Waiting for this process to rest, on a clock of its own."""

from __future__ import annotations

import pytest

from diffuse_fast.tuning import wait_idle as module


@pytest.mark.parametrize(("spins", "waits"), [(0.0, 0.002), (0.028, 0.030), (9.0, 0.1)])
def test_it_waits_as_long_as_threads_spin(monkeypatch, spins, waits):
    class Clock:
        now = 0.0

        def perf_counter(self):
            return self.now

        def process_time(self):
            return min(self.now, spins)

        def sleep(self, seconds):
            self.now += seconds

    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    module.wait_idle()
    assert clock.now == pytest.approx(waits, abs=0.0021)
