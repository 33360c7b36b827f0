"""Setup: a model ready to be sampled with any plan. Every part of the engine reads it; nothing changes it."""

from __future__ import annotations

import math
import threading
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .. import machine
from ..artifact.document import VARIANCES, Conditioning, output_shape
from ..errors import ArgumentError, ArgumentTypeError
from ..kernels import get_kernel
from ..model import Model
from ..plans.plan import INPUT_SCALES, Plan
from ..runtimes import network, tuning_cache
from ..runtimes.fork_safety import forget_in_child
from .arguments import shape_of_sample, trait
from .conditioning import Conditions, check_form, conditions
from .devices.base import Device
from .devices.choose import backend_for
from .plan_cache import derive, facts_of

# How the conditional and the unconditional evaluation of guidance reach the network: in one call, or one after the other.
GUIDANCE_BATCHES = ("joined", "separate")


@dataclass(frozen=True, eq=False)
class Setup:
    """A network, a kernel and a device, with the network's conventions.

    Attributes:
        network: The network: a :class:`~diffuse_fast.runtimes.base.Network`, or on a CUDA device a ``DeviceNetwork``.
        kernel: The step kernel.
        device: The CUDA device; None is the CPU.
        shape: Shape of one sample.
        output_shape: Shape of the network's output for one sample.
        inputs: The model's conditioning inputs; None for a bare network, which takes any.
        time_convention: The time that the model takes (``timestep``, ``sigma``, ...); None if unknown.
        prediction_type: What the model predicts; None if unknown.
        variance: ``none``, ``learned`` or ``learned_range``.
        input_scale: ``none`` or ``1/alpha``; None if unknown.
        guidance_interval, guidance_rescale: As for :func:`~diffuse_fast.sample`.
        separate: Whether the two evaluations of guidance are separate calls of the network.
        graph: What a CUDA device captures: ``tick``, ``trajectory`` or ``none``.
    """

    network: Any
    kernel: Any
    device: Device | None
    shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    inputs: tuple[Conditioning, ...] | None
    time_convention: str | None
    prediction_type: str | None
    variance: str
    input_scale: str | None
    guidance_interval: tuple[float, float] | None
    guidance_rescale: float
    separate: bool
    graph: str

    @property
    def variance_offset(self) -> int:
        """Elements from a sample's prediction to its variance, the second half of the channels; -1 without a variance."""
        return math.prod(self.shape) if self.output_shape != self.shape else -1

    def plan(self, plan: Plan, guidance_scale: float, known: bool = False) -> Plan:
        """Return a plan with guidance, and with a known region if asked, checked against what the model can do.

        Raises:
            ArgumentError, ArgumentTypeError, PlanError: the plan does not fit the model or the guidance.
        """
        convention, takes = dict(plan.options).get("time_convention"), self.time_convention
        if None not in (convention, takes) and convention != takes:
            raise ArgumentError(
                f"the plan tells the network {convention!r}, but this model takes {takes!r}; make it with "
                f"time_convention={takes!r}."
            )
        if self.prediction_type not in (None, plan.prediction_type):
            raise ArgumentError(
                f"the plan is for a network that predicts {plan.prediction_type!r}, but this model predicts "
                f"{self.prediction_type!r}; make it with prediction_type={self.prediction_type!r}."
            )
        plan = derive(
            plan,
            guidance_scale,
            interval=self.guidance_interval,
            rescale=self.guidance_rescale,
            input_scale=self.input_scale,
            known=known,
        )
        facts = facts_of(plan)
        if facts.outputs > 1 and self.inputs == ():
            raise ArgumentError("guidance_scale is not 1, but the model has no conditioning to guide by.")
        if facts.outputs > 2:
            raise ArgumentError(
                f"the plan weighs {facts.outputs} network outputs; a Sampler makes two, with and without the condition."
            )
        if facts.learned_variance:
            takes = dict(plan.options).get("variance_type", self.variance)
            if self.variance == "none":
                raise ArgumentError(
                    f"the plan has a learned standard deviation, but the model predicts no variance. Of a network with twice the "
                    f"channels, say variance={takes if takes in VARIANCES else 'learned_range'!r}."
                )
            if takes != self.variance:
                raise ArgumentError(
                    f"the plan takes the variance as {takes!r}, but the network's is {self.variance!r}; make the plan with "
                    f"variance_type={self.variance!r}."
                )
        return plan

    def conditions(self, plan: Plan, cond: Any, negative_cond: Any, n: int, of: str = "", where: str = "") -> list[Conditions]:
        """Return the conditioning of n samples, one dict of (n, ...) arrays per network output that the plan weighs.

        Args:
            plan: A plan from :meth:`plan`.
            cond, negative_cond: As for :func:`~diffuse_fast.sample`.
            of: What messages append to the arguments' names.
            where: What messages begin with.

        Raises:
            ArgumentError, ArgumentTypeError: as :func:`~.conditioning.conditions`; or ``negative_cond`` is missing or not used.
        """
        if facts_of(plan).outputs == 1:
            if negative_cond is not None:
                raise ArgumentError(f"{where}negative_cond needs a guidance_scale other than 1.")
            return [conditions(f"cond{of}", cond, n, self.inputs, self.device)]
        if self.inputs is None and negative_cond is None:
            raise ArgumentError(f"{where}guidance with a bare network needs negative_cond: what stands for no condition.")
        first = conditions(f"cond{of}", cond, n, self.inputs, self.device)
        second = conditions(f"negative_cond{of}", negative_cond, n, self.inputs, self.device)
        check_form(second, f"negative_cond{of}", first, f"cond{of}")
        return [first, second]


