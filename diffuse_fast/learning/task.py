"""The measure of a plan: the distance of its results to those of a fine solver from the same noise."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ..artifact.document import VARIANCES, output_shape
from ..engine.arguments import trait
from ..engine.probability_flow import takes_by_alpha
from ..engine.sampler import Sampler
from ..errors import ArgumentError
from ..kernels import get_kernel
from ..kernels.reference import STREAM_INITIAL
from ..kernels.step import noise_address
from ..model import Model
from ..plans.plan import Plan
from ..runtimes import BoundCall, network
from ..solver import plan as make_plan
from .table import Multistep, empty_grid, to_plan

# The fine solver: second order, in the data form, which is compatible with clipping; dense at low noise.
REFERENCE = "dpmpp_2m"
REFERENCE_SPACING: dict[str, Any] = {"timestep_spacing": "power", "rho": 1.5}


class Task:
    """A model, noises and conditions, and the fine solver's results from them.

    The samples are those of ``df.sample(..., seed=seed, cond=cond)``: the first ``samples`` for fitting, and ``held_out`` more for
    evaluation.

    Args:
        model: As for :func:`diffuse_fast.sample`.
        schedule, prediction_type, clip, shape: Known from an artifact; required for a bare network.
        variance, input_scale: As for :func:`diffuse_fast.sample`.
        samples, held_out, seed: Of the noises.
        cond: Values to draw conditions from, by input name, each (k, *shape of the input); see :func:`learn_solver`.
        reference_steps: Steps of the fine solver.
        batch_size: Samples per network call.
        runtime: As for :func:`diffuse_fast.sample`.
        report: Told what is done.
    """

    def __init__(
        self,
        model: Any,
        *,
        schedule: Any,
        prediction_type: str,
        clip: tuple[float, float] | None,
        shape: Any,
        samples: int,
        held_out: int,
        seed: int,
        cond: Mapping[str, Any] | None,
        reference_steps: int,
        batch_size: int,
        runtime: str,
        report: Callable[[str], None],
        variance: str | None = None,
        input_scale: str | None = None,
    ):
        self.model, self.schedule, self.prediction_type, self.clip = model, schedule, prediction_type, clip
        self.samples, self.held_out, self.seed, self.batch_size = samples, held_out, seed, batch_size
        self._runtime = runtime
        known = model if isinstance(model, Model) else None
        self.shape = tuple(known.shape if known else shape)
        self._variance, self._input_scale = variance, input_scale
        self._output_shape = output_shape(self.shape, trait("variance", variance, known, VARIANCES) or "none")
        self._network = network(model, runtime)
        discrete = known is not None and known.time.dtype != "float32"
        self.plan_options: dict[str, Any] = {
            "time_convention": known.time.convention if known else schedule.time_conventions[0],
            "timestep_rounding": "nearest" if discrete else "none",
        }
        self.grid = empty_grid(schedule, prediction_type, clip, self.plan_options)
        self.by_alpha = takes_by_alpha(input_scale, known, self.grid)
        self.cond = conditions(known, cond, samples + held_out, seed)
        # A family with its own spacing (EDM) keeps it.
        spacing: dict[str, Any] = {} if schedule.timestep_spacing else REFERENCE_SPACING
        fine = self.plan(REFERENCE, reference_steps, **spacing)
        self.reference_name = f"{REFERENCE}, {reference_steps} steps"
        report(f"the fine solver: {self.reference_name}, {samples + held_out} samples")
        self._reference = self._land(fine, 0, samples + held_out)

    def plan(self, solver: str, steps: int, **options: Any) -> Plan:
        """A hand-made plan for this model."""
        return make_plan(
            self.schedule, solver, steps, prediction_type=self.prediction_type, clip=self.clip, **self.plan_options, **options
        )

    def distance(self, plan: Plan, samples: int | None = None, *, held_out: bool = False) -> float:
        """RMS distance, over samples and elements, between the results of the plan and of the fine solver.

        Args:
            plan: The plan.
            samples: Number of fitting samples; None is all.
            held_out: Use the held-out samples.
        """
        first, count = (self.samples, self.held_out) if held_out else (0, samples or self.samples)
        with np.errstate(over="ignore", invalid="ignore"):
            error = self._land(plan, first, count) - self._reference[first : first + count]
        return float(np.sqrt(np.mean(np.square(error, dtype=np.float64))))

    def distance_of(self, method: Multistep, samples: int) -> float:
        """As :meth:`distance`, for the plan of a method."""
        return self.distance(to_plan(method, self.grid, self.plan_options), samples)

    def reference(self, first: int, count: int) -> np.ndarray:
        """The fine solver's results, (count, *shape) float32."""
        return self._reference[first : first + count]

    def noise(self, first: int, count: int) -> np.ndarray:
        """The initial standard normals of the samples, (count, *shape) float32."""
        x = np.empty((count, *self.shape), np.float32)
        seeds, indices = noise_address(self.seed, first, count)
        get_kernel().normals(x, seeds=seeds, indices=indices, row=0, stream=STREAM_INITIAL)
        return x

    def bind(self, first: int, count: int) -> BoundCall:
        """The network bound to the conditions of these samples."""
        part = {name: value[first : first + count] for name, value in self.cond.items()}
        return self._network.bind(count, self.shape, part, self._output_shape)

    def _land(self, plan: Plan, first: int, count: int) -> np.ndarray:
        sampler = Sampler(
            self.model, plan, shape=self.shape, variance=self._variance, input_scale=self._input_scale, runtime=self._runtime
        )
        part = {name: value[first : first + count] for name, value in self.cond.items()}
        x = sampler.sample(count, seed=self.seed, first_index=first, cond=part, batch_size=self.batch_size)
        return np.asarray(x)


def conditions(known: Model | None, given: Mapping[str, Any] | None, count: int, seed: int) -> dict[str, np.ndarray]:
    """Draw the conditions of the samples by input name: from the given values, else from all classes, else the null value."""
    values = {name: np.asarray(value) for name, value in (given or {}).items()}
    for c in known.conditioning if known else ():
        if c.name in values:
            continue
        if c.classes is not None:
            values[c.name] = np.arange(c.classes).astype(c.dtype)
        elif c.null is not None:
            values[c.name] = np.full((1, *c.shape), c.null, c.dtype)
        else:
            raise ArgumentError(f"cond lacks {c.name!r}, which has neither classes nor a null value; give values to draw from.")
    for name, value in values.items():
        if value.ndim == 0 or len(value) == 0:
            raise ArgumentError(f"cond[{name!r}] has the shape {value.shape}; it must be values to draw from, one after another.")
    uniform = np.random.default_rng(seed).random(count)  # one draw for all inputs, so that related values stay together
    return {name: value[(uniform * len(value)).astype(int)] for name, value in values.items()}
