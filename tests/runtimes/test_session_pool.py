"""Which sessions stay when calls come, run beside each other, and go."""

from __future__ import annotations

import gc
import threading

from diffuse_fast.runtimes.session_pool import SessionPool


class Call:
    """A call that is bound to a shape; while it runs it has a session of its own."""

    def __init__(self, sessions, key):
        self.sessions, self.key = sessions, key
        sessions.bind(self, key)

    def begin(self):
        return self.sessions.take(self.key) or object()

    def end(self, session):
        self.sessions.give(self.key, session)


def run(*calls):
    """All at once."""
    for call, session in [(call, call.begin()) for call in calls]:
        call.end(session)


def test_shapes_that_bound_calls_have_stay():
    sessions = SessionPool(2)
    calls = [Call(sessions, key) for key in range(5)]
    run(*calls)
    assert sessions.idle() == dict.fromkeys(range(5), 1)
    del calls[1:]
    assert sessions.idle() == {0: 1, 3: 1, 4: 1}  # the last two of the others


def test_no_more_stay_than_calls_can_use():
    sessions = SessionPool(2)
    calls = [Call(sessions, "a") for _ in range(4)]
    run(*calls)
    assert sessions.idle() == {"a": 4}
    calls.pop()
    assert sessions.idle() == {"a": 3}
    calls.clear()
    assert sessions.idle() == {"a": 1}


def test_a_call_may_be_collected_while_the_lock_is_held():
    """By the collector, in the thread that holds it."""
    sessions = SessionPool(1)
    run(*[Call(sessions, key) for key in "ab"])
    call = Call(sessions, "a")
    run(call)
    with sessions._lock:
        del call
    other = Call(sessions, "c")
    run(other)
    assert sessions.idle() == {"a": 1, "c": 1}


def test_a_session_may_hold_a_call():
    """Its end is told while another session goes."""

    class Holder:
        pass

    sessions = SessionPool(0)
    calls = [Call(sessions, "a"), Call(sessions, "a")]
    first, second = Holder(), Holder()
    first.call = Call(sessions, "b")
    first.call.end(Holder())
    for call, session in zip(calls, (second, first), strict=True):
        call.end(session)
    del session, first, second, call
    calls.pop()
    gc.collect()
    assert sessions.idle() == {"a": 1}


def test_threads():
    sessions = SessionPool(2)
    inside, most = set(), []

    def work(seed):
        for i in range(300):
            call = Call(sessions, (seed + i) % 5)
            session = call.begin()
            assert session not in inside  # one call at a time
            inside.add(session)
            inside.discard(session)
            call.end(session)
        most.append(len(sessions.idle()))

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(most) == 4
    assert len(sessions.idle()) <= 2 and set(sessions.idle().values()) == {1}
