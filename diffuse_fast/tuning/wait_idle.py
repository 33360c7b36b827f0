"""A pause until this process rests: a runtime's threads go on spinning after a call, in case another comes (onnxruntime's for
28 ms), and what is timed then has so many cores less."""

from __future__ import annotations

import time

_LOOK = 0.002  # seconds between two looks
_BUSY = 0.1  # of a core
_LONGEST = 0.1  # seconds: what does not rest by then never does


def rest() -> None:
    """Wait until no thread of this process works."""
    end = time.perf_counter() + _LONGEST
    while time.perf_counter() < end:
        begin, used = time.perf_counter(), time.process_time()
        time.sleep(_LOOK)
        if time.process_time() - used < _BUSY * (time.perf_counter() - begin):
            return
