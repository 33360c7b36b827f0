"""``python -m bench.calls``: the Python calls of a warm ``df.sample`` up to the network's first call, and the files they are in.

Counted, not timed: no noisy machine changes these figures.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import diffuse_fast as df

_ROOT = Path(df.__file__).parent


@dataclass
class Calls:
    """Functions of this package that were entered, by file.

    Attributes:
        by_file: Calls by file, in the order of the first.
        moves: How often a call was in another file than the call before it.
    """

    by_file: Counter[str] = field(default_factory=Counter)
    moves: int = 0

    @property
    def total(self) -> int:
        """Number of calls."""
        return sum(self.by_file.values())


class _Reached(Exception):
    """The network is about to be called."""


def count(run: Callable[[], Any]) -> Calls:
    """Count the calls of ``run`` up to the first call of an artifact's network, which ends it."""
    calls, last = Calls(), ""

    def profile(frame: FrameType, event: str, argument: Any) -> None:
        nonlocal last
        path = Path(frame.f_code.co_filename)
        if event != "call" or not path.is_relative_to(_ROOT):
            return
        file = str(path.relative_to(_ROOT))
        if file.startswith("runtimes") and frame.f_code.co_name == "__call__":
            raise _Reached
        calls.by_file[file] += 1
        calls.moves += file != last
        last = file

    before = sys.getprofile()
    sys.setprofile(profile)
    try:
        run()
    except _Reached:
        pass
    finally:
        sys.setprofile(before)
    return calls


def warm_sample() -> Calls:
    """Count a warm ``df.sample("digits", 4, 20)``."""
    df.sample("digits", 4, 20)
    return count(lambda: df.sample("digits", 4, 20))


def main() -> None:
    calls = warm_sample()
    print(f"{calls.total} calls in {len(calls.by_file)} files, {calls.moves} moves between files")
    for file, number in calls.by_file.most_common():
        print(f"{number:5d}  {file}")


if __name__ == "__main__":
    main()
