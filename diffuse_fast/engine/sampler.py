"""A model bound to a plan: the part of the engine that lives as long as its user wants."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from .. import hints
from ..checks import require_int
from ..errors import ArgumentError, ArgumentTypeError
from ..model import Model, load
from ..planning import plan_for
from ..plans.plan import Plan
from .arguments import Seed, callable_or_none, is_tensor, seeds_of
from .known_region import known_region
from .loop import draw_batch, draw_requests, joined, slots_class
from .request import Batch, Defaults, Request
from .setup import check_plan, setup_for
from .slots import OnRow, Pool
from .start import start_of


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

    Attributes:
        model: The model.
        plan: The plan, with guidance.
        setup: The network, kernel and device that were chosen.

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
        model = load(model) if isinstance(model, str | Path) else model
        self.model = model
        self.setup = setup_for(
            model,
            shape=shape,
            variance=variance,
            input_scale=input_scale,
            guidance_interval=guidance_interval,
            guidance_rescale=guidance_rescale,
            guidance_batch=guidance_batch,
            runtime=runtime,
            threads=threads,
            device=device,
            precision=precision,
            graph=graph,
        )
        self._take_plan(_made(model if isinstance(model, Model) else None, plan, steps, plan_options), guidance_scale)
        self._pool = Pool()

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one sample."""
        return self.setup.shape

    def with_plan(self, plan: Plan, guidance_scale: float = 1.0) -> Sampler:
        """Return a sampler of the same model with another plan. Both share the slots that take any plan, and a device's graphs.

        Example:
            >>> import diffuse_fast as df
            >>> model = df.load("digits")
            >>> ten, five = (df.plan(model.schedule, "ddim", steps, prediction_type=model.prediction_type) for steps in (10, 5))
            >>> df.Sampler(model, ten).with_plan(five).sample(2, seed=1).shape
            (2, 1, 8, 8)
        """
        other = copy.copy(self)
        other._take_plan(plan, guidance_scale)
        if slots_class(self.setup).any_plan:
            other._pool = self._pool
        return other

    def __copy__(self) -> Sampler:
        """Return a sampler of the same network, with slots of its own."""
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__)
        other._pool = Pool()
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
        known: Any = None,
        mask: Any = None,
        step_noise: Callable[[int], Any] | None = None,
        batch_size: int | None = None,
        first_index: int = 0,
        progress: bool = False,
        callback: OnRow | None = None,
    ) -> Any:
        """Draw n samples; options as for :func:`~diffuse_fast.sample`."""
        pieces = self.stream(
            n,
            seed=seed,
            cond=cond,
            negative_cond=negative_cond,
            data=data,
            noise=noise,
            known=known,
            mask=mask,
            step_noise=step_noise,
            batch_size=batch_size,
            first_index=first_index,
            progress=progress,
            callback=callback,
        )
        return joined(list(pieces))

    def stream(
        self,
        n: int,
        *,
        seed: Seed = None,
        cond: Mapping[str, Any] | None = None,
        negative_cond: Mapping[str, Any] | None = None,
        data: Any = None,
        noise: Any = None,
        known: Any = None,
        mask: Any = None,
        step_noise: Callable[[int], Any] | None = None,
        batch_size: int | None = None,
        first_index: int = 0,
        progress: bool = False,
        callback: OnRow | None = None,
    ) -> Iterator[Any]:
        """Draw n samples, and yield one array per batch as soon as it is done; options as for :func:`~diffuse_fast.sample`.

        Arguments are checked before the first batch.
        """
        require_int("n", n, 1)
        callable_or_none("callback", callback)
        callable_or_none("step_noise", step_noise)
        size = n if batch_size is None else min(n, require_int("batch_size", batch_size, 1))
        seeds, indices = seeds_of(seed, n, first_index)
        as_tensor = is_tensor(noise) or is_tensor(data) or self.setup.network.name == "torch"
        region = known_region(known, mask, n, self.setup.shape)
        plan = self.plan if region is None else self.setup.plan(self._given_plan, self._guidance_scale, known=True)
        start = start_of(plan, data, noise, (n, *self.setup.shape), seeds, indices, self.setup.device)
        conditions = self.setup.conditions(plan, cond, negative_cond, n)
        if step_noise is not None and n > size:
            raise ArgumentError("step_noise is given for the whole batch; leave batch_size out.")
        batch = Batch(plan, seeds, indices, conditions, start, region, step_noise)
        return draw_batch(self.setup, self._pool, batch, size, as_tensor=as_tensor, progress=progress, callback=callback)

    def sample_requests(
        self, requests: Sequence[Request], *, batch_size: int | None = None, progress: bool = False, callback: OnRow | None = None
    ) -> Any:
        """Draw samples that share the model only: each has its own plan, seed, guidance, conditioning and known region.

        With a batch-invariant network, each sample has the same bits as when it is drawn alone.

        Args:
            requests: The requests, at least one.
            batch_size: The most samples that run together. A request is checked when its batch begins, after the batches before it
                have been drawn; without ``batch_size`` all are checked first.
            progress: Show a bar for each batch.
            callback: Called as ``callback(tick, x)`` after each joint call of the network; x is a view that changes.

        Returns:
            (len(requests), *shape) float32, in the order of the requests: a new NumPy array, or for a torch module on a CUDA device
            a tensor on it.

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
        size = len(requests) if batch_size is None else require_int("batch_size", batch_size, 1)
        defaults = Defaults(self._given_plan, self._guidance_scale)
        return draw_requests(self.setup, self._pool, defaults, requests, size, progress=progress, callback=callback)

    def _take_plan(self, plan: Any, guidance_scale: float) -> None:
        self._given_plan, self._guidance_scale = check_plan(plan), guidance_scale
        self.plan = self.setup.plan(self._given_plan, guidance_scale)


def _made(known: Model | None, plan: Any, steps: int | None, options: dict[str, Any]) -> Any:
    """Return the plan that is given, or make that of a solver's name."""
    if isinstance(plan, str):
        return plan_for(known, plan, steps, **options)
    if steps is not None or options:
        name = "steps" if steps is not None else next(iter(options))
        hint = hints.of_keyword(name) or " It is part of a plan, which is given here: leave it out, or give the name of a solver."
        raise ArgumentTypeError(f"a Sampler of a plan has no option {name!r}.{hint}")
    return plan
