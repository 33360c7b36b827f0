"""A batch whose samples have nothing in common but the model: each its own plan, seed, guidance and conditioning.

In every tick the samples that are not done call the network once, together, and each applies its own row. What a sample does
not need is not evaluated: without guidance it has one evaluation in the batch, and when it is done it has none.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import ArgumentError, ArgumentTypeError
from ..kernels.cuda import is_on_cuda
from ..kernels.reference import STREAM_INITIAL
from ..kernels.step import noise_address
from ..plans.plan import MAX_OUTPUTS, Plan
from ..runtimes.base import aligned
from .arguments import is_tensor, noise_array
from .conditioning import Conditions, check_form, conditions
from .progress import bar
from .start import check_start, noised
from .workspace import not_finite

if TYPE_CHECKING:
    from .sampler import Sampler


@dataclass(frozen=True)
class Request:
    """One sample, as asked for.

    Attributes:
        plan: Its plan; None for that of the sampler.
        seed: Its seed; None for a fresh one.
        index: Its index under the seed.
        guidance_scale: Its guidance; None for that of the sampler (with a plan of its own: 1).
        cond, negative_cond: Its conditioning by input name, without a batch axis.
        data: What is noised to the start of the plan, of the sample's shape (``data`` of :func:`~diffuse_fast.sample`).
        noise: N(0, 1) of the sample's shape to start from, in place of the generator. It and the conditioning may lie on the CUDA
            device that is sampled on.

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


def run_requests(
    sampler: Sampler, requests: Sequence[Request], first: int = 0, callback: Any = None, progress: bool = False
) -> np.ndarray:
    """The samples of the requests, in their order, (len(requests), *shape). ``first`` is the number of the first one."""
    slots = _Slots(sampler, requests, first)
    tick = 0
    with bar(progress, slots.ticks) as advance:
        while slots.tick():
            if advance is not None:
                advance()
            if callback is not None:
                callback(tick, slots.state)
            tick += 1
    return slots.state


class _Slots:
    def __init__(self, sampler: Sampler, requests: Sequence[Request], first_request: int = 0):
        self._first_request = first_request
        self._network, self._kernel, self._shape = sampler._network, sampler._kernel, sampler.shape
        self._output_shape = sampler._output_shape
        self._separate = sampler._guidance_batch == "separate"
        self._variance_offset = math.prod(sampler.shape) if sampler._output_shape != sampler.shape else -1
        n = len(requests)
        self._plans = plans_of(sampler, requests, first_request)
        pairs = zip(requests, self._plans, strict=True)
        self._conditions = [conditions_of(sampler, r, plan, i) for i, (r, plan) in enumerate(pairs, first_request)]
        check_alike(self._conditions, first_request)
        # The rows of all plans in one table, each plan once.
        first: dict[int, int] = {}
        self._rows: list[Any] = []
        for plan in self._plans:
            if id(plan) not in first:
                first[id(plan)] = len(self._rows)
                self._rows += plan.rows
        self._first = [first[id(plan)] for plan in self._plans]
        self._at = [0] * n  # the row each sample is at
        self.state = aligned((n, *sampler.shape))
        registers = max(plan.registers for plan in self._plans)
        self._bank = np.empty((registers, n, *sampler.shape), np.float32) if registers else None
        seeds = [secrets.randbits(64) if r.seed is None else r.seed for r in requests]
        self._seeds, self._indices = noise_address(seeds, [r.index for r in requests], n)
        for i, (r, plan) in enumerate(zip(requests, self._plans, strict=True)):
            self._start(i, r, plan)
        self._evaluations: list[tuple[int, int]] | None = None

    def _start(self, i: int, r: Request, plan: Plan) -> None:
        given = start_of(r, plan, i, self._first_request, self._shape, self._seeds, self._indices)
        if given is None:
            only = slice(i, i + 1)
            self._kernel.normals(
                self.state[only],
                seeds=self._seeds[only],
                indices=self._indices[only],
                row=0,
                stream=STREAM_INITIAL,
                scale=plan.initial_scale,
            )
        else:
            given = noise_array(f"noise of request {self._first_request + i}", given, self._shape)
            np.multiply(given, np.float32(plan.initial_scale), out=self.state[i], casting="same_kind")

    @property
    def ticks(self) -> int:
        """How many there will be, but for rows without a call behind a plan's last one."""
        return max(plan.nfe for plan in self._plans)

    def tick(self) -> bool:
        """Every sample that is not done goes on to behind its next network call; False where all are done."""
        active = [i for i, plan in enumerate(self._plans) if self._at[i] < len(plan.rows)]
        if not active:
            return False
        evaluations = [(i, j) for i in active for j in self._wanted(i)]
        if evaluations != self._evaluations and evaluations:
            self._bind(evaluations)
        while silent := [i for i in active if not self._row(i).calls_network]:
            self._apply(silent)
            active = [i for i in active if self._at[i] < len(self._plans[i].rows)]
        if active:
            for call, group, samples, part in self._calls:
                np.take(self.state, samples, axis=0, out=call.x)
                call(self._times(group))
                if self._gathered is not None:
                    self._gathered[part] = call.output
            self._apply(active)
        return True

    def _row(self, i: int) -> Any:
        return self._plans[i].rows[self._at[i]]

    def _next_call(self, i: int) -> Any:
        return next((row for row in self._plans[i].rows[self._at[i] :] if row.calls_network), None)

    def _wanted(self, i: int) -> list[int]:
        row = self._next_call(i)
        return [] if row is None else list(row.reads)

    def _times(self, evaluations: list[tuple[int, int]]) -> float | np.ndarray:
        times = [self._row(i).timestep for i, _ in evaluations]
        return times[0] if times.count(times[0]) == len(times) else np.array(times)

    def _bind(self, evaluations: list[tuple[int, int]]) -> None:
        # Joined: one call for all evaluations. Separate: one for each output number, gathered into one array.
        groups = [[e for e in evaluations if e[1] == j] for j in range(MAX_OUTPUTS)] if self._separate else [evaluations]
        groups = [group for group in groups if group]
        self._calls, self._numbers = [], np.full((len(self._plans), MAX_OUTPUTS), -1, np.int64)
        self._gathered = aligned((len(evaluations), *self._output_shape)) if len(groups) > 1 else None
        first = 0
        for group in groups:
            cond = {name: np.stack([self._conditions[i][j][name] for i, j in group]) for name in self._conditions[0][0]}
            call = self._network.bind(len(group), self._shape, cond, self._output_shape)
            self._calls.append((call, group, np.array([i for i, _ in group]), slice(first, first + len(group))))
            for number, (i, j) in enumerate(group, first):
                self._numbers[i, j] = number
            first += len(group)
        output = self._calls[0][0].output if self._gathered is None else self._gathered
        self._bound = self._kernel.bind(
            self._rows,
            x=self.state,
            out=self.state,
            outputs=[output] * MAX_OUTPUTS,
            registers=self._bank,
            seeds=self._seeds,
            indices=self._indices,
            variance_offset=self._variance_offset,
        )
        self._evaluations = evaluations

    def _apply(self, samples: list[int]) -> None:
        n = len(self._plans)
        rows, noise_rows = np.full(n, -1, np.int64), np.zeros(n, np.uint32)
        for i in samples:
            rows[i], noise_rows[i] = self._first[i] + self._at[i], self._at[i]
        bad = self._bound.run_each(rows, noise_rows, self._numbers)
        if bad >= 0:
            samples = [self._first_request + i for i in self._bound.bad_samples()]
            raise not_finite(self._row(bad), self._at[bad], samples)
        for i in samples:
            self._at[i] += 1


