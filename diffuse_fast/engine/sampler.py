"""A network, a plan and a kernel, bound: the part of the engine that lives as long as its user wants."""

from __future__ import annotations

import copy
import logging
import math
import secrets
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .. import hints
from ..artifact.document import VARIANCES, clear_input_scale, output_shape
from ..errors import ArgumentError, ArgumentTypeError
from ..kernels import get_kernel
from ..kernels.rows import pack
from ..kernels.step import MAX_ELEMENTS, noise_address
from ..model import Model, load
from ..planning import plan_for
from ..plans.plan import INPUT_SCALES, Plan
from ..runtimes import network
from .arguments import callable_or_none, device_noise, dtype_of, is_tensor, noise_array, trait, whole
from .conditioning import Conditions, check_form, conditions
from .device import Device, backend_for
from .device_requests import run_requests_on_device
from .device_workspace import DeviceWorkspace
from .progress import bar
from .requests import Request, run_requests
from .start import check_start, noised
from .workspace import Workspace

_log = logging.getLogger("diffuse_fast")

Seed = int | Sequence[int] | None
Callback = Callable[[int, np.ndarray], Any]

# How the conditional and the other evaluation of guidance reach the network: in one call, or in one after the other.
GUIDANCE_BATCHES = ("joined", "separate")

# Workspaces kept for each size of batch: what a few threads need, and no more memory than that.
_IDLE_PER_BATCH = 8


