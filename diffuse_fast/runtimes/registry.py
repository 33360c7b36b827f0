"""Which runtimes there are, and which one runs a model.

``auto`` takes what :func:`diffuse_fast.tune` found on this machine for this artifact; where that was not asked, the first of
:data:`RUNTIMES` that runs this kind of model in the precision and whose package is installed (for int8 :data:`BEST_INT8` comes
first). It looks at nothing else, and times nothing. A runtime asked for by name runs or fails.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import sys
from dataclasses import dataclass
from typing import Any

from ..errors import ArgumentError, ArgumentTypeError, MissingDependencyError, install_hint, suggest
from ..model import Model
from . import tuning_cache
from .base import DeviceNetwork, Network
from .batch_split import SplitNetwork
from .tuned import TunedNetwork
from .tuning_cache import Choice


@dataclass(frozen=True, slots=True)
class Runtime:
    """One way to run a network.

    Attributes:
        name: Its name, and that of its module here.
        runs: Kinds of model it runs: ``artifact``, ``session`` (of onnxruntime), ``module`` (of torch), ``callable``.
        package: The package it needs; None for none.
        extra: The extra of this distribution that installs it.
        precisions: What it can compute in.
    """

    name: str
    runs: tuple[str, ...]
    package: str | None
    extra: str | None
    precisions: tuple[str, ...] = ("float32",)

    @property
    def installed(self) -> bool:
        """Whether its package is there. Does not import it."""
        if self.package is None:
            return True
        found = importlib.util.find_spec(self.package)
        # A folder of that name, beside the script, is found too: a package without a file.
        return found is not None and (found.origin is not None or found.submodule_search_locations is None)


# In order of preference.
RUNTIMES = (
    Runtime("onnx", ("artifact", "session"), "onnxruntime", "cpu", ("float32", "int8")),
    Runtime("openvino", ("artifact",), "openvino", "openvino", ("float32", "bfloat16", "int8")),
    Runtime("mnn", ("artifact",), "MNN", "mnn", ("float32", "float32-fast")),
    Runtime("torch", ("module",), "torch", "train", ("float32", "bfloat16")),
    Runtime("callable", ("callable",), None, None),
)


TENSORRT = "tensorrt"  # on a CUDA device only
BEST_INT8 = "openvino"  # it need not round what a layer returns, so it is faster and nearer; docs/runtimes.md


def kind(model: Any) -> str:
    """What kind of model this is: ``artifact``, ``session``, ``module`` or ``callable``.

    Raises:
        ArgumentTypeError: it is none of them.
    """
    if isinstance(model, Model):
        return "artifact"
    # A session or a module can only exist where its package has been imported.
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


def select(model: Any, runtime: str = "auto", precision: str = "float32") -> Runtime:
    """The runtime that runs a model.

    Args:
        model: A model of any kind.
        runtime: ``"auto"``, or the name of one.
        precision: What it must be able to compute in.

    Raises:
        ArgumentError: there is no runtime of that name, or it does not run this kind of model, or not in this precision.
        MissingDependencyError: its package is not installed; the message names the extra that brings it.
    """
    what = kind(model)
    able = [r for r in RUNTIMES if what in r.runs]
    if precision == "int8" and isinstance(model, Model) and model.quantization is None:
        raise ArgumentError(
            f"precision is 'int8', but the artifact {model.name!r} does not say how it computes in it; "
            f"`diffuse-fast quantize MODEL --out OUT`, or df.quantize, writes one that does."
        )
    if runtime == "auto":
        if not (fit := [r for r in able if precision in _precisions(r, what)]):
            raise ArgumentError(_lacks(precision, able, what))
        if precision == "int8":
            fit.sort(key=lambda r: r.name != BEST_INT8)
        chosen = next((r for r in fit if r.installed), fit[0])
    else:
        names = ["auto", *(r.name for r in RUNTIMES)]
        if runtime not in names:
            raise ArgumentError(f"runtime {runtime!r} is not known.{suggest(str(runtime), names)}")
        chosen = next(r for r in RUNTIMES if r.name == runtime)
        if chosen not in able:
            raise ArgumentError(
                f"runtime {runtime!r} does not run a model of kind {what!r}; that runs on {', '.join(r.name for r in able)}."
            )
        if precision not in _precisions(chosen, what):
            raise ArgumentError(_lacks(precision, [chosen], what))
    if not chosen.installed:
        raise MissingDependencyError(
            f"the runtime {chosen.name!r} needs {chosen.package}, which is not installed: {install_hint(chosen.extra)}"
        )
    return chosen


def _precisions(runtime: Runtime, what: str) -> tuple[str, ...]:
    """What a runtime can compute a kind of model in: a session is computed as it was made."""
    return ("float32",) if what == "session" else runtime.precisions


def _lacks(precision: str, runtimes: list[Runtime], what: str) -> str:
    have = "; ".join(f"{r.name}: {', '.join(_precisions(r, what))}" for r in runtimes)
    return f"precision is {precision!r}; this model can be computed in ({have})."


def network(
    model: Any,
    runtime: str = "auto",
    *,
    threads: int | None = None,
    time_dtype: str | None = None,
    precision: str = "float32",
    split: int = 1,
) -> Network:
    """A model, ready to be bound.

    Args:
        model: A ``df.Model``, an onnxruntime session, a torch module, or a callable ``f(x, t, **cond)``.
        runtime: ``"auto"``, or the name of one. ``"auto"`` takes what :func:`diffuse_fast.tune` found for this artifact, machine
            and precision, unless ``threads`` or ``split`` is given; else the first of :data:`RUNTIMES` that can.
        threads: Threads inside one network call, for a runtime that has threads of its own; None for the physical cores that this
            process may run on.
        time_dtype: For a torch module or a callable, the dtype of ``t``: ``"int64"``, ``"float32"``, or None, which gives
            whole times as int64 and fractional ones as float32. A file says it itself.
        precision: ``float32``, ``float32-fast``, ``bfloat16`` or ``int8``, as far as the runtime has it.
        split: Parts of a batch that run beside each other, each on ``threads`` threads; only for artifacts.

    Raises:
        ArgumentError, ArgumentTypeError, MissingDependencyError: as :func:`select`; or ``threads``, ``split`` or
            ``time_dtype`` is none of those; or a module has a dropout or batch normalisation in training mode.
        ArtifactError: the runtime refuses the file.
        UnavailableError: a module lies on a device that is not supported, or this machine lacks the precision.
    """
    for name, value in (("threads", threads), ("split", split)):
        if (value is not None or name == "split") and (type(value) is not int or value < 1):
            raise ArgumentError(f"{name} is {value!r}; it must be a whole number from 1{', or None' if name == 'threads' else ''}.")
    if time_dtype not in (None, "int64", "float32"):
        raise ArgumentError(f"time_dtype is {time_dtype!r}; it must be 'int64', 'float32' or None.")
    chosen = select(model, runtime, precision)
    if runtime == "auto" and isinstance(model, Model) and threads is None and split == 1 and time_dtype is None:
        able = {r.name: r.precisions for r in RUNTIMES if "artifact" in r.runs and precision in r.precisions}
        found = {
            n: choice for n, choice in tuning_cache.of(model, precision).items() if choice.computes in able.get(choice.runtime, ())
        }
        if found:
            return TunedNetwork({batch: functools.partial(_artifact, model, choice) for batch, choice in found.items()})
    if split > 1 and not isinstance(model, Model):
        raise ArgumentError("split is for artifacts; a session, a module or a callable has its own threads.")
    if not isinstance(model, Model):
        options = {"precision": precision} if chosen.name == "torch" else {}
        return _module(chosen.name).network(model, threads=threads, time_dtype=time_dtype, **options)
    return _artifact(model, Choice(chosen.name, threads, split, precision), time_dtype)


def _artifact(model: Model, choice: Choice, time_dtype: str | None = None) -> Network:
    """An artifact, run as chosen. Also where a session is kept of it: it has to be that of the files as they are."""
    options: dict[str, Any] = {"threads": choice.threads, "time_dtype": time_dtype, "precision": choice.computes}
    if choice.runtime == "openvino":  # its streams are what lets calls run beside each other
        options["streams"] = choice.split
    with model.files.unchanged():
        whole = _module(choice.runtime).network(model, **options)
    return SplitNetwork(whole, choice.split) if choice.split > 1 else whole


def _module(name: str) -> Any:
    return importlib.import_module(f".{name}", __package__)


def device_network(model: Any, runtime: str = "auto", *, index: int, stream: int | None, graph: str) -> DeviceNetwork:
    """A model on a CUDA device, ready to be bound to its memory.

    Args:
        model: A ``df.Model``, a torch module on that device, or a callable on tensors there.
        runtime: ``"auto"``, or the name of one; for an artifact also ``"tensorrt"``, onnxruntime's TensorRT before its CUDA.
        index: Number of the device.
        stream: The stream that an artifact's session works on; a module works on torch's current one.
        graph: ``tick`` lets onnxruntime capture each call of an artifact in a graph of its own.

    Raises:
        ArgumentError: as :func:`select`; or a module has a dropout or batch normalisation in training mode.
        UnavailableError: onnxruntime cannot run the model there.
    """
    if isinstance(model, Model):
        name = runtime if runtime == TENSORRT else select(model, runtime).name
        onnx_cuda = importlib.import_module(".onnx_cuda", __package__)
        with model.files.unchanged():
            return onnx_cuda.OnnxDeviceNetwork(model, name, index, stream, graph == "tick")
    select(model, runtime)
    torch_cuda = importlib.import_module(".torch_cuda", __package__)
    return torch_cuda.network(model)
