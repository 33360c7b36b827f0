"""The engine: a network, a plan, a kernel, and the loop that runs them. ``sample`` is a thin call of :class:`Sampler`."""

from __future__ import annotations

import dataclasses
import logging
import math
import secrets
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .errors import ArgumentError, ArgumentTypeError, KernelUnavailableError, NonFiniteError
from .kernels import get_kernel
from .kernels.reference import STREAM_INITIAL
from .kernels.step import noise_address
from .model import Model, load
from .plan import MAX_REGISTERS, Plan
from .runtimes import network
from .schedule import Schedule
from .solvers import plan as make_plan

_log = logging.getLogger("diffuse_fast")

Seed = int | Sequence[int] | None
Callback = Callable[[int, np.ndarray], Any]


def sample(
    model: Any,
    n: int,
    steps: int | None = None,
    *,
    solver: str = "ddim",
    seed: Seed = None,
    timestep_spacing: str | None = None,
    timesteps: Any = None,
    guidance_scale: float = 1.0,
    cond: Mapping[str, Any] | None = None,
    negative_cond: Mapping[str, Any] | None = None,
    shape: Sequence[int] | None = None,
    schedule: Schedule | None = None,
    prediction_type: str | None = None,
    clip: tuple[float, float] | bool | None = None,
    noise: Any = None,
    step_noise: Callable[[int], Any] | None = None,
    batch_size: int | None = None,
    first_index: int = 0,
    runtime: str = "auto",
    device: str = "auto",
    precision: str = "float32",
    progress: bool = False,
    callback: Callback | None = None,
    **solver_options: Any,
) -> Any:
    """Draw ``n`` samples from a diffusion model in ``steps`` steps.

    Args:
        model: A path to an artifact or a bundled name, a ``df.Model``, a ``torch.nn.Module``, an onnxruntime session, or any
            callable ``f(x, t, **cond)`` with x (batch, *shape) float32 and t (batch,).
        n: Number of samples, from 1.
        steps: Intervals of the time grid (num_inference_steps); None with ``timesteps``.
        solver: Name of a solver; ``df.solvers()`` lists them.
        seed: One seed (samples are its indices 0..n-1), a list of n seeds (each sample is its seed's index 0), or None for a
            fresh one, which is logged.
        timestep_spacing, timesteps: How the grid is laid, or the grid itself, falling.
        guidance_scale: Classifier-free guidance; 1 is the conditional model at the cost of one evaluation.
        cond, negative_cond: Conditioning by input name; each value one for all samples, or one per sample. What is left out
            takes the model's null value.
        shape, schedule, prediction_type: What an artifact knows and a bare callable must be told.
        clip: None for what the artifact says (a callable: no clip), False for none, or (lo, hi).
        noise: N(0, 1) of shape (n, *shape) to start from, in place of the generator.
        step_noise: ``i -> N(0, 1)`` of that shape for row i, in place of the generator.
        batch_size: Samples per network call at most; bounds memory and changes no result of a batch-invariant network.
        first_index: Index of the first sample under ``seed``: continue where another call stopped.
        runtime: ``auto`` or the name of a runtime. device: ``auto`` or ``cpu``. precision: ``float32``.
        progress: Show a bar. callback: Called as ``callback(row, x)`` after each row; x is a view, not to be kept.
        **solver_options: Options of the solver (``eta``, ``variance_type``, ...).

    Returns:
        (n, *shape) float32, the caller's own: a NumPy array; a tensor for a torch module or where ``noise`` is one.

    Raises:
        DiffuseFastError: see :mod:`diffuse_fast.errors`; every error is also the built-in one would expect.

    Example:
        >>> import diffuse_fast as df
        >>> df.sample("digits", 4, 10, seed=0, cond={"label": 7}).shape
        (4, 1, 8, 8)
    """
    if isinstance(model, str | Path):
        model = load(model)
    known = model if isinstance(model, Model) else None
    schedule = _told("schedule", schedule, known)
    prediction_type = _told("prediction_type", prediction_type, known)
    table = make_plan(
        schedule, solver, steps, prediction_type=prediction_type, clip=_clip(clip, known),
        timestep_spacing=timestep_spacing, timesteps=timesteps, **solver_options,
    )  # fmt: skip
    sampler = Sampler(model, table, shape=shape, guidance_scale=guidance_scale, runtime=runtime, device=device, precision=precision)
    return sampler.sample(
        n, seed=seed, cond=cond, negative_cond=negative_cond, noise=noise, step_noise=step_noise, batch_size=batch_size,
        first_index=first_index, progress=progress, callback=callback,
    )  # fmt: skip


