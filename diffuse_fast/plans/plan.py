"""Plans: a solver as a table of rows.

A *plan* says at which times to call the network and, for each call, the coefficients of one *row* (``row.py``). Coefficients are
float64 and computed before sampling starts. Plans are immutable, hashable and safe to share between threads.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from . import serialization, transforms
from .clip import DynamicThreshold
from .conventions import INPUT_SCALES, PREDICTION_TYPES
from .row import MAX_OUTPUTS, MAX_REGISTERS, REDUCTIONS, Reduction, Row
from .validate import validate

__all__ = [
    "INPUT_SCALES",
    "MAX_OUTPUTS",
    "MAX_REGISTERS",
    "PREDICTION_TYPES",
    "REDUCTIONS",
    "DynamicThreshold",
    "Plan",
    "Reduction",
    "Row",
]


@dataclass(frozen=True, repr=False)
class Plan:
    """A solver's table: immutable, hashable, thread-safe, convertible to JSON and back.

    Attributes:
        solver: Name of the solver that wrote the table.
        steps: Number of intervals of the time grid.
        prediction_type: What the network predicts (``epsilon``, ``sample``, ``v_prediction``, ...).
        rows: The rows, in the order they run.
        registers: Number of registers the rows use (0 to 8).
        initial_scale: The state before the first row is ``initial_scale`` times N(0, 1).
        marginals: ``(alpha, sigma)`` of the state before each row and after the last, ``len(rows) + 1`` pairs: the state is
            distributed as ``alpha·x0 + sigma·ε``, on the scale in which the state is kept.
        deviation: None if the plan keeps its marginals exactly: with a perfect prediction each row lands on the next pair.
            Otherwise the error of each row in closed form: ``(deviation of alpha, deviation of the variance)``.
        options: The solver's options as (name, value) pairs, defaults included.

    Example:
        >>> import diffuse_fast as df
        >>> plan = df.plan(df.Schedule.linear(), "ddim", 20, prediction_type="epsilon")
        >>> plan.nfe, plan.registers, len(plan.rows)
        (20, 0, 20)
        >>> df.Plan.from_json(plan.to_json()) == plan
        True
    """

    solver: str
    steps: int
    prediction_type: str
    rows: tuple[Row, ...]
    registers: int
    initial_scale: float
    marginals: tuple[tuple[float, float], ...]
    deviation: tuple[tuple[float, float], ...] | None = None
    options: tuple[tuple[str, Any], ...] = field(default=())

    def __post_init__(self) -> None:
        validate(self)

    def __repr__(self) -> str:
        options = ", ".join(f"{name}={'inf' if value == sys.float_info.max else repr(value)}" for name, value in self.options)
        return (
            f"<Plan {self.solver!r}: {self.steps} steps, {self.nfe} network calls, {self.prediction_type}, "
            f"registers={self.registers}, initial_scale={self.initial_scale:g}, {options}>"
        )

    # ---- properties -----------------------------------------------------------------------------

    @cached_property
    def timesteps(self) -> np.ndarray:
        """The times at which the network is called, float64, in calling order. Read-only."""
        times = np.array([row.timestep for row in self.rows if row.calls_network])
        times.flags.writeable = False
        return times

    @property
    def nfe(self) -> int:
        """Number of network evaluations (per sample, without guidance)."""
        return sum(row.calls_network for row in self.rows)

    @property
    def stochastic(self) -> bool:
        """Whether any row draws noise."""
        return any(row.stochastic for row in self.rows)

    @property
    def starts_from_data(self) -> bool:
        """Whether sampling starts in the middle of the schedule (``begin=``), from data plus noise. It then takes ``data=``, or
        that state as ``noise=``."""
        return dict(self.options).get("begin") is not None

    @property
    def exact_marginal(self) -> bool:
        """Whether a perfect prediction lands on the next marginal."""
        return self.deviation is None

    # ---- from another library -------------------------------------------------------------------

    @classmethod
    def from_diffusers(
        cls,
        scheduler: Any,
        steps: int | None = None,
        *,
        mu: float | None = None,
        sigmas: Any = None,
        timesteps: Any = None,
        **solver_options: Any,
    ) -> Plan:
        """The plan that reproduces a diffusers scheduler. diffusers itself is not needed.

        Args:
            scheduler: A scheduler; its configuration as a dict with the name of the class under ``_class_name``, as in
                ``scheduler_config.json``; or the path of such a file, of its folder or of a pipeline's folder.
                ``diffuse_fast.interop.diffusers`` lists the classes, their options, and the intended differences.
            steps: Its num_inference_steps; left out with ``sigmas`` or ``timesteps``.
            sigmas, timesteps: The list that a pipeline passes to ``set_timesteps``, with the same meaning: flow levels are shifted
                as the configuration says, and Euler's list ends with a 0. Flux passes ``numpy.linspace(1, 1/steps, steps)`` as
                ``sigmas``; the scheduler's own grid is different.
            mu: What the pipeline computes from the sample's size if the configuration has ``use_dynamic_shifting``.
            **solver_options: What diffusers takes at each step, as options of the solver here: ``eta``,
                ``use_clipped_model_output`` (``rederive_epsilon`` here), ``solver_order`` (``order`` of LMS), and
                Euler's ``s_churn``, ``s_tmin``, ``s_tmax`` and ``s_noise``.

        Raises:
            ArgumentError: the class or an option is not supported, the class takes no such list, or a file cannot be read; the
                message names it.
            ArgumentTypeError: neither a scheduler nor a dict nor a path, or an option that the solver does not have.

        Warns:
            LongStepWarning: the scheduler takes a step that is too long for its solver; :func:`diffuse_fast.plan` would take it at
                first order.

        Example:
            >>> import diffuse_fast as df
            >>> plan = df.Plan.from_diffusers({"_class_name": "DDIMScheduler", "timestep_spacing": "trailing"}, 4, eta=0.5)
            >>> plan.timesteps.tolist(), plan.stochastic
            ([999.0, 749.0, 499.0, 249.0], True)
        """
        from ..interop import diffusers

        return diffusers.plan(scheduler, steps, mu=mu, sigmas=sigmas, timesteps=timesteps, **solver_options)

    # ---- transforms -----------------------------------------------------------------------------

    def with_guidance(self, scale: float, *, interval: tuple[float, float] | None = None, rescale: float = 0.0) -> Plan:
        """This plan with classifier-free guidance: ``m = scale·m_cond + (1 − scale)·m_uncond`` (Ho & Salimans 2022, with
        the usual scale: 1 is the conditional model, and needs no second evaluation).

        Args:
            scale: The guidance scale.
            interval: Guide only the rows whose noise level sigma/alpha is in ``[low, high)`` (Kynkäänniemi et al. 2024,
                "Applying Guidance in a Limited Interval"); the others need no second evaluation.
            rescale: φ of Lin et al. 2023, section 3.4: how far the standard deviation of the guided output is moved back to that of
                the conditional one, 0 (not at all) to 1.

        Raises:
            ArgumentError: a value is out of range, or no row is in the interval.
            PlanError: ``rescale`` is given, and a row has another reduction (dynamic thresholding) already.
        """
        return transforms.with_guidance(self, scale, interval, rescale)

    def with_input_scale(self, input_scale: str) -> Plan:
        """This plan for a network that takes the state on another scale. The state is kept on that scale, so no extra pass over it
        is needed; the samples are the same.

        Args:
            input_scale: ``"none"``: the network takes alpha·x0 + sigma·ε as the schedule defines it, which is c_in·x with
                ``Schedule.edm()``. ``"1/alpha"``: it takes x0 + (sigma/alpha)·ε, as EDM's denoiser D(x; σ) does.

        Raises:
            ArgumentError: the scale is unknown.
            PlanError: alpha is 0 before some row, where x/alpha does not exist.

        Example:
            >>> import diffuse_fast as df
            >>> plan = df.plan(df.Schedule.edm(), "ddim", 5, prediction_type="denoised")
            >>> round(plan.initial_scale, 4), round(plan.with_input_scale("1/alpha").initial_scale, 4)
            (1.0, 80.0)
        """
        return transforms.with_input_scale(self, input_scale)

    def with_known_region(self) -> Plan:
        """This plan with the coefficients that re-noise a known region to the marginal after each row (used with a mask)."""
        return transforms.with_known_region(self)

    # ---- JSON -----------------------------------------------------------------------------------

    def to_json(self, *, indent: int | None = None) -> str:
        """The plan as JSON. Fields of a row that have their default are left out; infinite bounds are never written."""
        return serialization.dumps(self, indent=indent)

    @classmethod
    def from_json(cls, text: str | bytes) -> Plan:
        """A plan from :meth:`to_json`.

        Raises:
            PlanError: the text is not JSON, not a plan, of another version, or the plan is inconsistent.
            ArgumentTypeError: neither text nor bytes.
        """
        return serialization.loads(text, cls)
