from __future__ import annotations

import os
import subprocess
import sys

import pytest

BEFORE = """
import os, signal, sys, traceback, numpy as np, diffuse_fast as df
from diffuse_fast.runtimes import network
model = df.load(sys.argv[1])
"""
AFTER = """
pid = os.fork()
if pid == 0:  # nothing may leave the child
    signal.alarm(60)
    try:
        os._exit(not child())
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(1)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""


@pytest.fixture
def forked():
    """``forked(code, path, *arguments)``: runs ``code``, which has ``model`` of the path and defines ``child()``, forks, and fails
    where that is not true in the child. Returns what was written to stdout.

    In a process of its own: that of the tests has threads of others, whose locks a fork may catch held.
    """
    if not hasattr(os, "fork"):
        pytest.skip("needs fork")

    def run(code: str, *arguments: object) -> bytes:
        command = [sys.executable, "-W", "ignore", "-c", BEFORE + code + AFTER, *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, timeout=280)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout

    return run
