"""Runs interpreted.py, the tests of the Triton kernel's arithmetic, in processes that use triton's interpreter."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from diffuse_fast.kernels.triton import unavailable_reason

pytestmark = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed")

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
SINGLE_ROWS = "row or half or random"


BITS = "bits or sizes or in_place or stand or beside"


def run(*arguments: str, interpret: str = "1") -> None:
    """Run pytest on interpreted.py, and show its output if it fails."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:xdist", "-p", "no:cacheprovider", HERE / "interpreted.py", *arguments],
        cwd=ROOT, env={**environment, "TRITON_INTERPRET": interpret}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr[-4_000:]


@pytest.mark.parametrize("part", [SINGLE_ROWS, f"not ({SINGLE_ROWS})"])
def test_the_interpreted_kernel(part):
    run("-m", "not slow", "-k", part)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_every_variant_of_the_interpreted_kernel():
    run("-m", "slow")


@pytest.mark.gpu
@pytest.mark.timeout(1800)
def test_the_compiled_kernel_has_the_bits_of_the_cpu():
    if (why := unavailable_reason()) is not None:
        pytest.skip(why)
    run("-k", BITS, interpret="0")
