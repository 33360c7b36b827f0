"""Which device a model is sampled on, and what is said where that cannot be, from Python and from the command line."""

from __future__ import annotations

import re
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import pytest

import diffuse_fast as df
from diffuse_fast import _core
from diffuse_fast.engine.devices import choose as devices
from diffuse_fast.errors import ArgumentError, UnavailableError

LINEAR = df.Schedule.linear()
KNOWN = {"shape": (2,), "schedule": LINEAR, "prediction_type": "epsilon", "seed": 0}

no_gpu = pytest.mark.skipif(_core.cuda_unavailable_reason() is None, reason="this machine has a GPU, and the core can use it")


@no_gpu
@pytest.mark.parametrize("device", ["cuda", "cuda:1"])
def test_an_artifact_without_a_gpu_lists_all_that_is_missing(device):
    with pytest.raises(UnavailableError) as error:
        df.sample("digits", 1, 2, device=device)
    text = str(error.value)
    assert f"device '{'cuda:1' if device == 'cuda:1' else 'cuda:0'}' cannot be used" in text
    for reason in devices.core_reasons():
        assert reason in text
    assert _core.cuda_unavailable_reason() in text


@pytest.mark.parametrize("what", ["module", "function"])
def test_torch_without_cuda_is_named(what):
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU, and torch can use it")
    with pytest.raises(UnavailableError, match=re.escape(f"torch {torch.__version__} ")):
        df.sample(torch.nn.Linear(2, 2).eval() if what == "module" else lambda x, t: x, 1, 2, device="cuda", **KNOWN)


@no_gpu
def test_the_command_line_says_the_same_with_a_status_of_its_own(tmp_path, monkeypatch):
    pytest.importorskip("typer")
    from typer.testing import CliRunner

    from diffuse_fast.cli.app import UNAVAILABLE, app

    monkeypatch.chdir(tmp_path)
    with pytest.raises(UnavailableError) as error:
        df.sample("digits", 1, 2, device="cuda")
    result = CliRunner().invoke(app, ["sample", "digits", "-n", "1", "--steps", "2", "--device", "cuda"])
    assert result.exit_code == UNAVAILABLE == 3
    assert str(error.value) in result.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("device", ["gpu", "cuda:", "cuda:x", "cuda:-1", "mps", 0])
def test_an_unknown_device_lists_those_there_are(device):
    with pytest.raises(UnavailableError, match="there are 'auto', 'cpu', 'cuda' and 'cuda:N'"):
        df.sample("digits", 1, 2, device=device)


@pytest.mark.parametrize("device", ["auto", "cpu"])
def test_the_cpu_is_where_everything_else_is(device):
    expected = df.sample("digits", 1, 2, seed=0)
    np.testing.assert_array_equal(df.sample("digits", 1, 2, seed=0, device=device, graph="none"), expected)


@pytest.mark.parametrize(("graph", "said"), [("tick", "is for the device 'cuda'"), ("fast", "must be one of 'auto', 'tick'")])
def test_graphs_are_for_devices(graph, said):
    with pytest.raises(ArgumentError, match=said):
        df.sample("digits", 1, 2, graph=graph)


def test_the_runtime_tensorrt_is_for_devices():
    with pytest.raises(UnavailableError, match="say device='cuda'"):
        df.sample("digits", 1, 2, runtime="tensorrt")


# ---- a module's own place, without a GPU: only what `device` says of its tensors is looked at ---------------------------------


class Place(NamedTuple):
    type: str
    index: int | None


def module(*places):
    tensors = [SimpleNamespace(device=Place(*place)) for place in places]
    return SimpleNamespace(parameters=lambda: iter(tensors), buffers=lambda: iter(()))


def test_the_device_of_a_module():
    assert devices._device_of(module(("cpu", None), ("cpu", None))) is None
    assert devices._device_of(module(("cuda", 1), ("cuda", 1))) == 1


def test_a_module_on_two_devices_is_refused():
    with pytest.raises(UnavailableError, match="move it to one device"):
        devices._device_of(module(("cuda", 0), ("cuda", 1)))


@pytest.fixture
def with_torch_gpus(monkeypatch):
    """As if torch could use two devices."""
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(devices, "torch_reasons", lambda index=0: [] if index < 2 else ["this machine has 2 CUDA devices"])
    return torch


@pytest.mark.parametrize("driver", [None, "this machine has no NVIDIA driver (libcuda.so.1)"])
def test_what_torch_lacks_is_listed_at_once(monkeypatch, driver):
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(torch.version, "cuda", None)
    monkeypatch.setattr("diffuse_fast.kernels.triton.driver_reason", lambda: driver)
    with pytest.raises(UnavailableError) as error:
        df.sample(torch.nn.Linear(2, 2).eval(), 1, 2, device="cuda", **KNOWN)
    said = [f"torch {torch.__version__} is built without CUDA", *([driver] if driver else [])]
    assert str(error.value) == f"the device 'cuda:0' cannot be used: {'; '.join(said)}."


def test_a_module_elsewhere_is_not_moved(with_torch_gpus):
    with pytest.raises(UnavailableError, match=r"the module is on the CPU; move it: module.to\('cuda:1'\)"):
        df.sample(with_torch_gpus.nn.Linear(2, 2).eval(), 1, 2, device="cuda:1", **KNOWN)


def test_a_session_is_refused(with_torch_gpus):
    ort = pytest.importorskip("onnxruntime")
    session = ort.InferenceSession(df.load("digits").path, providers=["CPUExecutionProvider"])
    with pytest.raises(UnavailableError, match="a stream of its own, which the step cannot join"):
        df.sample(session, 1, 2, device="cuda", **KNOWN)


# ---- the kernel on a device ------------------------------------------------------------------------------------------------


TORCH_DEVICE = SimpleNamespace(name="cuda:0", kernels=("triton", "cuda"))


def info(name, unavailable=None):
    return SimpleNamespace(name=name, device="cuda", unavailable=unavailable)


@pytest.fixture
def kernels_there(monkeypatch):
    def there(*infos):
        monkeypatch.setattr(devices, "kernels", lambda: infos)
        monkeypatch.setattr(devices, "get_kernel", lambda name: name)

    monkeypatch.delenv("DIFFUSE_FAST_KERNEL", raising=False)
    return there


def test_the_first_kernel_that_can_run_steps(kernels_there):
    kernels_there(info("cuda"), info("triton"))
    assert devices.device_kernel(TORCH_DEVICE) == "triton"
    kernels_there(info("cuda"), info("triton", "triton is not installed"))
    assert devices.device_kernel(TORCH_DEVICE) == "cuda"
    kernels_there(info("cuda", "no driver"), info("triton", "triton is not installed"))
    with pytest.raises(UnavailableError, match="triton: triton is not installed; cuda: no driver"):
        devices.device_kernel(TORCH_DEVICE)


def test_a_forced_kernel_steps_or_is_refused(kernels_there, monkeypatch):
    kernels_there(info("cuda"), info("triton"))
    monkeypatch.setenv("DIFFUSE_FAST_KERNEL", "cuda")
    assert devices.device_kernel(TORCH_DEVICE) == "cuda"
    with pytest.raises(UnavailableError, match="DIFFUSE_FAST_KERNEL=cuda steps on the device 'cuda'"):
        devices.backend_for(lambda x, t: x, "auto", "auto")
    monkeypatch.setenv("DIFFUSE_FAST_KERNEL", "avx2")
    with pytest.raises(UnavailableError, match="avx2, but on cuda:0 the step here runs on triton and cuda"):
        devices.device_kernel(TORCH_DEVICE)
