"""Wait until this process is idle.

The threads of a runtime keep spinning after a call, in case another one follows (onnxruntime's for 28 ms). A call that is timed
meanwhile has fewer cores.
"""

from __future__ import annotations

import time

_INTERVAL = 0.002  # seconds between two checks
_IDLE = 0.1  # of a core: idle below this
_LIMIT = 0.1  # seconds: a process that is still busy then will not become idle


def wait_idle() -> None:
    """Wait until no thread of this process is busy, for 0.1 s at most."""
    end = time.perf_counter() + _LIMIT
    while time.perf_counter() < end:
        begin, used = time.perf_counter(), time.process_time()
        time.sleep(_INTERVAL)
        if time.process_time() - used < _IDLE * (time.perf_counter() - begin):
            return
