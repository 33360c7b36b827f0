"""The rounds of the interleaved timer."""

from __future__ import annotations

import random

from bench.measure import interleaved, take_turns


def test_every_candidate_has_one_turn_per_round_until_it_fails():
    order = []

    def turn(name, fails=False):
        def run():
            order.append(name)
            return None if fails and order.count(name) == 2 else float(len(order))

        return run

    times = take_turns({"a": turn("a"), "b": turn("b", fails=True)}, seconds=0.0, fewest=3)
    assert order == ["a", "b", "a", "b", "a"]
    assert times == {"a": [1.0, 3.0, 5.0]}
    assert take_turns({"a": turn("a", fails=False)}, seconds=60.0, fewest=1, most=2)["a"] == [6.0, 7.0]


def test_shuffled_rounds_have_every_candidate_once():
    order = []
    turns = {name: (lambda name=name: order.append(name) or 1.0) for name in "abc"}
    take_turns(turns, seconds=0.0, fewest=20, shuffle=random.Random(0))
    rounds = [order[i : i + 3] for i in range(0, 60, 3)]
    assert all(sorted(names) == ["a", "b", "c"] for names in rounds)
    assert len({tuple(names) for names in rounds}) > 1


def test_interleaved_times_every_candidate_equally_often():
    times = interleaved({"a": lambda: None, "b": lambda: sum(range(100))}, seconds=0.0, turn=1e-4)
    assert len(times["a"]) == len(times["b"]) == 5
    assert (times["b"] > 0).all()
