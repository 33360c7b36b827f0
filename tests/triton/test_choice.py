"""When the Triton kernel can be chosen, and the error otherwise."""

from __future__ import annotations

import ctypes
import dataclasses
import importlib.util
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from diffuse_fast.errors import UnavailableError
from diffuse_fast.kernels import get_kernel, kernels, registry, step
from diffuse_fast.kernels import triton as host
from diffuse_fast.plans.plan import Row

CODE = """
import sys
from diffuse_fast.kernels import get_kernel, kernels
names = [k.name for k in kernels()]
get_kernel(), get_kernel("scalar")
print("triton" in names, [m for m in ("torch", "triton") if m in sys.modules])
"""


def _no_driver() -> bool:
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return True
    return False


@pytest.mark.skipif(not _no_driver(), reason="this machine has an NVIDIA driver: to ask it loads torch")
def test_listing_kernels_loads_neither_torch_nor_triton():
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    assert done.stdout.split(maxsplit=1) == ["True", "[]\n"]


@pytest.mark.parametrize("missing", ["triton", "torch"])
def test_a_missing_package_is_named(monkeypatch, missing):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == missing else find(name, *rest))
    assert f"{missing} is not installed" in host.unavailable_reason()


@pytest.mark.parametrize(
    ("driver", "cuda", "answers", "reason"),
    [
        (False, "13.0", True, "no NVIDIA driver (libcuda.so.1)"),
        (True, None, False, "is built without CUDA"),
        (True, "13.0", False, "no CUDA device answers"),
        (True, "13.0", True, None),
    ],
)
def test_the_missing_part_is_named(monkeypatch, driver, cuda, answers, reason):
    def load(name):
        if not driver:
            raise OSError(name)

    device = SimpleNamespace(is_available=lambda: answers)
    torch = SimpleNamespace(__version__="2.0", version=SimpleNamespace(cuda=cuda), cuda=device)
    monkeypatch.setattr(importlib.util, "find_spec", lambda *name: object())
    monkeypatch.setattr(ctypes, "CDLL", load)
    monkeypatch.setitem(sys.modules, "torch", torch)
    why = host.unavailable_reason()
    assert why is None if reason is None else reason in why


def test_a_kernel_refuses_data_on_another_device(monkeypatch):
    with pytest.raises(UnavailableError, match="'scalar' was forced and runs on cpu; the data are on cuda"):
        get_kernel("scalar", device="cuda")
    kernel = dataclasses.replace(registry._IMPLEMENTATIONS["triton"], unavailable=lambda: None)
    monkeypatch.setitem(registry._IMPLEMENTATIONS, "triton", kernel)
    monkeypatch.setattr(host, "TritonKernel", lambda: SimpleNamespace(name="triton", device="cuda"))
    registry._get.cache_clear()
    try:
        assert get_kernel(device="cuda").name == "triton"  # the default for tensors
        x = np.zeros((1, 4), np.float32)
        with pytest.raises(UnavailableError, match="'triton' was forced and runs on cuda; the data are on cpu"):
            step(x, x, Row(a=1.0), kernel="triton")
    finally:
        registry._get.cache_clear()


@pytest.mark.skipif(any(k.device == "cuda" and k.unavailable is None for k in kernels()), reason="a kernel for CUDA runs here")
def test_without_a_device_every_reason_is_given():
    with pytest.raises(UnavailableError, match=r"no step kernel runs on a CUDA device here \(triton: .+; cuda: .+\)"):
        get_kernel(device="cuda")
    with pytest.raises(UnavailableError, match="'triton' was forced and cannot run: "):
        get_kernel("triton")
