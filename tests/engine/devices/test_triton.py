"""The engine on a device together with the Triton kernel, through triton's interpreter: the bits are those of the CPU engine."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("torch", "triton", "diffuse_fast.kernels.triton")),
    reason="needs torch and triton",
)
def test_the_engine_on_the_interpreted_kernel():
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    environment.pop("DIFFUSE_FAST_KERNEL", None)
    script = Path(__file__).parent / "interpreted_engine.py"
    done = subprocess.run([sys.executable, script], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr[-4000:]
