"""Tests on a real GPU: ``pytest -m gpu``. Without one they are skipped, and the reason says what is missing."""

from __future__ import annotations

import pytest

from diffuse_fast.engine.devices.choose import core_reasons, torch_reasons
from diffuse_fast.kernels import kernels


@pytest.fixture
def cuda():
    """torch, if it can use a CUDA device and a kernel runs there."""
    missing = torch_reasons()
    if all(k.unavailable for k in kernels() if k.device == "cuda"):
        missing += [f"{k.name}: {k.unavailable}" for k in kernels() if k.device == "cuda"]
    if missing:
        pytest.skip(f"no CUDA device for torch: {'; '.join(missing)}")
    import torch

    return torch


@pytest.fixture
def core_cuda():
    """Skips the test unless artifacts can be sampled on a CUDA device."""
    if missing := core_reasons():
        pytest.skip(f"no CUDA device for model files: {'; '.join(missing)}")


@pytest.fixture(params=["triton", "cuda"])
def kernel(request, cuda):
    """A CUDA kernel that can run here, forced by name."""
    info = next(k for k in kernels() if k.name == request.param)
    if info.unavailable is not None:
        pytest.skip(f"{info.name}: {info.unavailable}")
    return info.name