class Sampler:
    """A model bound to a plan: built once, called many times, from many threads.

    Args:
        model: As for :func:`~diffuse_fast.sample`.
        plan: A plan; or the name of a solver, for the plan that :func:`~diffuse_fast.sample` would follow.
        steps: With a solver's name: its steps.
        shape: Shape of one sample, where the model does not know it.
        variance, input_scale, guidance_scale, guidance_interval, guidance_rescale: As for :func:`~diffuse_fast.sample`; the
            guidance scale is one number.
        guidance_batch, runtime, threads, device, precision, graph: As for :func:`~diffuse_fast.sample`.
        **plan_options: With a solver's name, what :func:`~diffuse_fast.sample` takes for the plan: ``schedule``,
            ``prediction_type``, ``clip``, ``timestep_spacing``, ``timesteps``, options of the solver.

    Example:
        >>> import diffuse_fast as df
        >>> df.Sampler("digits", "ddim", 10).sample(2, seed=1).shape
        (2, 1, 8, 8)
        >>> model = df.load("digits")
        >>> df.Sampler(model, model.plan("ddim", 10)).sample(2, seed=1).shape
        (2, 1, 8, 8)
    """

    def __init__(
        self,
        model: Any,
        plan: Plan | str,
        steps: int | None = None,
        *,
        shape: Sequence[int] | None = None,
        variance: str | None = None,
        input_scale: str | None = None,
        guidance_scale: float = 1.0,
        guidance_interval: tuple[float, float] | None = None,
        guidance_rescale: float = 0.0,
        guidance_batch: str = "joined",
        runtime: str = "auto",
        threads: int | None = None,
        device: str = "auto",
        precision: str = "float32",
        graph: str = "auto",
        **plan_options: Any,
    ):
        if guidance_batch not in GUIDANCE_BATCHES:
            raise ArgumentError(f"guidance_batch is {guidance_batch!r}; it must be one of {', '.join(GUIDANCE_BATCHES)}.")
        model = load(model) if isinstance(model, str | Path) else model
        known = model if isinstance(model, Model) else None
        self.model = model
        self.shape = shape_of_sample(shape, known)
        self._conditioning = known.conditioning if known else None
        self._convention = known.time.convention if known else None
        self._prediction = known.prediction_type if known else None
        self._variance = trait("variance", variance, known, VARIANCES) or "none"
        self._input_scale = trait("input_scale", input_scale, known, INPUT_SCALES)
        self._output_shape = output_shape(self.shape, self._variance)
        self._guidance = guidance_interval, guidance_rescale
        self._guidance_batch = guidance_batch
        self._backend = backend_for(model, runtime, device, graph)
        if self._backend is not None and guidance_batch == "separate":
            raise ArgumentError("guidance_batch is 'separate', which is for the CPU; on a CUDA device leave it out.")
        if self._backend is not None and precision != "float32":
            raise ArgumentError(f"precision is {precision!r}; on a CUDA device a model is computed as it is: 'float32'.")
        if self._backend is not None and threads is not None:
            raise ArgumentError(f"threads is {threads!r}, which is for the CPU; on a CUDA device leave it out.")
        self._graph = graph if graph != "auto" else "none" if self._backend is None else self._backend.network.best_graph
        if self._backend is None:
            self._network: Any = network(model, runtime, threads=threads, precision=precision)
        else:
            self._network = self._backend.network
        self._kernel = get_kernel() if self._backend is None else self._backend.kernel
        self._take_plan(_made(known, plan, steps, plan_options), guidance_scale)
        self._idle: dict[Any, list[Any]] = {}
        self._lock = threading.Lock()

    @property
    def _device(self) -> Device | None:
        """What is sampled on; None is the CPU."""
        return None if self._backend is None else self._backend.device

    def with_plan(self, plan: Plan, guidance_scale: float = 1.0) -> Sampler:
        """The same model by another plan. On a CUDA device both share what has been captured: a graph is of the network and the
        batch, and runs the rows of any plan.

        Example:
            >>> import diffuse_fast as df
            >>> model = df.load("digits")
            >>> ten, five = (df.plan(model.schedule, "ddim", steps, prediction_type=model.prediction_type) for steps in (10, 5))
            >>> df.Sampler(model, ten).with_plan(five).sample(2, seed=1).shape
            (2, 1, 8, 8)
        """
        other = copy.copy(self)
        other._take_plan(plan, guidance_scale)
        if self._backend is not None:  # on the CPU a workspace is bound to its plan
            other._idle, other._lock = self._idle, self._lock
        return other

    def __copy__(self) -> Sampler:
        """The same network, with workspaces of its own."""
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__)
        other._idle, other._lock = {}, threading.Lock()
        return other

    def sample(
        self,
        n: int,
        *,
        seed: Seed = None,
        cond: Mapping[str, Any] | None = None,
        negative_cond: Mapping[str, Any] | None = None,
        data: Any = None,
        noise: Any = None,
        step_noise: Callable[[int], Any] | None = None,
        batch_size: int | None = None,
        first_index: int = 0,
        progress: bool = False,
        callback: Callback | None = None,
    ) -> Any:
        """Draw n samples; options as for :func:`~diffuse_fast.sample`."""
        pieces = self.stream(
            n,
            seed=seed,
            cond=cond,
            negative_cond=negative_cond,
            data=data,
            noise=noise,
            step_noise=step_noise,
            batch_size=batch_size,
            first_index=first_index,
            progress=progress,
            callback=callback,
        )
        return _joined(list(pieces))

    def stream(
        self,
        n: int,
        *,
        seed: Seed = None,
        cond: Mapping[str, Any] | None = None,
        negative_cond: Mapping[str, Any] | None = None,
        data: Any = None,
        noise: Any = None,
        step_noise: Callable[[int], Any] | None = None,
        batch_size: int | None = None,
        first_index: int = 0,
        progress: bool = False,
        callback: Callback | None = None,
    ) -> Iterator[Any]:
        """As :meth:`sample`, one array per batch, as each is done. Arguments are checked before the first."""
        whole("n", n, 1)
        callable_or_none("callback", callback)
        callable_or_none("step_noise", step_noise)
        size = n if batch_size is None else min(n, whole("batch_size", batch_size, 1))
        seeds, indices = seeds_of(seed, n, first_index)
        as_tensor = is_tensor(noise) or is_tensor(data) or self._network.name == "torch"
        start = self._start(data, noise, n, seeds, indices)
        conditions = self._conditions(cond, negative_cond, n)
        if step_noise is not None and n > size:
            raise ArgumentError("step_noise is given for the whole batch; leave batch_size out.")
        return self._run(n, size, seeds, indices, start, conditions, step_noise, as_tensor, progress, callback)

    def sample_requests(
        self,
        requests: Sequence[Request],
        *,
        batch_size: int | None = None,
        progress: bool = False,
        callback: Callback | None = None,
    ) -> Any:
        """Draw samples that have nothing in common but the model: each its own plan, seed, guidance and conditioning.

        With a network whose result for a sample does not depend on the batch, each is bit for bit what it is alone.

        Args:
            requests: What is asked for, from 1.
            batch_size: Samples that run together at most.
            progress: Show a bar for each batch.
            callback: Called as ``callback(tick, x)`` after each joint call of the network; x is a view, not to be kept.

        Returns:
            (len(requests), *shape) float32, in the order of the requests, the caller's own: NumPy, or for a torch module on a CUDA
            device a tensor there.

        Raises:
            ArgumentError, ArgumentTypeError: a request does not fit the model; the message says which.
            NonFiniteError: the network returned NaN or Inf for a request; ``samples`` are numbers of requests.
        """
        if not isinstance(requests, Iterable):
            raise ArgumentTypeError(f"requests is a {type(requests).__name__}; give a list of df.Request.")
        callable_or_none("callback", callback)
        requests = list(requests)
        if not requests:
            raise ArgumentError("requests is empty; give at least one.")
        size = len(requests) if batch_size is None else whole("batch_size", batch_size, 1)
        run = run_requests if self._backend is None else run_requests_on_device
        return _joined([run(self, requests[i : i + size], i, callback, progress) for i in range(0, len(requests), size)])

    def _run(self, n, size, seeds, indices, start, conditions, step_noise, as_tensor, progress, callback) -> Iterator[Any]:
        with bar(progress, -(-n // size) * len(self.plan.rows)) as advance:
            for first in range(0, n, size):
                part = slice(first, min(n, first + size))
                chosen = [{name: value[part] for name, value in c.items()} for c in conditions]
                space, key = self._take_for(part.stop - part.start, chosen)
                given = seeds[part], indices[part], None if start is None else start[part], step_noise, advance, callback, first
                if self._backend is None:
                    space.run(*given)
                    result = space.state.copy()
                else:
                    space.run(self.plan, self._packed, self._graph, *given)
                    result = self._backend.device.own(space.state, as_tensor)
                self._give_back(key, space)
                yield sys.modules["torch"].from_numpy(result) if as_tensor and isinstance(result, np.ndarray) else result

    # ---- workspaces -----------------------------------------------------------------------------

    def _take_for(self, batch: int, conditions: list[Conditions]) -> tuple[Any, Any]:
        """A workspace for this batch and conditioning, and the key to give it back under."""
        key = (batch, len(conditions), *((name, tuple(v.shape), dtype_of(v)) for name, v in conditions[0].items()))
        with self._lock:
            idle = self._idle.get(key)
            space = idle.pop() if idle else None
        if space is None:
            made = Workspace if self._backend is None else DeviceWorkspace
            return made(self, batch, conditions), key
        space.condition(conditions)
        return space, key

    def _give_back(self, key: Any, space: Any) -> None:
        with self._lock:
            idle = self._idle.setdefault(key, [])
            if len(idle) < _IDLE_PER_BATCH:
                idle.append(space)

    # ---- plans and conditions -------------------------------------------------------------------

    def _take_plan(self, plan: Plan, guidance_scale: float) -> None:
        if not isinstance(plan, Plan):
            raise ArgumentTypeError(f"plan is a {type(plan).__name__}; give what df.plan() returns.")
        self._unguided = plan
        self.plan = self._guided_plan(plan, guidance_scale)
        self.guided = any(len(row.g) > 1 for row in self.plan.rows)
        self._packed: Any = pack(self.plan.rows) if self._kernel.name != "reference" else self.plan.rows

    def _plan_of(self, plan: Plan | None, guidance_scale: float | None) -> Plan:
        """The plan of a request: its own or this sampler's, with its guidance or this sampler's."""
        if plan is not None and not isinstance(plan, Plan):
            raise ArgumentTypeError(f"a request's plan is a {type(plan).__name__}; give what df.plan() returns.")
        if plan is None and guidance_scale is None:
            chosen = self.plan
        else:
            chosen = self._guided_plan(plan or self._unguided, 1.0 if guidance_scale is None else guidance_scale)
        if chosen.nfe == 0:
            raise ArgumentError("a request's plan never calls the network.")
        return chosen

    def _guided_plan(self, plan: Plan, scale: float) -> Plan:
        """The plan with guidance, checked against what the model can do."""
        told, takes = dict(plan.options).get("time_convention"), self._convention
        if None not in (told, takes) and told != takes:
            raise ArgumentError(
                f"the plan tells the network {told!r}, but this model takes {takes!r}; make it with time_convention={takes!r}."
            )
        if self._prediction not in (None, plan.prediction_type):
            raise ArgumentError(
                f"the plan is for a network that predicts {plan.prediction_type!r}, but this model predicts {self._prediction!r}; "
                f"make it with prediction_type={self._prediction!r}."
            )
        interval, rescale = self._guidance
        plan = plan.with_guidance(scale, interval=interval, rescale=rescale)
        scaled = any(alpha != 1.0 for alpha, _ in plan.marginals[:-1])
        plan = plan.with_input_scale(clear_input_scale(self._input_scale, plan.prediction_type, scaled=scaled))
        weighed = max(len(row.g) for row in plan.rows)
        if weighed > 1 and self._conditioning == ():
            raise ArgumentError("guidance_scale is not 1, but the model has no conditioning to guide by.")
        if weighed > 2:
            raise ArgumentError(f"the plan weighs {weighed} network outputs; a Sampler makes two, with and without the condition.")
        if any(row.log_s is not None for row in plan.rows):
            takes = dict(plan.options).get("variance_type", self._variance)
            if self._variance == "none":
                raise ArgumentError(
                    f"the plan has a learned standard deviation, but the model predicts no variance. Of a network with twice the "
                    f"channels, say variance={takes if takes in VARIANCES else 'learned_range'!r}."
                )
            if takes != self._variance:
                raise ArgumentError(
                    f"the plan takes the variance as {takes!r}, but the network's is {self._variance!r}; make the plan with "
                    f"variance_type={self._variance!r}."
                )
        return plan

    def _start(self, data: Any, noise: Any, n: int, seeds: np.ndarray, indices: np.ndarray) -> Any:
        """What n samples start from, before the plan's initial_scale; None is noise of the generator."""
        check_start(self.plan, data, noise)
        return self._noise(noise, n) if data is None else noised(self.plan, data, noise, (n, *self.shape), seeds, indices)

    def _noise(self, noise: Any, n: int) -> Any:
        """The noise of n samples, on the host or where it lies on the device; None where none is given."""
        if noise is None:
            return None
        shape = (n, *self.shape)
        return noise_array("noise", noise, shape) if self._device is None else device_noise("noise", noise, shape, self._device)

    def _conditions(self, cond: Any, negative: Any, n: int) -> list[Conditions]:
        """One dict of (n, ...) arrays per network output: the conditional one, and with guidance the other."""
        if not self.guided:
            if negative is not None:
                raise ArgumentError("negative_cond needs a guidance_scale other than 1.")
            return [conditions("cond", cond, n, self._conditioning, self._device)]
        if self._conditioning is None and negative is None:
            raise ArgumentError("guidance with a bare network needs negative_cond: what stands for no condition.")
        with_, without = (
            conditions(name, c, n, self._conditioning, self._device) for name, c in (("cond", cond), ("negative_cond", negative))
        )
        check_form(without, "negative_cond", with_, "cond")
        return [with_, without]


def _made(known: Model | None, plan: Any, steps: int | None, options: dict[str, Any]) -> Any:
    """The plan that is given, or that of a solver's name."""
    if isinstance(plan, str):
        return plan_for(known, plan, steps, **options)
    if steps is not None or options:
        name = "steps" if steps is not None else next(iter(options))
        hint = hints.of_keyword(name) or " It is part of a plan, which is given here: leave it out, or give the name of a solver."
        raise ArgumentTypeError(f"a Sampler of a plan has no option {name!r}.{hint}")
    return plan


def _joined(pieces: list[Any]) -> Any:
    if len(pieces) == 1:
        return pieces[0]
    return np.concatenate(pieces) if isinstance(pieces[0], np.ndarray) else sys.modules["torch"].cat(pieces)


def seeds_of(seed: Seed, n: int, first_index: int) -> tuple[np.ndarray, np.ndarray]:
    """Seed and index of every sample; a fresh seed is logged."""
    whole("first_index", first_index, 0)
    if seed is None:
        seed = secrets.randbits(64)
        _log.info("seed: %d", seed)
    elif isinstance(seed, bool) or not isinstance(seed, int | np.integer | Sequence | np.ndarray) or isinstance(seed, str):
        raise ArgumentTypeError(f"seed is a {type(seed).__name__}; give a whole number, a list of them, or None.")
    many = not isinstance(seed, int | np.integer)
    if many and first_index:
        raise ArgumentError(f"first_index is {first_index}, but each of a list of seeds has its index 0; leave first_index out.")
    return noise_address(seed, None if many else first_index, n)


# NumPy before 2.0 has 32; one is the batch's and one the registers'.
_MAX_AXES = 30


def shape_of_sample(given: Sequence[int] | None, model: Model | None) -> tuple[int, ...]:
    if given is None:
        if model is None:
            raise ArgumentError("shape is not known: this model does not say it; give shape=.")
        given = model.shape
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise ArgumentTypeError(f"shape is {given!r}; give the dimensions of one sample, as (3, 64, 64).")
    shape = tuple(whole("a dimension of shape", d, 1) for d in given)
    if len(shape) > _MAX_AXES:
        raise ArgumentError(f"shape has {len(shape)} dimensions; a sample has at most {_MAX_AXES}.")
    if math.prod(shape) > MAX_ELEMENTS:
        raise ArgumentError(f"shape is {shape}: {math.prod(shape)} elements; a sample has at most 2**34.")
    if model is not None and shape != model.shape:
        raise ArgumentError(f"shape is {shape}; this model's samples have {model.shape}.")
    return shape