class Sampler:
    """A model bound to a plan: built once, called many times, from many threads.

    Args:
        model: As for :func:`sample`.
        plan: A plan.
        shape: Shape of one sample, where the model does not know it.
        guidance_scale, runtime, device, precision: As for :func:`sample`.

    Example:
        >>> import diffuse_fast as df
        >>> model = df.load("digits")
        >>> plan = df.plan(model.schedule, "ddim", 10, prediction_type=model.prediction_type, clip=model.clip)
        >>> df.Sampler(model, plan).sample(2, seed=1).shape
        (2, 1, 8, 8)
    """

    def __init__(
        self,
        model: Any,
        plan: Plan,
        *,
        shape: Sequence[int] | None = None,
        guidance_scale: float = 1.0,
        runtime: str = "auto",
        device: str = "auto",
        precision: str = "float32",
    ):
        if not isinstance(plan, Plan):
            raise ArgumentTypeError(f"plan is a {type(plan).__name__}; give what df.plan() returns.")
        if device not in ("auto", "cpu"):
            raise KernelUnavailableError(f"device is {device!r}; this version samples on 'cpu' only.")
        if precision != "float32":
            raise ArgumentError(f"precision is {precision!r}; the runtimes of this version have 'float32'.")
        model = load(model) if isinstance(model, str | Path) else model
        known = model if isinstance(model, Model) else None
        self.model, self.plan = model, plan.with_guidance(guidance_scale)
        self.shape = tuple(int(d) for d in _told("shape", shape, known))
        if not all(d >= 1 for d in self.shape):
            raise ArgumentError(f"shape is {self.shape}; every dimension must be at least 1.")
        if known is not None and self.shape != known.shape:
            raise ArgumentError(f"shape is {self.shape}; this model's samples have {known.shape}.")
        self.guided = any(len(row.g) > 1 for row in self.plan.rows)
        self._conditioning = known.conditioning if known else None
        if self.guided and self._conditioning == ():
            raise ArgumentError("guidance_scale is not 1, but the model has no conditioning to guide by.")
        self._output_shape = known.output_shape if known else self.shape
        weighed = max(len(row.g) for row in self.plan.rows)
        if weighed > 2:
            raise ArgumentError(f"the plan weighs {weighed} network outputs; a Sampler makes two, with and without the condition.")
        if any(row.log_s is not None for row in self.plan.rows) and self._output_shape == self.shape:
            raise ArgumentError("the plan has a learned standard deviation, but the model predicts no variance.")
        self._network = network(model, runtime)
        self._kernel = get_kernel()
        self._idle: dict[int, list[_Workspace]] = {}
        self._lock = threading.Lock()

    def sample(self, n: int, **options: Any) -> Any:
        """Draw n samples; options as for :func:`sample` (seed, cond, negative_cond, noise, step_noise, batch_size,
        first_index, progress, callback)."""
        pieces = list(self.stream(n, **options))
        if len(pieces) == 1:
            return pieces[0]
        if isinstance(pieces[0], np.ndarray):
            return np.concatenate(pieces)
        return sys.modules["torch"].cat(pieces)

    def stream(
        self,
        n: int,
        *,
        seed: Seed = None,
        cond: Mapping[str, Any] | None = None,
        negative_cond: Mapping[str, Any] | None = None,
        noise: Any = None,
        step_noise: Callable[[int], Any] | None = None,
        batch_size: int | None = None,
        first_index: int = 0,
        progress: bool = False,
        callback: Callback | None = None,
    ) -> Iterator[Any]:
        """As :meth:`sample`, one array per batch, as each is done. Arguments are checked before the first."""
        _whole("n", n, 1)
        _whole("first_index", first_index, 0)
        size = n if batch_size is None else min(n, _whole("batch_size", batch_size, 1))
        if seed is None:
            seed = secrets.randbits(64)
            _log.info("seed: %d", seed)
        elif isinstance(seed, bool) or not isinstance(seed, int | np.integer | Sequence | np.ndarray) or isinstance(seed, str):
            raise ArgumentTypeError(f"seed is a {type(seed).__name__}; give a whole number, a list of them, or None.")
        many = not isinstance(seed, int | np.integer)
        seeds, indices = noise_address(seed, None if many else first_index, n)
        as_tensor = _is_tensor(noise) or self._network.name == "torch"
        start = None if noise is None else self._noise_array("noise", noise, n)
        conditions = self._conditions(cond, negative_cond, n)
        if step_noise is not None and n > size:
            raise ArgumentError("step_noise is given for the whole batch; leave batch_size out.")
        return self._run(n, size, seeds, indices, start, conditions, step_noise, as_tensor, progress, callback)

    def _run(self, n, size, seeds, indices, start, conditions, step_noise, as_tensor, progress, callback) -> Iterator[Any]:
        with _bar(progress, -(-n // size) * len(self.plan.rows)) as advance:
            for first in range(0, n, size):
                part = slice(first, min(n, first + size))
                chosen = [{name: value[part] for name, value in c.items()} for c in conditions]
                space = self._take(part.stop - part.start, chosen)
                space.run(seeds[part], indices[part], None if start is None else start[part], step_noise, advance, callback, first)
                result = space.state.copy()
                self._give_back(space)
                yield sys.modules["torch"].from_numpy(result) if as_tensor else result

    # ---- workspaces -----------------------------------------------------------------------------

    def _take(self, batch: int, conditions: list[dict[str, np.ndarray]]) -> _Workspace:
        if not conditions[0]:
            with self._lock:
                idle = self._idle.get(batch)
                if idle:
                    return idle.pop()
        return _Workspace(self, batch, conditions)

    def _give_back(self, space: _Workspace) -> None:
        # Conditioning is copied into the runtime's buffers, so only workspaces without it serve another call.
        if space.reusable:
            with self._lock:
                self._idle.setdefault(space.batch, []).append(space)

    # ---- arguments ------------------------------------------------------------------------------

    def _noise_array(self, name: str, value: Any, n: int) -> np.ndarray:
        if _is_tensor(value):
            if value.requires_grad:
                raise ArgumentError(f"{name} requires grad; pass {name}.detach().")
            value = value.float().cpu().numpy()
        array = np.asarray(value)
        if array.shape != (n, *self.shape):
            raise ArgumentError(f"{name} has shape {array.shape}; it must be {(n, *self.shape)}.")
        if array.dtype.kind != "f":
            raise ArgumentTypeError(f"{name} has dtype {array.dtype}; it must be floating.")
        return array

    def _conditions(self, cond: Any, negative: Any, n: int) -> list[dict[str, np.ndarray]]:
        """One dict of (n, ...) arrays per network output: the conditional one, and with guidance the other."""
        if not self.guided:
            if negative is not None:
                raise ArgumentError("negative_cond needs a guidance_scale other than 1.")
            return [self._condition("cond", cond, n)]
        if self._conditioning is None and negative is None:
            raise ArgumentError("guidance with a bare network needs negative_cond: what stands for no condition.")
        return [self._condition("cond", cond, n), self._condition("negative_cond", negative, n)]

    def _condition(self, argument: str, given: Any, n: int) -> dict[str, np.ndarray]:
        if given is not None and not isinstance(given, Mapping):
            raise ArgumentTypeError(f"{argument} is a {type(given).__name__}; give a dict from input names to values.")
        values = dict(given or {})
        if self._conditioning is None:  # a bare network: per sample as given, scalars for all
            return {name: _per_sample(f"{argument}[{name!r}]", v, n, None, None) for name, v in values.items()}
        known = {c.name: c for c in self._conditioning}
        for name in values:
            if name not in known:
                raise ArgumentError(f"{argument} has {name!r}; the model's conditioning inputs: {', '.join(known) or 'none'}.")
        out = {}
        for name, c in known.items():
            value = values.get(name, c.null)
            if value is None:
                raise ArgumentError(f"{argument} lacks {name!r}, and the model has no null value for it.")
            array = _per_sample(f"{argument}[{name!r}]", value, n, tuple(c.shape), c.dtype)
            if c.classes is not None and name in values and ((array < 0) | (array > max(c.classes - 1, c.null or 0))).any():
                raise ArgumentError(f"{argument}[{name!r}] has a label outside 0..{c.classes - 1}.")
            out[name] = array
        return out


class _Workspace:
    """The buffers of one batch, owned by one call at a time."""

    def __init__(self, sampler: Sampler, batch: int, conditions: list[dict[str, np.ndarray]]):
        self.batch, self.reusable = batch, not conditions[0]
        self._plan, self._kernel = sampler.plan, sampler._kernel
        both = {name: np.concatenate([c[name] for c in conditions]) for name in conditions[0]}
        outputs = len(conditions)
        self._call = sampler._network.bind(outputs * batch, sampler.shape, both, sampler._output_shape)
        self.state = self._call.x[:batch]
        self._copies = [self._call.x[j * batch : (j + 1) * batch] for j in range(1, outputs)]
        self._outputs = [self._call.output[j * batch : (j + 1) * batch] for j in range(outputs)]
        self._shape = sampler.shape
        # The variance is the second half of the channels, right behind the prediction.
        self._variance_offset = math.prod(sampler.shape) if sampler._output_shape != sampler.shape else -1
        self._noise_array = sampler._noise_array

    def run(self, seeds, indices, start, step_noise, advance, callback, first_sample) -> None:
        plan, state, call = self._plan, self.state, self._call
        rows, registers = plan.rows, plan.registers
        if step_noise is not None:
            # The given noise takes the place of z as one register more, which comes where z would in the sum.
            if registers == MAX_REGISTERS or any(r.log_s is not None or r.reduce is not None for r in rows):
                raise ArgumentError("step_noise cannot replace the generator in this plan.")
            rows = tuple(
                dataclasses.replace(r, s=0.0, c=(*r.c, *(0.0,) * (registers - len(r.c)), r.s)) if r.s else r for r in rows
            )
            registers += 1
        bank = np.empty((registers, self.batch, *self._shape), np.float32) if registers else None
        if start is None:
            self._kernel.normals(state, seeds=seeds, indices=indices, row=0, stream=STREAM_INITIAL, scale=plan.initial_scale)
        else:
            np.multiply(start, np.float32(plan.initial_scale), out=state, casting="same_kind")
        bound = self._kernel.bind(rows, x=state, out=state, outputs=self._outputs, registers=bank, seeds=seeds, indices=indices,
                                  variance_offset=self._variance_offset)  # fmt: skip
        apply = bound.run
        for i, row in enumerate(plan.rows):
            if row.calls_network:
                for copy in self._copies:
                    copy[...] = state
                call(row.timestep)
            if step_noise is not None and row.s:
                bank[-1] = self._noise_array(f"step_noise({i})", step_noise(i), self.batch)
            if apply(i, i) >= 0:
                samples = tuple(first_sample + s for s in bound.bad_samples())
                raise NonFiniteError(
                    f"the network returned NaN or Inf at row {i} (timestep {row.timestep:g}) for sample "
                    f"{', '.join(map(str, samples[:8]))}{' and more' if len(samples) > 8 else ''}.",
                    row=i, samples=samples,
                )  # fmt: skip
            if advance is not None:
                advance()
            if callback is not None:
                callback(i, state)


def _told(name: str, given: Any, model: Model | None) -> Any:
    value = given if given is not None else getattr(model, name, None)
    if value is None:
        raise ArgumentError(f"{name} is not known: this model does not say it; give {name}=.")
    if given is not None and name == "schedule" and not isinstance(given, Schedule):
        raise ArgumentTypeError(f"schedule is a {type(given).__name__}; give a df.Schedule.")
    return value


def _clip(clip: Any, model: Model | None) -> tuple[float, float] | None:
    if clip is None:
        return model.clip if model else None
    if clip is False:
        return None
    if clip is True or not isinstance(clip, tuple | list) or len(clip) != 2:
        raise ArgumentError(f"clip is {clip!r}; give None for the model's own, False for none, or a pair (lo, hi).")
    return float(clip[0]), float(clip[1])


def _whole(name: str, value: Any, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise ArgumentTypeError(f"{name} is {value!r}; it must be a whole number.")
    if value < least:
        raise ArgumentError(f"{name} is {value}; it must be at least {least}.")
    return int(value)


def _per_sample(name: str, value: Any, n: int, shape: tuple[int, ...] | None, dtype: str | None) -> np.ndarray:
    array = np.asarray(value.detach().cpu() if _is_tensor(value) else value)
    if dtype is not None:
        if not np.can_cast(array.dtype, dtype, "same_kind"):
            raise ArgumentTypeError(f"{name} has dtype {array.dtype}; the model takes {dtype}.")
        array = array.astype(dtype)
    if (shape is not None and array.shape == shape) or (shape is None and array.ndim == 0):
        array = np.broadcast_to(array, (n, *array.shape))
    if array.shape[:1] != (n,) or (shape is not None and array.shape[1:] != shape):
        raise ArgumentError(f"{name} has shape {array.shape}; give one value for all, or one per sample ({n}).")
    return array


def _is_tensor(value: Any) -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


class _bar:
    """A progress bar over all rows, or nothing; gives the function that advances it, or None."""

    def __init__(self, show: bool, total: int):
        self._progress = None
        if show:
            try:
                from rich.console import Console
                from rich.progress import Progress
            except ImportError:
                _log.warning("progress=True needs rich: pip install 'diffuse-fast[cli]'")
            else:
                self._progress = Progress(console=Console(stderr=True))
                self._task = self._progress.add_task("sampling", total=total)

    def __enter__(self) -> Callable[[], None] | None:
        if self._progress is None:
            return None
        self._progress.start()
        return lambda: self._progress.advance(self._task)

    def __exit__(self, *_: object) -> None:
        if self._progress is not None:
            self._progress.stop()
