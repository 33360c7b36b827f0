"""A complete run, in a process of its own, with the kernel forced through the environment."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys

import numpy as np
import pytest

import diffuse_fast as df
from diffuse_fast.kernels import kernels

CODE = """
import sys, numpy as np, diffuse_fast as df
def f(x, t):
    return np.tanh(x)
x = df.sample(f, 3, 8, solver="ddpm", seed=5, shape=(2, 37), schedule=df.Schedule.linear(), prediction_type="epsilon", clip=(-1, 1))
sys.stdout.buffer.write(x.tobytes())
"""


def run(kernel: str) -> subprocess.CompletedProcess:
    environment = {**os.environ, "DIFFUSE_FAST_KERNEL": kernel}
    return subprocess.run([sys.executable, "-c", CODE], env=environment, capture_output=True)


@pytest.fixture(scope="module")
def unforced() -> bytes:
    def f(x, t):
        return np.tanh(x)

    return df.sample(
        f, 3, 8, solver="ddpm", seed=5, shape=(2, 37), schedule=df.Schedule.linear(), prediction_type="epsilon", clip=(-1, 1)
    ).tobytes()


COMPILED = [k.name for k in kernels() if k.device == "cpu" and k.name != "reference"]


@pytest.mark.parametrize("kernel", COMPILED)
def test_every_kernel_draws_the_same_bits_or_says_that_it_cannot(kernel, unforced):
    done = run(kernel)
    if any(k.name == kernel and k.unavailable for k in kernels()):
        assert done.returncode != 0
        assert b"UnavailableError" in done.stderr
        pytest.skip(f"this machine has no {kernel}; it was refused by name")
    assert done.returncode == 0, done.stderr
    assert hashlib.sha256(done.stdout).hexdigest() == hashlib.sha256(unforced).hexdigest()


def test_the_oracle_can_be_forced_and_agrees(unforced):
    done = run("reference")
    assert done.returncode == 0, done.stderr
    np.testing.assert_allclose(np.frombuffer(done.stdout, np.float32), np.frombuffer(unforced, np.float32), atol=2e-5)


@pytest.mark.parametrize("kernel", ["cuda", "triton", "avx1024"])
def test_a_forced_kernel_that_is_not_there_is_an_error(kernel):
    if any(k.name == kernel and k.unavailable is None for k in kernels()):
        pytest.skip(f"this machine has {kernel}")
    done = run(kernel)
    assert done.returncode != 0
    assert b"UnavailableError" in done.stderr
    assert kernel.encode() in done.stderr