def start_of(r: Request, plan: Plan, i: int, first: int, shape: tuple[int, ...], seeds: np.ndarray, indices: np.ndarray) -> Any:
    """What sample i starts from, before its plan's initial_scale; None is noise of the generator. It is request ``first + i``."""
    check_start(plan, r.data, r.noise)
    if r.data is None:
        return r.noise
    only = slice(i, i + 1)
    return noised(plan, r.data, r.noise, shape, seeds[only], indices[only], of=f" of request {first + i}")


def plans_of(sampler: Sampler, requests: Sequence[Request], first: int) -> list[Plan]:
    """The plan of each request, with its guidance; one object for equal requests. ``first`` is the number of the first one."""
    made: dict[tuple[int, float | None], Plan] = {}
    plans = []
    for i, r in enumerate(requests, first):
        if not isinstance(r, Request):
            raise ArgumentTypeError(f"request {i} is a {type(r).__name__}; give df.Request objects.")
        scale = r.guidance_scale
        if scale is not None and (isinstance(scale, bool) or not isinstance(scale, int | float | np.integer | np.floating)):
            raise ArgumentTypeError(f"request {i}: guidance_scale is {scale!r}; it must be a number.")
        key = (id(r.plan), scale)
        if key not in made:
            made[key] = sampler._plan_of(r.plan, r.guidance_scale)
        plans.append(made[key])
    return plans


def conditions_of(sampler: Sampler, r: Request, plan: Plan, i: int) -> list[Conditions]:
    """Per network output, the conditioning of one sample."""
    device = sampler._device
    given = [_batched(r.cond, device)]
    if any(len(row.g) > 1 for row in plan.rows):
        if sampler._conditioning is None and r.negative_cond is None:
            raise ArgumentError(f"request {i}: guidance with a bare network needs negative_cond: what stands for no condition.")
        given.append(_batched(r.negative_cond, device))
    elif r.negative_cond is not None:
        raise ArgumentError(f"request {i}: negative_cond needs a guidance_scale other than 1.")
    names = (f"cond of request {i}", f"negative_cond of request {i}")
    whole = [conditions(name, c, 1, sampler._conditioning, device) for name, c in zip(names, given, strict=False)]
    return [{name: value[0] for name, value in c.items()} for c in whole]


def check_alike(per_request: list[list[Conditions]], first: int) -> None:
    """What goes into one call of the network must have one form. A model's inputs see to it; a bare network's must be compared."""
    for i, outputs in enumerate(per_request, first):
        for condition in outputs:
            check_form(condition, f"request {i}", per_request[0][0], f"request {first}")


def _batched(cond: Any, device: Any) -> Any:
    """With a batch axis; what is no mapping, or no array, is left to the check."""
    if not isinstance(cond, Mapping):
        return cond
    return {name: _with_axis(name, value, device) for name, value in cond.items()}


def _with_axis(name: Any, value: Any, device: Any) -> Any:
    if is_tensor(value) or isinstance(value, np.ndarray):
        return value[None]
    if not is_on_cuda(value):
        return [value]
    if device is None:
        return value
    with device.scope():
        return device.stack([device.take(f"cond[{name!r}]", value)])
