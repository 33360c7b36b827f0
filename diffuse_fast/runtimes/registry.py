"""The runtimes, and the choice of the one that runs a model.

``auto`` takes what :func:`diffuse_fast.tune` found on this machine for this artifact. Without an answer of ``tune`` it takes the
first of :data:`RUNTIMES`, in their order for the precision, that runs this kind of model, whose package is installed, and that does
not decline the model. It times nothing. A runtime that is asked for by name runs or fails.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..checks import require_int
from ..errors import ArgumentError, ArgumentTypeError, MissingDependencyError, UnavailableError, install_hint, suggest
from ..model import Model
from . import tuning_cache
from .base import DeviceNetwork, Network, Placement
from .tuned import TunedNetwork
from .tuning_cache import Choice


@dataclass(frozen=True, slots=True)
class Runtime:
    """One way to run a network.

    Attributes:
        name: The name that users give.
        module: The module of this package that implements it. Its ``network`` function makes a network from a model.
        runs: Precisions by kind of model: ``artifact``, ``session`` (of onnxruntime), ``module`` (of torch), ``callable``.
        package: The package that it needs; None for none.
        extra: The extra of this distribution that installs the package.
        int8_first: Whether ``auto`` takes it before the others in int8.
        declines: Whether its module has a function ``unsuitable``, which says why ``auto`` should not take it for a model.
    """

    name: str
    module: str
    runs: Mapping[str, tuple[str, ...]]
    package: str | None = None
    extra: str | None = None
    int8_first: bool = False
    declines: bool = False

    @property
    def precisions(self) -> tuple[str, ...]:
        """The precisions of all kinds of model that it runs."""
        return tuple(dict.fromkeys(precision for precisions in self.runs.values() for precision in precisions))

    @property
    def installed(self) -> bool:
        """Whether its package is installed. Does not import it."""
        if self.package is None:
            return True
        spec = importlib.util.find_spec(self.package)
        # A folder of that name beside the script is found too, as a namespace package, which has no file.
        return spec is not None and (spec.origin is not None or spec.submodule_search_locations is None)

    def unsuitable(self, model: Any) -> str | None:
        """Why ``auto`` should not take it for a model that it runs in principle; None if it should."""
        return _implementation(self).unsuitable(model) if self.declines else None


# In the order of ``auto``.
RUNTIMES = (
    Runtime("native", "native", {"artifact": ("float32", "float32-fast")}, declines=True),
    Runtime("onnx", "onnx", {"artifact": ("float32", "int8"), "session": ("float32",)}, "onnxruntime", "cpu"),
    # It does not have to round the output of a layer to int8, so it is faster and more accurate (docs/runtimes.md).
    Runtime("openvino", "openvino", {"artifact": ("float32", "bfloat16", "int8")}, "openvino", "openvino", int8_first=True),
    Runtime("torch", "torch", {"module": ("float32", "bfloat16")}, "torch", "train"),
    Runtime("callable", "callable", {"callable": ("float32",)}),
)

# On a CUDA device.
CUDA_RUNTIMES = (
    Runtime("onnx", "onnx_cuda", {"artifact": ("float32",)}, "onnxruntime", "gpu"),
    Runtime("tensorrt", "onnx_cuda", {"artifact": ("float32",)}, "onnxruntime", "gpu"),
    Runtime("torch", "torch_cuda", {"module": ("float32",)}, "torch", "train"),
    Runtime("callable", "torch_cuda", {"callable": ("float32",)}, "torch", "train"),
)
CUDA_ONLY = frozenset(r.name for r in CUDA_RUNTIMES) - {r.name for r in RUNTIMES}


def kind(model: Any) -> str:
    """Return the kind of a model: ``artifact``, ``session``, ``module`` or ``callable``.

    Raises:
        ArgumentTypeError: it is none of them.
    """
    if isinstance(model, Model):
        return "artifact"
    # A session or a module exists only if its package has been imported.
    ort, torch = sys.modules.get("onnxruntime"), sys.modules.get("torch")
    if ort is not None and isinstance(model, ort.InferenceSession):
        return "session"
    if torch is not None and isinstance(model, torch.nn.Module):
        return "module"
    if callable(model):
        return "callable"
    raise ArgumentTypeError(
        f"model is a {type(model).__name__}; it must be a df.Model, a torch.nn.Module, an onnxruntime session or a callable "
        f"f(x, t, **cond)."
    )


def select(model: Any, runtime: str = "auto", precision: str = "float32", *, runtimes: Sequence[Runtime] = RUNTIMES) -> Runtime:
    """Return the runtime that runs a model.

    Args:
        model: A model of any kind.
        runtime: ``"auto"`` or the name of a runtime.
        precision: The precision that it has to compute in.
        runtimes: The runtimes to choose from.

    Raises:
        ArgumentError: no runtime has that name, or it does not run this kind of model, or not in this precision.
        MissingDependencyError: its package is not installed; the message names the extra that installs it.
        UnavailableError: all that are installed decline the model.
    """
    what = kind(model)
    able = [r for r in runtimes if what in r.runs]
    if precision == "int8" and isinstance(model, Model) and model.quantization is None:
        raise ArgumentError(
            f"precision is 'int8', but the artifact {model.name!r} has no quantization; "
            f"`diffuse-fast quantize MODEL --out OUT`, or df.quantize, writes an artifact that has one."
        )
    if runtime == "auto":
        if not (candidates := [r for r in able if precision in r.runs[what]]):
            raise ArgumentError(_lacks(precision, able, what))
        if precision == "int8":
            candidates.sort(key=lambda r: not r.int8_first)
        why_not: dict[str, str] = {}
        for chosen in candidates:
            if chosen.installed:
                reason = chosen.unsuitable(model)
                if reason is None:
                    return chosen
                why_not[chosen.name] = reason
        chosen = next((r for r in candidates if not r.installed), candidates[0])
        reasons = "".join(f" The runtime {name!r} does not run it: {reason}" for name, reason in why_not.items())
        if chosen.installed:
            raise UnavailableError(f"no installed runtime runs the model.{reasons}")
        raise MissingDependencyError(f"{_needs(chosen)}{reasons}")
    else:
        names = ["auto", *(r.name for r in runtimes)]
        if runtime not in names and runtime in (r.name for r in (*RUNTIMES, *CUDA_RUNTIMES)):
            where = "a CUDA device" if runtimes is CUDA_RUNTIMES else "the CPU"
            raise ArgumentError(f"runtime {runtime!r} does not run on {where}; these do: {', '.join(r.name for r in able)}.")
        if runtime not in names:
            raise ArgumentError(f"runtime {runtime!r} is not known.{suggest(str(runtime), names)}")
        chosen = next(r for r in runtimes if r.name == runtime)
        if chosen not in able:
            raise ArgumentError(
                f"runtime {runtime!r} does not run a model of kind {what!r}; these do: {', '.join(r.name for r in able)}."
            )
        if precision not in chosen.runs[what]:
            raise ArgumentError(_lacks(precision, [chosen], what))
    if not chosen.installed:
        raise MissingDependencyError(_needs(chosen))
    return chosen


def _needs(runtime: Runtime) -> str:
    return f"the runtime {runtime.name!r} needs {runtime.package}, which is not installed: {install_hint(runtime.extra)}"


def _lacks(precision: str, runtimes: Sequence[Runtime], what: str) -> str:
    have = "; ".join(f"{r.name}: {', '.join(r.runs[what])}" for r in runtimes)
    return f"precision is {precision!r}; this model can be computed in ({have})."


def network(
    model: Any, runtime: str = "auto", *, threads: int | None = None, float_times: bool = False, precision: str = "float32"
) -> Network:
    """Make a network from a model.

    Args:
        model: A ``df.Model``, an onnxruntime session, a torch module, or a callable ``f(x, t, **cond)``.
        runtime: ``"auto"`` or the name of a runtime. ``"auto"`` takes what :func:`diffuse_fast.tune` found for this artifact,
            machine and precision, unless ``threads`` is given; else as :func:`select`.
        threads: Threads inside one network call, for a runtime that has threads of its own; None for the physical cores that this
            process may run on.
        float_times: For a torch module or a callable, pass all times as float32. Otherwise integral ones are int64. An ONNX file
            fixes the dtype itself.
        precision: ``float32``, ``float32-fast``, ``bfloat16`` or ``int8``, if the runtime has it.

    Raises:
        ArgumentError, ArgumentTypeError, MissingDependencyError: as :func:`select`; or ``threads`` is invalid;
            or a module has a dropout or batch normalisation in training mode.
        ArtifactError: the runtime rejects the file.
        UnavailableError: a module is on an unsupported device, or this machine does not have the precision.
    """
    if threads is not None:
        require_int("threads", threads, 1)
    chosen = select(model, runtime, precision)
    if not isinstance(model, Model):
        own = {} if chosen.name == "onnx" else {"float_times": float_times}
        return _implementation(chosen).network(model, threads=threads, precision=precision, **own)
    if runtime == "auto" and threads is None:
        able = {r.name for r in RUNTIMES if precision in r.runs.get("artifact", ())}
        stored = tuning_cache.choices(model, precision)
        tuned = {batch: choice for batch, choice in stored.items() if choice.runtime in able}
        if tuned:
            return TunedNetwork({batch: functools.partial(_artifact_network, model, choice) for batch, choice in tuned.items()})
    return _artifact_network(model, Choice(chosen.name, threads, precision))


def _artifact_network(model: Model, choice: Choice) -> Network:
    """Run an artifact as chosen. Checks that its files are unchanged, also if a session was made from them before."""
    runtime = next(r for r in RUNTIMES if r.name == choice.runtime)
    with model.files.unchanged():
        return _implementation(runtime).network(model, threads=choice.threads, precision=choice.precision)


def _implementation(runtime: Runtime) -> Any:
    return importlib.import_module(f".{runtime.module}", __package__)


def device_network(model: Any, runtime: str = "auto", *, index: int, stream: int | None, graph: str) -> DeviceNetwork:
    """Make a network from a model on a CUDA device.

    Args:
        model: A ``df.Model``, a torch module on that device, or a callable on tensors there.
        runtime: ``"auto"`` or the name of a runtime; ``"tensorrt"`` is onnxruntime with TensorRT before CUDA.
        index: Number of the device.
        stream: The stream on which an artifact's session works; a module works on torch's current stream.
        graph: ``tick`` makes onnxruntime capture each call of an artifact in a CUDA graph.

    Raises:
        ArgumentError, MissingDependencyError: as :func:`select`; or a module has a dropout or batch normalisation in training mode.
        UnavailableError: onnxruntime cannot run the model there.
    """
    chosen = select(model, runtime, runtimes=CUDA_RUNTIMES)
    return _implementation(chosen).network(model, Placement(chosen.name, index, stream, graph))
