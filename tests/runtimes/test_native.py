"""The runtime ``native`` on a bundled model, against onnxruntime."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys

import numpy as np
import pytest

import diffuse_fast as df
from diffuse_fast import _core
from diffuse_fast.errors import ArgumentError, UnavailableError
from diffuse_fast.runtimes import network, select
from diffuse_fast.runtimes.native import instruction_set

SHAPE = (1, 8, 8)


@pytest.fixture(scope="module")
def digits():
    return df.load("digits")


def label(*values):
    return {"label": np.array(values, np.int64)}


def call(model, runtime, times, labels, seed=0):
    bound = network(model, runtime, threads=1).bind(len(labels), SHAPE, label(*labels))
    bound.x[...] = np.random.default_rng(seed).normal(size=bound.x.shape)
    return bound(times).copy()


@pytest.mark.parametrize("times", [500.0, np.array([3.0, 500.0, 3.0, 999.0])])
def test_digits_as_in_onnxruntime(digits, times):
    pytest.importorskip("onnxruntime")
    labels = [1, 2, 1, 9]
    expected = call(digits, "onnx", times, labels)
    assert np.abs(call(digits, "native", times, labels) - expected).max() <= 3e-6 * np.abs(expected).max()


def test_a_sample_has_its_bits_in_any_batch(digits):
    together = call(digits, "native", np.array([3.0, 500.0, 7.0]), [1, 2, 3])
    bound = network(digits, "native").bind(1, SHAPE, label(2))
    bound.x[...] = np.random.default_rng(0).normal(size=(3, *SHAPE)).astype(np.float32)[1]
    assert bound(500.0).tobytes() == together[1:2].tobytes()
    bound.condition(label(5))
    assert bound(500.0).tobytes() != together[1:2].tobytes()
    bound.condition(label(2))
    assert bound(500.0).tobytes() == together[1:2].tobytes()


def test_samples_of_50_steps_are_within_the_spread_of_the_other_runtimes(digits):
    for package in ("onnxruntime", "openvino"):
        pytest.importorskip(package)

    def draw(runtime, precision="float32"):
        cond = {"label": np.arange(16) % 10}
        return df.sample(digits, 16, 50, solver="ddim", seed=0, cond=cond, runtime=runtime, precision=precision, threads=1)

    def distance(a, b):
        return np.abs(a - b).max()

    others = [draw(runtime) for runtime in ("onnx", "openvino")]
    spread = max(distance(a, b) for a, b in itertools.combinations(others, 2))
    exact = draw("native")
    assert distance(exact, np.median(others, 0)) <= spread
    lo, hi = digits.value_range
    assert 0 < distance(draw("native", "float32-fast"), exact) <= 1e-4 * (hi - lo)


def test_errors(digits):
    bound = network(digits, "native").bind(2, SHAPE, label(0, 1))
    with pytest.raises(ArgumentError, match="not an integer"):
        bound(0.5)
    with pytest.raises(ArgumentError, match="conditioning input 'label'"):
        network(digits, "native").bind(2, SHAPE, {})
    with pytest.raises(ArgumentError, match="shape"):
        network(digits, "native").bind(2, (1, 9, 9), label(0, 1))


def test_auto_chooses_it(digits):
    assert select(digits).name == select(digits, "native").name == "native"
    assert select(digits, precision="int8" if digits.quantization else "bfloat16").name != "native"


def test_the_forced_instruction_set(digits, monkeypatch):
    reasons = dict(_core.kernels())
    for name, reason in reasons.items():
        monkeypatch.setenv("DIFFUSE_FAST_KERNEL", name)
        if reason is None:
            assert instruction_set() == name
        else:
            with pytest.raises(UnavailableError, match=name):
                instruction_set()
    monkeypatch.setenv("DIFFUSE_FAST_KERNEL", "reference")  # a kernel of the step alone
    assert reasons[instruction_set()] is None


def test_same_bits_with_every_forced_instruction_set():
    code = """
import numpy as np, diffuse_fast as df, hashlib
from diffuse_fast.runtimes import network
bound = network(df.load("digits"), "native").bind(3, (1, 8, 8), {"label": np.array([1, 2, 3])})
bound.x[...] = np.random.default_rng(0).normal(size=bound.x.shape)
print(hashlib.sha256(bound(321.0).tobytes()).hexdigest())
"""
    found = {
        subprocess.run(
            [sys.executable, "-c", code], env={**os.environ, "DIFFUSE_FAST_KERNEL": isa}, capture_output=True, text=True, check=True
        ).stdout
        for isa, reason in _core.kernels()
        if reason is None
    }
    assert len(found) == 1


FORKS = """
import threading
bound = network(model, "native", threads=2).bind(2, (1, 8, 8), {"label": np.array([1, 2])})
stop = threading.Event()

def busy():  # holds the lock of the rows for nearly all of the time
    first = 0
    while not stop.is_set():
        bound._network.core.prepare_times(np.arange(first, first + 256, dtype=np.float32))
        first += 256

thread = threading.Thread(target=busy, daemon=True)
thread.start()
for n in range(20):
    pid = os.fork()
    if pid == 0:
        signal.alarm(20)
        bound(float(n))
        os._exit(0)
    if os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]):
        sys.exit(f"child {n} hung")
stop.set()
thread.join()

def child():
    return np.isfinite(bound(500.0)).all()
"""


def test_a_fork_during_a_call(digits, forked):
    """The child went on to wait for a lock that a thread of the parent had held."""
    forked(FORKS, digits.path)
