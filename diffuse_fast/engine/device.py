"""Where the engine runs beside the CPU: the seam to a device, and which device, network and kernel a model gets.

The engine's own logic (what is captured when, which memory is static, what is counted) is above this seam and knows no driver.
"""

from __future__ import annotations

import importlib.util
import re
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from .. import _core
from ..errors import ArgumentError, UnavailableError, install_hint
from ..kernels import get_kernel, kernels
from ..kernels.registry import ENVIRONMENT
from ..kernels.triton import driver_reason
from ..runtimes.base import DeviceNetwork, Memory
from ..runtimes.registry import TENSORRT, device_network, kind

GRAPHS = ("auto", "tick", "trajectory", "none")


class Graph(Protocol):
    """Captured work: the same kernels on the same memory, as often as asked."""

    def replay(self) -> None:
        """Enqueue it. Nothing waits."""
        ...


class Device(Memory, Protocol):
    """Memory and an order of work. Nothing here waits for the device but :meth:`download` and :meth:`synchronize`.

    Attributes:
        name: ``cuda:0``.
        kernels: Step kernels that take its arrays, best first.
        captures: Whether it captures graphs.
        stream: Handle of the stream that work goes to now.
    """

    kernels: tuple[str, ...]
    captures: bool

    @property
    def stream(self) -> int | None: ...

    def scope(self) -> AbstractContextManager[None]:
        """What must surround all work on it."""
        ...

    def part(self, array: Any, i: int) -> Any:
        """Entry i of the first axis, the same memory."""
        ...

    def download(self, array: Any) -> np.ndarray:
        """A copy on the host."""
        ...

    def own(self, array: Any, as_tensor: bool) -> Any:
        """A copy for the caller: a tensor on this device, or NumPy."""
        ...

    def take(self, name: str, value: Any) -> Any:
        """What some library has on this device, as an array of the device's own: the same memory. ``name`` is for messages.

        Raises:
            ArgumentError, ArgumentTypeError: it is elsewhere, not contiguous where it must be, or not numbers.
        """
        ...

    def take_noise(self, name: str, value: Any) -> Any:
        """As :meth:`take`, of a dtype that :meth:`start` reads."""
        ...

    def stack(self, arrays: list[Any]) -> Any:
        """Arrays of the host and of this device, of one shape and dtype, in new memory along a first axis. It has read them when it
        returns."""
        ...

    def start(self, noise: Any, scale: float, into: Any) -> None:
        """``into`` becomes ``scale`` times the noise, which is on the host, or is this device's own: then the caller keeps it until
        the work is done."""
        ...

    def warm_up(self, run: Callable[[], Any]) -> Any:
        """Run what will be captured, so that what is made lazily is there. Returns its result."""
        ...

    def pool(self) -> Any:
        """A pool for graphs that never run at the same time."""
        ...

    def capture(self, run: Callable[[], None], pool: Any) -> Graph:
        """Record the work that ``run`` enqueues, without doing it.

        Raises:
            NetworkError: it cannot be captured; the message says why and what to do.
        """
        ...

    def synchronize(self) -> None:
        """Wait until all work is done."""
        ...


@dataclass(frozen=True)
class Backend:
    """A model on a device: what the engine needs beside a plan."""

    device: Device
    network: DeviceNetwork
    kernel: Any


