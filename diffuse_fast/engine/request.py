"""Requests: what is asked for, and what the engine admits after its checks."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from ..errors import ArgumentError, ArgumentTypeError
from ..kernels.device_array import is_on_cuda
from ..kernels.step import noise_address
from ..plans.plan import Plan
from .arguments import dtype_of, fresh_seed, is_tensor
from .conditioning import Conditions
from .known_region import KnownRegion, known_region
from .plan_cache import facts_of
from .setup import Setup, check_plan
from .start import start_of

StepNoise = Callable[[int], Any]


@dataclass(frozen=True)
class Request:
    """One sample to draw.

    Attributes:
        plan: Its plan; None for that of the sampler.
        seed: Its seed; None for a fresh one.
        index: Its index under the seed.
        guidance_scale: Its guidance; None for that of the sampler (with a plan of its own: 1).
        cond, negative_cond: Its conditioning by input name, without a batch axis.
        data: Data that is noised to the start of the plan, of the sample's shape (``data`` of :func:`~diffuse_fast.sample`).
        noise: N(0, 1) of the sample's shape to start from, in place of the generator. Like the conditioning, it may be on the CUDA
            device that is sampled on.
        known, mask: Data of the sample's shape, and where it is known: 1 keeps it, 0 does not (``known`` and ``mask`` of
            :func:`~diffuse_fast.sample`). The mask's shape broadcasts to the sample's.

    Example:
        >>> import diffuse_fast as df
        >>> model = df.load("digits")
        >>> plans = [df.plan(model.schedule, "ddim", steps, prediction_type=model.prediction_type) for steps in (5, 9)]
        >>> seven = df.Request(seed=1, cond={"label": 7})
        >>> three = df.Request(plan=plans[1], seed=2, cond={"label": 3}, guidance_scale=1.5)
        >>> df.Sampler(model, plans[0]).sample_requests([seven, three]).shape
        (2, 1, 8, 8)
    """

    plan: Plan | None = None
    seed: int | None = None
    index: int = 0
    guidance_scale: float | None = None
    cond: Mapping[str, Any] | None = field(default=None, hash=False)
    negative_cond: Mapping[str, Any] | None = field(default=None, hash=False)
    noise: Any = field(default=None, compare=False)
    data: Any = field(default=None, compare=False)
    known: Any = field(default=None, compare=False)
    mask: Any = field(default=None, compare=False)


@dataclass(frozen=True, eq=False)
class Admission:
    """A request that has passed its checks.

    Attributes:
        number: What errors call the sample.
        plan: Its plan, with its guidance and known region.
        seed, index: The key of its noise.
        conditions: Per network output, its conditioning without a batch axis.
        start: What it starts from before the plan's initial_scale, of the sample's shape, on the host or the device; None is the
            generator's noise.
        known: Its known region, as a batch of one; None if it has none.
    """

    number: int
    plan: Plan
    seed: np.ndarray
    index: np.ndarray
    conditions: list[Conditions]
    start: Any
    known: KnownRegion | None


@dataclass(frozen=True, eq=False)
class Batch:
    """Samples that follow one plan in lockstep, checked.

    Attributes:
        plan: Their plan, with guidance and known region.
        seeds, indices: The keys of their noise.
        conditions: Per network output, their conditioning, each (n, ...).
        start: (n, *shape) as :attr:`Admission.start`.
        known: Their known region, or None.
        step_noise: A function from a row's number to its noise, in place of the generator, or None.
        first: What errors call the first sample.
    """

    plan: Plan
    seeds: np.ndarray
    indices: np.ndarray
    conditions: list[Conditions]
    start: Any = None
    known: KnownRegion | None = None
    step_noise: StepNoise | None = None
    first: int = 0

    def part(self, which: slice) -> Batch:
        """Some of the samples, as a batch."""
        return dataclasses.replace(
            self,
            seeds=self.seeds[which],
            indices=self.indices[which],
            conditions=[{name: value[which] for name, value in c.items()} for c in self.conditions],
            start=None if self.start is None else self.start[which],
            known=None if self.known is None else self.known.part(which),
            first=self.first + which.start,
        )

    @cached_property
    def form(self) -> tuple[Any, ...]:
        """What buffers must fit: names, shapes and dtypes of the conditioning, and whether there is a known region."""
        form: tuple[Any, ...] = len(self.seeds), len(self.conditions), self.known is not None
        for name, value in self.conditions[0].items():
            form += name, tuple(value.shape), dtype_of(value)
        return form


@dataclass(frozen=True, eq=False)
class Defaults:
    """The sampler's plan, as the caller gave it, and guidance scale, for requests that leave them out."""

    plan: Plan
    guidance_scale: float


def admit(setup: Setup, defaults: Defaults, request: Any, number: int) -> Admission:
    """Check a request.

    Args:
        setup: The model.
        defaults: The sampler's plan and guidance.
        request: The request.
        number: What errors call it.

    Raises:
        ArgumentError, ArgumentTypeError: the request does not fit the model; the message says which.
    """
    if not isinstance(request, Request):
        raise ArgumentTypeError(f"request {number} is a {type(request).__name__}; give df.Request objects.")
    of = f" of request {number}"
    known = known_region(request.known, request.mask, 1, setup.shape, of)
    plan = _plan(setup, defaults, request, number, known is not None)
    cond, negative = (_with_batch_axis(c, setup.device) for c in (request.cond, request.negative_cond))
    conditions = setup.conditions(plan, cond, negative, 1, of, f"request {number}: ")
    seed = fresh_seed() if request.seed is None else request.seed
    seeds, indices = noise_address([seed], [request.index], 1)
    start = start_of(plan, request.data, request.noise, setup.shape, seeds, indices, setup.device, of)
    single = [{name: value[0] for name, value in c.items()} for c in conditions]
    return Admission(number, plan, seeds, indices, single, start, known)


def _plan(setup: Setup, defaults: Defaults, request: Request, number: int, known: bool) -> Plan:
    """The plan of a request, with its guidance; equal requests get one object."""
    scale = request.guidance_scale
    if scale is not None and (isinstance(scale, bool) or not isinstance(scale, int | float | np.integer | np.floating)):
        raise ArgumentTypeError(f"request {number}: guidance_scale is {scale!r}; it must be a number.")
    if request.plan is None:
        plan = setup.plan(defaults.plan, defaults.guidance_scale if scale is None else scale, known)
    else:
        plan = setup.plan(check_plan(request.plan, f"the plan of request {number}"), 1.0 if scale is None else scale, known)
    if facts_of(plan).calls == 0:
        raise ArgumentError(f"the plan of request {number} never calls the network.")
    return plan


def _with_batch_axis(cond: Any, device: Any) -> Any:
    """Conditioning with a batch axis of length 1. Anything that is not a mapping is left to the check."""
    if not isinstance(cond, Mapping):
        return cond
    return {name: _expanded(name, value, device) for name, value in cond.items()}


def _expanded(name: Any, value: Any, device: Any) -> Any:
    if is_tensor(value) or isinstance(value, np.ndarray):
        return value[None]
    if not is_on_cuda(value):
        return [value]
    if device is None:
        return value
    with device.scope():
        return device.stack([device.take(f"cond[{name!r}]", value)])
