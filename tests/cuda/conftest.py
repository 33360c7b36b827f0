"""The compiled CUDA step on a device emulated on the host (on_host/): ``diffuse_fast.kernels.cuda`` runs on it as on a GPU.

Everything is the real code but for the driver: the bindings, the host's side of the step, and the kernels, compiled as C++.
"""

from __future__ import annotations

import fcntl
import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from diffuse_fast.kernels import cuda, device_array

ROOT = Path(__file__).parents[2]
BUILD = ROOT / "build" / "cuda_on_host"


@pytest.fixture(scope="session")
def module():
    """The path of the module, rebuilt when its sources change."""
    if importlib.util.find_spec("pybind11") is None or shutil.which("ninja") is None or shutil.which("cmake") is None:
        pytest.skip("cmake, ninja or pybind11 is not installed")
    import pybind11

    # This environment's tools first: the build's requirements are installed there.
    environment = {**os.environ, "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])}
    # -O1 halves the compile time, and no option changes a bit.
    configure = ["cmake", "-S", ROOT, "-B", BUILD, "-G", "Ninja", "-DUSE_CUDA=OFF", "-DDIFFUSE_FAST_TESTS=ON",
                 "-DCMAKE_BUILD_TYPE=Debug", "-DCMAKE_CXX_FLAGS_DEBUG=-O1", f"-DPython_EXECUTABLE={sys.executable}",
                 f"-Dpybind11_DIR={pybind11.get_cmake_dir()}"]  # fmt: skip
    BUILD.mkdir(parents=True, exist_ok=True)
    with (BUILD / "lock").open("w") as lock:  # tests run in several processes
        fcntl.flock(lock, fcntl.LOCK_EX)
        for command in (configure, ["cmake", "--build", BUILD, "--parallel", "2", "--target", "_cuda_on_host"]):
            done = subprocess.run(command, env=environment, capture_output=True, text=True)
            assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    (path,) = (BUILD / "tests" / "cuda").glob("_cuda_on_host*.so")
    return path


@pytest.fixture(scope="session")
def on_host(module):
    """The module."""
    spec = importlib.util.spec_from_file_location("_cuda_on_host", module)
    assert spec is not None and spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


@pytest.fixture
def core(on_host, monkeypatch):
    """The module, in place of the compiled core in the modules that use CUDA."""
    monkeypatch.setattr(cuda, "_core", on_host)
    monkeypatch.setattr(device_array, "_core", on_host)
    yield on_host
    on_host.finish()
