"""Threads that cannot be had: the work is done with those that are there. Each case in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import diffuse_fast as df
from diffuse_fast import _core


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


STEP = """
import numpy as np, diffuse_fast as df
from diffuse_fast.kernels import set_num_threads
set_num_threads(4)
row = df.plan(df.Schedule.linear(), "ddpm", 3, prediction_type="epsilon").rows[0]
x = np.random.default_rng(0).standard_normal((2, 400_000)).astype(np.float32)
m, out = x.copy(), np.empty_like(x)
def step():
    return df.step(x, m, row, seed=1, out=out)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits memory by address space, as Linux does")
def test_the_step_goes_on_where_no_thread_can_be_started():
    """The stack of a new thread is larger than what the limit on memory leaves."""
    code = (
        STEP
        + """
import os, re, resource
set_num_threads(1)
expected = step().copy()
set_num_threads(4)
size = int(re.search(r"VmSize:\\s+(\\d+)", open("/proc/self/status").read())[1]) * 1024
limits = resource.getrlimit(resource.RLIMIT_AS)
before = len(os.listdir("/proc/self/task"))
resource.setrlimit(resource.RLIMIT_AS, (size + (1 << 20), limits[1]))
step()
resource.setrlimit(resource.RLIMIT_AS, limits)
np.testing.assert_array_equal(out, expected)
print("threads", len(os.listdir("/proc/self/task")) - before)
"""
    )
    assert "threads 0" in run(code)


def test_a_thread_that_first_samples_after_main_has_ended():
    code = (
        STEP
        + """
import threading, time
def network(x, t):
    return x * np.float32(0.5)
def late():
    threading.main_thread().join()
    time.sleep(0.2)
    assert step().shape == x.shape
    print(df.sample("digits", 4, 2, seed=0, cond={"label": 3}, threads=2).shape)
threading.Thread(target=late).start()
"""
    )
    assert "(4, 1, 8, 8)" in run(code)


@pytest.mark.skipif(sys.implementation.name != "cpython", reason="subinterpreters are CPython's")
def test_a_subinterpreter_is_refused_and_does_not_hang():
    # The finder of an editable install would start a process, which a subinterpreter may not.
    found = f"""
import sys
sys.meta_path = [finder for finder in sys.meta_path if not type(finder).__name__.startswith("ScikitBuild")]
sys.path.insert(0, {str(Path(df.__file__).parents[1])!r})
import diffuse_fast
diffuse_fast.__path__.append({str(Path(_core.__file__).parent)!r})
"""
    code = """
try:
    import _interpreters as interpreters  # Python 3.13
except ImportError:
    import _xxsubinterpreters as interpreters
one = interpreters.create()
interpreters.run_string(one, '''FOUND
from diffuse_fast.errors import DiffuseFastError
try:
    from diffuse_fast import _core
except DiffuseFastError as error:
    assert isinstance(error, RuntimeError)
    print("refused:", error, flush=True)
''')
from diffuse_fast import _core
print("here:", _core.num_threads() > 0)
"""
    out = run(code.replace("FOUND", found))
    assert "refused: diffuse_fast runs in the first interpreter" in out and "here: True" in out


@pytest.mark.parametrize(("said", "threads"), [("1", 1), ("3", 3), ("9999", 1024)])
def test_the_environment_says_how_many_threads_there_are(said, threads, monkeypatch):
    monkeypatch.setenv("DIFFUSE_FAST_NUM_THREADS", said)
    assert run("from diffuse_fast import _core; print(_core.num_threads())").split() == [str(threads)]
