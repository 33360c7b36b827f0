"""A server of our own to measure, on other cores than the generator."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator

from ...errors import LoadError
from ...machine import affinity, siblings

STOP_SECONDS = 20.0


@contextlib.contextmanager
def local_server(model: str, capacity: int) -> Iterator[tuple[str, str]]:
    """Run ``diffuse-fast serve`` on a free port of 127.0.0.1 and stop it at the end.

    Where this process has two cores or more, it keeps the last for itself and gives the server the others.

    Yields:
        The URL, and the processors in words.

    Raises:
        LoadError: the server did not start.
    """
    allowed = affinity()
    mine = [cpu for cpu in allowed if (siblings(cpu) or str(cpu)) == (siblings(allowed[-1]) or str(allowed[-1]))]
    others = [cpu for cpu in allowed if cpu not in mine]
    pinned = bool(others) and hasattr(os, "sched_setaffinity")
    command = [sys.executable, "-m", "diffuse_fast", "serve", model, "--port", "0", "--capacity", str(capacity)]
    environment = {name: value for name, value in os.environ.items() if name != "DIFFUSE_FAST_API_KEYS"}
    with tempfile.TemporaryFile("w+") as log:
        try:
            if pinned:
                os.sched_setaffinity(0, others)  # the server inherits it
            server = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=log, text=True)
            if pinned:
                os.sched_setaffinity(0, mine)
            try:
                assert server.stdout is not None
                started = re.search(r" on (http://\S+)$", server.stdout.readline().rstrip())
                if started is None:
                    server.wait(STOP_SECONDS)
                    log.seek(0)
                    raise LoadError(f"the server did not start: {log.read().strip()[-500:]}")
                where = (
                    f"server on {_words(others)}, generator on {_words(mine)}" if pinned else "server and generator share the cores"
                )
                yield started[1], where
            finally:
                server.terminate()
                with server:
                    try:
                        server.wait(STOP_SECONDS)
                    except subprocess.TimeoutExpired:
                        server.kill()
        finally:
            if pinned:
                os.sched_setaffinity(0, allowed)


def _words(cpus: list[int]) -> str:
    return f"CPU {', '.join(map(str, cpus))}"
