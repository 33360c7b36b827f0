"""Random traces through the scheduler, with time as a number."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diffuse_fast.serving.scheduler import Entry, Scheduler

SECONDS = 0.01  # of a step

SAMPLES = st.tuples(
    st.integers(1, 6),  # calls
    st.integers(1, 2),  # evaluations
    st.integers(0, 2),  # priority
    st.sampled_from([None, None, 0.02, 0.05, 0.3]),  # deadline from now
)
ACTIONS = st.lists(
    st.one_of(
        st.lists(SAMPLES, min_size=1, max_size=3).map(lambda samples: ("add", samples)),
        st.integers(0, 20).map(lambda job: ("cancel", job)),
        st.just(("step", None)),
        st.just(("step", None)),
    ),
    max_size=40,
)


class Trace:
    """A worker without a network: it makes one call per step for every sample in the batch."""

    def __init__(self, capacity, evaluations):
        self.scheduler = Scheduler(capacity, evaluations, ageing=0.1)
        self.now, self.jobs = 0.0, itertools.count()
        self.left = {}  # calls left, by (job, sample), of the samples that run
        self.after_cancel = {}  # steps since, of what was cancelled
        self.entries, self.ends = {}, {}

    def add(self, samples):
        job = f"job{next(self.jobs)}"
        for number, (calls, evaluations, priority, deadline) in enumerate(samples):
            deadline = None if deadline is None else self.now + deadline
            entry = Entry(job, number, calls, evaluations, priority, deadline, self.now)
            self.entries[job, number] = entry
            self.scheduler.add(entry)

    def cancel(self, number):
        for entry in self.scheduler.cancel(f"job{number}"):
            self.end(entry, "cancelled")
            self.left.pop((entry.job, entry.sample), None)

    def step(self):
        for entry in self.scheduler.late(self.now, SECONDS, lambda entry: self.left[entry.job, entry.sample]):
            calls = self.left.pop((entry.job, entry.sample), entry.calls)
            assert entry.deadline is not None and self.now + calls * SECONDS > entry.deadline
            self.end(entry, "late")
        waiting = self.scheduler.waiting
        keys = {(e.job, e.sample): self.scheduler.order(e, i, self.now, SECONDS)[:3] for i, e in enumerate(waiting)}
        admitted = self.scheduler.admit(self.now, SECONDS)
        self.check_order(waiting, admitted, keys)
        self.left |= {(entry.job, entry.sample): entry.calls for entry in admitted}
        for key in list(self.left):
            self.left[key] -= 1
            if not self.left[key]:
                del self.left[key]
                self.scheduler.end(*key)
                self.end(self.entries[key], "finished")
        self.now += SECONDS
        running = self.scheduler.running
        assert {(e.job, e.sample) for e in running} == set(self.left)  # no slot leaks
        assert len(running) <= self.scheduler.capacity
        assert sum(e.evaluations for e in running) <= self.scheduler.evaluations

    def check_order(self, waiting, admitted, keys):
        """Nobody that waits comes before anybody that was admitted; equal ones are in order of arrival."""
        ordered = [keys[e.job, e.sample] for e in admitted]
        assert ordered == sorted(ordered)
        left = [e for e in waiting if e not in admitted]
        if admitted and left:
            assert max(ordered) <= min(keys[e.job, e.sample] for e in left)
        places = {(e.job, e.sample): i for i, e in enumerate(waiting)}
        for a, b in itertools.pairwise(admitted):
            if keys[a.job, a.sample] == keys[b.job, b.sample]:
                assert places[a.job, a.sample] < places[b.job, b.sample]

    def end(self, entry, how):
        key = entry.job, entry.sample
        assert key not in self.ends, "a sample ends once"
        self.ends[key] = how


def run(capacity, evaluations, actions):
    trace = Trace(capacity, evaluations)
    for what, argument in actions:
        trace.step() if what == "step" else getattr(trace, what)(argument)
    # Nothing starves: what is left is done in as many steps as there are calls, at the worst one sample after another.
    for _ in range(sum(entry.calls for entry in trace.entries.values()) + 1):
        trace.step()
    assert not trace.scheduler.waiting and not trace.scheduler.running
    assert trace.ends.keys() == trace.entries.keys()


@given(st.integers(1, 5), st.integers(2, 6), ACTIONS)
@settings(max_examples=300)
def test_every_sample_ends_once_and_in_order(capacity, evaluations, actions):
    run(capacity, evaluations, actions)


@pytest.mark.slow
@given(st.integers(1, 5), st.integers(2, 6), ACTIONS)
@settings(max_examples=10_000)
def test_ten_thousand_traces(capacity, evaluations, actions):
    run(capacity, evaluations, actions)


def admitted(scheduler, now=0.0, seconds=0.0):
    return [entry.job for entry in scheduler.admit(now, seconds)]


def test_priority_then_slack_then_cost_then_arrival():
    scheduler = Scheduler(10)
    for entry in (
        Entry("first", 0, 5),
        Entry("second", 0, 5),
        Entry("cheap", 0, 3),
        Entry("guided", 0, 3, evaluations=2),
        Entry("loose", 0, 5, deadline=9.0),
        Entry("tight", 0, 5, deadline=8.0),
        Entry("long", 0, 50, deadline=8.5),  # 8.5 - 50 calls is less slack than 8.0 - 5
        Entry("important", 0, 5, priority=1),
    ):
        scheduler.add(entry)
    assert admitted(scheduler, seconds=0.1) == ["important", "long", "tight", "loose", "cheap", "first", "second", "guided"]


def test_waiting_outweighs_priority():
    """One level for each second: after three seconds a sample of priority 0 comes before a new one of priority 2."""
    scheduler = Scheduler(1, ageing=1.0)
    scheduler.add(Entry("old", 0, 1, arrived=0.0))
    scheduler.add(Entry("new", 0, 1, priority=2, arrived=3.0))
    assert admitted(scheduler, now=3.0) == ["old"]


def test_a_sample_that_does_not_fit_is_not_passed():
    scheduler = Scheduler(4, evaluations=4)
    for entry in (Entry("a", 0, 1, 2), Entry("b", 0, 1), Entry("c", 0, 2, 2), Entry("d", 0, 5)):
        scheduler.add(entry)
    assert admitted(scheduler) == ["b", "a"]  # three evaluations: guided c is next and does not fit
    scheduler.end("b", 0)
    assert admitted(scheduler) == ["c"]
    scheduler.end("a", 0)
    assert admitted(scheduler) == ["d"]


def test_a_deadline_ends_what_waits_and_what_runs():
    scheduler = Scheduler(1)
    scheduler.add(Entry("runs", 0, 10, deadline=1.0))
    assert admitted(scheduler) == ["runs"]
    scheduler.add(Entry("waits", 0, 10, deadline=1.0))
    assert [e.job for e in scheduler.late(0.5, 0.06, lambda entry: 8)] == ["waits"]  # 10 calls take 0.6 s, 8 take 0.48
    assert scheduler.late(0.9, 0.06, lambda entry: 1) == []
    assert [e.job for e in scheduler.late(0.9, 0.06, lambda entry: 2)] == ["runs"]
    assert scheduler.running == () and scheduler.waiting == ()


def test_cancelling_frees_the_slot():
    scheduler = Scheduler(1)
    for sample in range(2):
        scheduler.add(Entry("a", sample, 1))
    scheduler.add(Entry("b", 0, 1))
    assert admitted(scheduler) == ["a"]
    assert len(scheduler.cancel("a")) == 2
    assert scheduler.cancel("a") == []
    assert admitted(scheduler) == ["b"]
    assert math.isinf(scheduler.order(Entry("c", 0, 1), 0, 0.0, 0.0)[1])