# By model file: the arguments of the last setup on the CPU, and the setup. A setup does not keep its model alive.
_last: weakref.WeakKeyDictionary[Model, tuple[Any, Setup]] = weakref.WeakKeyDictionary()
_lock = threading.Lock()


def _forget() -> None:
    """A forked child makes its own: sessions do not survive a fork."""
    global _last, _lock
    _last, _lock = weakref.WeakKeyDictionary(), threading.Lock()


forget_in_child(lambda: list(_last.values()), _forget)


def setup_for(model: Any, **options: Any) -> Setup:
    """Return the setup of a model; arguments as for :func:`make_setup`.

    For a model file on the CPU the last setup is used again if the options, the files, the forced kernel and the usable cores are
    unchanged. Setups that follow an answer of ``tune`` are not kept.
    """
    key = _key(model, options)
    if key is None:
        return make_setup(model, **options)
    with _lock:
        found = _last.get(model)
    if found is not None and found[0] == key and found[1].kernel is get_kernel():
        model.files.check()
        return found[1]
    setup = make_setup(model, **options)
    with _lock:
        _last[model] = key, setup
    return setup


def _key(model: Any, options: dict[str, Any]) -> Any:
    """Return what a setup depends on; None for one that is not kept: on a device, of a torch module, of an answer of ``tune``."""
    if not isinstance(model, Model) or options["device"] not in ("auto", "cpu") or options["graph"] not in ("auto", "none"):
        return None
    if options["runtime"] == "auto" and tuning_cache.choices(model, options["precision"]):
        return None
    # The types too: threads=True equals threads=1, and is refused.
    key = tuple(options.values()), tuple(map(type, options.values())), machine.affinity()
    try:
        hash(key)
    except TypeError:  # the caller may change it
        return None
    return key


def make_setup(
    model: Any,
    *,
    shape: Sequence[int] | None = None,
    variance: str | None = None,
    input_scale: str | None = None,
    guidance_interval: tuple[float, float] | None = None,
    guidance_rescale: float = 0.0,
    guidance_batch: str = "joined",
    runtime: str = "auto",
    threads: int | None = None,
    device: str = "auto",
    precision: str = "float32",
    graph: str = "auto",
) -> Setup:
    """Choose the device, network and kernel for a model; arguments as for :func:`~diffuse_fast.sample`.

    Raises:
        ArgumentError, ArgumentTypeError, UnavailableError, MissingDependencyError: as :func:`~diffuse_fast.sample`.
    """
    if guidance_batch not in GUIDANCE_BATCHES:
        raise ArgumentError(f"guidance_batch is {guidance_batch!r}; it must be one of {', '.join(GUIDANCE_BATCHES)}.")
    known = model if isinstance(model, Model) else None
    sample_shape = shape_of_sample(shape, known)
    variance = trait("variance", variance, known, VARIANCES) or "none"
    input_scale = trait("input_scale", input_scale, known, INPUT_SCALES)
    backend = backend_for(model, runtime, device, graph)
    if backend is None:
        used: Any = network(model, runtime, threads=threads, precision=precision)
    else:
        if guidance_batch == "separate":
            raise ArgumentError("guidance_batch is 'separate', which is for the CPU; on a CUDA device leave it out.")
        if precision != "float32":
            raise ArgumentError(f"precision is {precision!r}; on a CUDA device a model is computed as it is: 'float32'.")
        if threads is not None:
            raise ArgumentError(f"threads is {threads!r}, which is for the CPU; on a CUDA device leave it out.")
        used = backend.network
    return Setup(
        network=used,
        kernel=get_kernel() if backend is None else backend.kernel,
        device=None if backend is None else backend.device,
        shape=sample_shape,
        output_shape=output_shape(sample_shape, variance),
        inputs=known.conditioning if known else None,
        time_convention=known.time.convention if known else None,
        prediction_type=known.prediction_type if known else None,
        variance=variance,
        input_scale=input_scale,
        guidance_interval=guidance_interval,
        guidance_rescale=guidance_rescale,
        separate=guidance_batch == "separate",
        graph=graph if graph != "auto" else "none" if backend is None else backend.network.best_graph,
    )


def check_plan(plan: Any, of: str = "plan") -> Plan:
    """Refuse anything but a plan."""
    if not isinstance(plan, Plan):
        raise ArgumentTypeError(f"{of} is a {type(plan).__name__}; give what df.plan() returns.")
    return plan
