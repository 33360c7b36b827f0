"""What sampling does per step, counted: figures that no noisy machine can change. A timing is no test; these are."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tracemalloc
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

import diffuse_fast as df
from bench.calls import warm_sample
from bench.cases.solvers import _heaviest, moved

FEW, MANY = 10, 110
# What this version does. Less is progress, and is written down here; more is a loss that no timing in CI would show.
MOST_CALLS = {"onnx": 5, "callable": 9}  # Python functions entered per step: the runtime's call, and what it asks of the time
MOST_COMPILED_CALLS = {"onnx": 7, "callable": 11}  # per step: the network, the step, and what sets the time
MOST_CALLS_BEFORE, MOST_MOVES_BEFORE = 107, 54  # of a warm df.sample, before the network's first call; moves between files
NODES = 193


def _zeros(x, t):
    return _zeros.output[: len(x)]


_zeros.output = np.zeros((2, 3, 8, 8), np.float32)


def _sampler(runtime, steps, solver="ddim"):
    if runtime == "onnx":
        model = df.load("digits")
        return df.Sampler(model, df.plan(model.schedule, solver, steps, prediction_type=model.prediction_type))
    return df.Sampler(_zeros, df.plan(df.Schedule.linear(), solver, steps, prediction_type="epsilon"), shape=(3, 8, 8))


def _calls(sampler):
    """Events of one warm run."""
    counts = Counter()
    sampler.sample(2, seed=0)
    sys.setprofile(lambda frame, event, argument: counts.update((event,)))
    try:
        sampler.sample(2, seed=0)
    finally:
        sys.setprofile(None)
    return counts


@pytest.mark.parametrize("runtime", MOST_CALLS)
def test_python_calls_per_step(runtime):
    few, many = _calls(_sampler(runtime, FEW)), _calls(_sampler(runtime, MANY))
    assert (many["call"] - few["call"]) / (MANY - FEW) <= MOST_CALLS[runtime]
    assert (many["c_call"] - few["c_call"]) / (MANY - FEW) <= MOST_COMPILED_CALLS[runtime]


def test_python_calls_before_the_first_network_call():
    calls = warm_sample()
    assert calls.total <= MOST_CALLS_BEFORE
    assert calls.moves <= MOST_MOVES_BEFORE


@pytest.mark.parametrize("solver", ["ddim", "ddpm", "dpmpp_2m", "unipc"])
def test_one_network_call_per_evaluation(solver):
    calls = []

    def network(x, t):
        calls.append(float(t[0]))
        return np.zeros_like(x)

    plan = df.plan(df.Schedule.linear(), solver, 10, prediction_type="epsilon")
    df.Sampler(network, plan, shape=(2, 4)).sample(3, seed=0)
    assert calls == [row.timestep for row in plan.rows if row.calls_network]
    assert len(calls) == plan.nfe


@pytest.mark.parametrize("runtime", MOST_CALLS)
def test_python_memory_does_not_grow_with_steps(runtime):
    def peak(steps):
        sampler = _sampler(runtime, steps)
        sampler.sample(2, seed=0)
        return min(traced(sampler) for _ in range(5))  # what other threads allocate meanwhile is not in every one

    def traced(sampler):
        tracemalloc.start()
        try:
            sampler.sample(2, seed=0)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    state = 2 * 3 * 8 * 8 * 4
    assert peak(MANY) <= peak(FEW) + state / 4  # less than any array of the batch


STEPS_WITHOUT_MALLOC = """
import ctypes, numpy as np, diffuse_fast as df
from diffuse_fast.kernels import get_kernel, set_num_threads
set_num_threads(2)
plan = df.plan(df.Schedule.linear(), "{solver}", 100, prediction_type="epsilon")
x, m = np.zeros((4, 3, 32, 32), np.float32), np.ones((4, 3, 32, 32), np.float32)
bank = np.zeros((max(plan.registers, 1), *x.shape), np.float32)
bound = get_kernel().bind(plan.rows, x=x, out=x, outputs=[m], registers=bank, seeds=np.zeros(4, np.uint64),
                          indices=np.arange(4, dtype=np.uint32))
count = ctypes.CDLL(None).allocations
count.restype = ctypes.c_ulong
rows = range(len(plan.rows))
run = bound.run
for i in rows: run(i, i)
before = count()
for i in rows: run(i, i)
print(count() - before)
"""


@pytest.mark.skipif(sys.platform != "linux" or shutil.which("cc") is None, reason="needs cc, and glibc's way of preloading")
@pytest.mark.parametrize("solver", ["ddim", "ddpm", "unipc"])
def test_a_hundred_steps_allocate_nothing(tmp_path, solver):
    library = tmp_path / "count.so"
    source = Path(__file__).with_name("count_mallocs.c")
    subprocess.run(["cc", "-O1", "-shared", "-fPIC", "-o", library, source], check=True)
    done = subprocess.run(
        [sys.executable, "-c", STEPS_WITHOUT_MALLOC.format(solver=solver)], check=True, capture_output=True, text=True,
        env={**os.environ, "LD_PRELOAD": str(library)},
    )  # fmt: skip
    # Python's own objects come from its pools; two calls ask for the counter's result and the loop's frame.
    assert int(done.stdout) <= 2


@pytest.mark.parametrize(
    ("solver", "bytes_per_element"),
    # Reads the state and the network's output, writes the state; every register read or written is 4 more.
    [("ddim", 12), ("euler", 12), ("ddpm", 12), ("dpmpp_2m", 20), ("dpmpp_3m", 24), ("lms", 28)],
)
def test_bytes_per_element(solver, bytes_per_element):
    assert moved(_heaviest(solver)) == bytes_per_element


def test_nodes_of_the_bundled_network():
    onnx = pytest.importorskip("onnx")
    assert len(onnx.load(df.load("digits").path).graph.node) <= NODES