def backend_for(model: Any, runtime: str, device: str, graph: str = "auto") -> Backend | None:
    """The device a model is sampled on, with its network and kernel; None for the CPU.

    ``auto`` is where the model is: a torch module on the device it lies on, everything else on the CPU.

    Raises:
        ArgumentError: ``graph`` is unknown, or the device or runtime has no graphs of that kind.
        UnavailableError: the device cannot be used; the message names everything that is missing.
    """
    if graph not in GRAPHS:
        raise ArgumentError(f"graph is {graph!r}; it must be one of {', '.join(map(repr, GRAPHS))}.")
    index = _index(device)
    what = kind(model)
    if device == "auto" and what == "module":
        index = _lies_on(model)
    if index is None:
        if graph not in ("auto", "none"):
            raise ArgumentError(f"graph is {graph!r}, which is for the device 'cuda'; this model is sampled on the CPU.")
        if runtime == TENSORRT:
            raise UnavailableError(f"the runtime {TENSORRT!r} is for the device 'cuda'; say device='cuda'.")
        forced = _core.environment(ENVIRONMENT)
        if forced and any(k.name == forced and k.device == "cuda" and k.unavailable is None for k in kernels()):
            raise UnavailableError(f"{ENVIRONMENT}={forced} steps on the device 'cuda'; this model is sampled on the CPU.")
        return None
    if what == "session":
        raise UnavailableError(
            "device is 'cuda', but a session that exists has a stream of its own, which the step cannot join; give the model file."
        )
    torch_runs = what in ("module", "callable")
    missing = torch_reasons(index) if torch_runs else core_reasons(index)
    if missing:
        raise UnavailableError(f"the device 'cuda:{index}' cannot be used: {'; '.join(missing)}.")
    if what == "module" and (at := _lies_on(model)) != index:
        where = "the CPU" if at is None else f"cuda:{at}"
        raise UnavailableError(
            f"device is {device!r}, but the module lies on {where}; move it: module.to('cuda:{index}'), or leave device out."
        )
    if torch_runs:
        from .device_torch import TorchDevice

        place: Device = TorchDevice(index)
    else:
        from .device_core import core_device

        place = core_device(index)
    if graph == "trajectory" and not place.captures:
        raise ArgumentError("graph is 'trajectory', but onnxruntime captures single calls; give 'tick' or 'none'.")
    network = device_network(model, runtime, index=index, stream=place.stream, graph=graph)
    return Backend(place, network, device_kernel(place))


def device_kernel(device: Device) -> Any:
    """The kernel that ``DIFFUSE_FAST_KERNEL`` names, else the first of the device's that can run.

    Raises:
        UnavailableError: none can, or the forced one does not take this device's arrays.
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
    """What torch lacks to sample on a CUDA device; empty where nothing is missing. Imports torch."""
    if importlib.util.find_spec("torch") is None:
        return ["torch is not installed"]
    import torch

    if torch.version.cuda is None:
        missing = [f"torch {torch.__version__} is built without CUDA"]
        return missing if (why := driver_reason()) is None else [*missing, why]
    if not torch.cuda.is_available():
        return [f"torch {torch.__version__} finds no CUDA driver or device"]
    count = torch.cuda.device_count()
    return [] if index < count else [f"this machine has {count} CUDA devices, from cuda:0 to cuda:{count - 1}"]


def core_reasons(index: int = 0) -> list[str]:
    """What the compiled core and onnxruntime lack to sample on a CUDA device without torch. Loads neither of them."""
    out = []
    if (why := _core.cuda_unavailable_reason()) is not None:
        out.append(why)
    if (why := onnxruntime_reason()) is not None:
        out.append(why)
    return out


def onnxruntime_reason() -> str | None:
    """Why onnxruntime cannot run on CUDA, as far as its files tell: ``get_available_providers`` names CUDA with no GPU there."""
    spec = importlib.util.find_spec("onnxruntime")
    if spec is None or spec.origin is None:
        return f"onnxruntime is not installed: {install_hint('gpu')}"
    if not any(Path(spec.origin).parent.glob("capi/*onnxruntime_providers_cuda*")):
        return f"onnxruntime is built without CUDA: pip uninstall onnxruntime, then {install_hint('gpu')}"
    return None


def torch_build_reason() -> str | None:
    """Why torch cannot sample on CUDA, as far as its files tell; torch is not imported."""
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        return "torch is not installed"
    words: dict[str, Any] = {}
    exec((Path(spec.origin).parent / "version.py").read_text(encoding="utf-8"), words)
    return None if words.get("cuda") else f"torch {words.get('__version__')} is built without CUDA"


def _index(device: Any) -> int | None:
    """The number of a CUDA device; None for ``cpu`` and ``auto``."""
    if device in ("auto", "cpu"):
        return None
    told = re.fullmatch(r"cuda(?::(\d+))?", device) if isinstance(device, str) else None
    if told is None:
        raise UnavailableError(f"device is {device!r}; there are 'auto', 'cpu', 'cuda' and 'cuda:N'.")
    return int(told[1] or 0)


def _lies_on(module: Any) -> int | None:
    """The CUDA device that a module lies on; None where it is on none."""
    places = {tensor.device for tensor in (*module.parameters(), *module.buffers())}
    if not any(place.type == "cuda" for place in places):
        return None
    if len(places) > 1:
        raise UnavailableError(f"the module has tensors on {', '.join(sorted(map(str, places)))}; move it to one device.")
    (place,) = places
    return place.index if place.index is not None else sys.modules["torch"].cuda.current_device()
