"""Choose the device, network and step kernel for a model."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from typing import Any

from ... import _core
from ...errors import ArgumentError, UnavailableError, install_hint
from ...kernels import get_kernel, kernels
from ...kernels.registry import ENVIRONMENT
from ...runtimes.registry import CUDA_ONLY, device_network, kind
from .base import Backend, Device

GRAPHS = ("auto", "tick", "trajectory", "none")


def backend_for(model: Any, runtime: str, device: str, graph: str = "auto") -> Backend | None:
    """Return the device that a model is sampled on, with its network and kernel; None for the CPU.

    With ``device="auto"`` a torch module is sampled on its own device, everything else on the CPU.

    Raises:
        ArgumentError: ``graph`` is unknown, or the device or runtime has no graphs of that kind.
        UnavailableError: the device cannot be used; the message names everything that is missing.
    """
    if graph not in GRAPHS:
        raise ArgumentError(f"graph is {graph!r}; it must be one of {', '.join(map(repr, GRAPHS))}.")
    index = _index(device)
    what = kind(model)
    if device == "auto" and what == "module":
        index = _device_of(model)
    if index is None:
        if graph not in ("auto", "none"):
            raise ArgumentError(f"graph is {graph!r}, which is for the device 'cuda'; this model is sampled on the CPU.")
        if runtime in CUDA_ONLY:
            raise UnavailableError(f"the runtime {runtime!r} is for the device 'cuda'; say device='cuda'.")
        forced = _core.environment(ENVIRONMENT)
        if forced and any(k.name == forced and k.device == "cuda" and k.unavailable is None for k in kernels()):
            raise UnavailableError(f"{ENVIRONMENT}={forced} steps on the device 'cuda'; this model is sampled on the CPU.")
        return None
    if what == "session":
        raise UnavailableError(
            "device is 'cuda', but a session that exists has a stream of its own, which the step cannot join; give the model file."
        )
    torch_runs = what in ("module", "callable")
    missing = torch_reasons(index) if torch_runs else core_reasons()
    if missing:
        raise UnavailableError(f"the device 'cuda:{index}' cannot be used: {'; '.join(missing)}.")
    if what == "module" and (at := _device_of(model)) != index:
        where = "the CPU" if at is None else f"cuda:{at}"
        raise UnavailableError(
            f"device is {device!r}, but the module is on {where}; move it: module.to('cuda:{index}'), or leave device out."
        )
    if torch_runs:
        from .torch import TorchDevice

        place: Device = TorchDevice(index)
    else:
        from .core import core_device

        place = core_device(index)
    if graph == "trajectory" and not place.captures:
        raise ArgumentError("graph is 'trajectory', but onnxruntime captures single calls; give 'tick' or 'none'.")
    network = device_network(model, runtime, index=index, stream=place.stream, graph=graph)
    return Backend(place, network, device_kernel(place))


def device_kernel(device: Device) -> Any:
    """Return the kernel that ``DIFFUSE_FAST_KERNEL`` names, or the first of the device's kernels that can run.

    Raises:
        UnavailableError: no kernel can run, or the forced one does not take this device's arrays.
    """
    forced = _core.environment(ENVIRONMENT)
    if forced:
        chosen = get_kernel(forced)
        if forced not in device.kernels:
            takes = " and ".join(device.kernels)
            raise UnavailableError(f"{ENVIRONMENT}={forced}, but on {device.name} the step here runs on {takes}.")
        return chosen
    known = {k.name: k.unavailable for k in kernels()}
    for name in device.kernels:
        if known[name] is None:
            return get_kernel(name)
    raise UnavailableError(
        f"no kernel can step on {device.name}: " + "; ".join(f"{name}: {known[name]}" for name in device.kernels) + "."
    )


def torch_reasons(index: int = 0) -> list[str]:
    """List what torch lacks to sample on a CUDA device; empty if nothing is missing. Imports torch."""
    if importlib.util.find_spec("torch") is None:
        return ["torch is not installed"]
    import torch

    from ...kernels.triton import driver_reason

    if torch.version.cuda is None:
        missing = [f"torch {torch.__version__} is built without CUDA"]
        return missing if (why := driver_reason()) is None else [*missing, why]
    if not torch.cuda.is_available():
        return [f"torch {torch.__version__} finds no CUDA driver or device"]
    count = torch.cuda.device_count()
    return [] if index < count else [f"this machine has {count} CUDA devices, from cuda:0 to cuda:{count - 1}"]


def core_reasons() -> list[str]:
    """List what the compiled core and onnxruntime lack to sample on a CUDA device without torch. Does not load onnxruntime."""
    out = []
    if (why := _core.cuda_unavailable_reason()) is not None:
        out.append(why)
    if (why := onnxruntime_reason()) is not None:
        out.append(why)
    return out


def onnxruntime_reason() -> str | None:
    """Return why onnxruntime cannot run on CUDA, judged by its files; ``get_available_providers`` lists CUDA even without a GPU."""
    spec = importlib.util.find_spec("onnxruntime")
    if spec is None or spec.origin is None:
        return f"onnxruntime is not installed: {install_hint('gpu')}"
    if not any(Path(spec.origin).parent.glob("capi/*onnxruntime_providers_cuda*")):
        return f"onnxruntime is built without CUDA: pip uninstall onnxruntime, then {install_hint('gpu')}"
    return None


def torch_build_reason() -> str | None:
    """Return why torch cannot sample on CUDA, judged by its files. Does not import torch."""
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        return "torch is not installed"
    version: dict[str, Any] = {}
    exec((Path(spec.origin).parent / "version.py").read_text(encoding="utf-8"), version)
    return None if version.get("cuda") else f"torch {version.get('__version__')} is built without CUDA"


def _index(device: Any) -> int | None:
    """Return the number of a CUDA device; None for ``cpu`` and ``auto``."""
    if device in ("auto", "cpu"):
        return None
    match = re.fullmatch(r"cuda(?::(\d+))?", device) if isinstance(device, str) else None
    if match is None:
        raise UnavailableError(f"device is {device!r}; there are 'auto', 'cpu', 'cuda' and 'cuda:N'.")
    return int(match[1] or 0)


def _device_of(module: Any) -> int | None:
    """Return the number of the CUDA device that holds a module; None for the CPU."""
    places = {tensor.device for tensor in (*module.parameters(), *module.buffers())}
    if not any(place.type == "cuda" for place in places):
        return None
    if len(places) > 1:
        raise UnavailableError(f"the module has tensors on {', '.join(sorted(map(str, places)))}; move it to one device.")
    (place,) = places
    return place.index if place.index is not None else sys.modules["torch"].cuda.current_device()
