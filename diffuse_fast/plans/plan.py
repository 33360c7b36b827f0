"""Plans: a solver as a table of rows.

A *plan* says at which times to call the network and, for each call, the coefficients of one *row* (``csrc/step/step.h``)::

    m   = Σ_j g_j·m_j
    x0  = r·clamp(p·x + q·m, lo, hi)
    x'  = a·x + b·m + d·x0 + Σ_k c_k·h_k + s·z
    x'  = x' + M·(known_y·y + known_z·z_y − x')
    h_w = e_x·x + e_m·m + e_0·x0 + Σ_k f_k·h_k

Coefficients are float64 and computed before sampling starts. Plans are immutable, hashable and safe to share between
threads; they travel as JSON (``plan.schema.json`` in this package is the published schema).
"""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from ..errors import ArgumentError, ArgumentTypeError, PlanError, suggest

MAX_OUTPUTS = 3
MAX_REGISTERS = 8
FORMAT = "diffuse_fast.plan"
VERSION = 1

# Kinds of reduction, and how many values each takes. ``langevin_given`` is the engine's: a plan of its own has no register for it.
REDUCTIONS = {"dynamic_threshold": 2, "guidance_rescale": 1, "langevin": 2, "langevin_given": 2}
_FRACTIONS = {"dynamic_threshold": "the quantile", "guidance_rescale": "phi"}  # the first value of each is from 0 to 1

# From here on a float64 rounds to infinity in float32, in which kernels have their coefficients.
_TOO_LARGE = 3.4028235677973366e38
_MAX_OPTION_DEPTH = 16

PREDICTION_TYPES = ("epsilon", "sample", "v_prediction", "flow", "denoised", "score", "edm")

# What a network takes of the state alpha·x0 + sigma·ε: the state itself, or x0 + (sigma/alpha)·ε.
INPUT_SCALES = ("none", "1/alpha")


def _fits_float32(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and -_TOO_LARGE < value < _TOO_LARGE


@dataclass(frozen=True, slots=True)
class Reduction:
    """A number per sample, taken from the data, that sets coefficients of its row.

    ``kind`` is ``"dynamic_threshold"`` (values: ratio, max), ``"guidance_rescale"`` (values: phi) or ``"langevin"``
    (values: snr, kappa with score = kappa·m). What each computes is written in ``csrc/step/step.h``.

    Raises:
        PlanError: the kind is unknown, or it takes other values: ratio and phi are from 0 to 1, all are finite in float32.
    """

    kind: str
    values: tuple[float, ...]

    def __post_init__(self) -> None:
        arity = REDUCTIONS.get(self.kind) if isinstance(self.kind, str) else None
        if arity is None:
            raise PlanError(f"a row has the reduction {self.kind!r}; it must be one of {', '.join(REDUCTIONS)}.")
        if not isinstance(self.values, tuple) or len(self.values) != arity or not all(map(_fits_float32, self.values)):
            raise PlanError(f"the reduction {self.kind} has the values {self.values!r}; it takes {arity} finite numbers.")
        if self.kind in _FRACTIONS and not 0.0 <= self.values[0] <= 1.0:
            raise PlanError(f"{_FRACTIONS[self.kind]} of the reduction {self.kind} is {self.values[0]!r}; it must be from 0 to 1.")


@dataclass(frozen=True, slots=True)
class DynamicThreshold:
    """Dynamic thresholding, as a ``clip``: the data prediction is clamped to ±s and divided by s, where s is the quantile
    ``ratio`` of its magnitudes in the sample, at least 1 and at most ``maximum`` (Saharia et al. 2022, "Photorealistic
    Text-to-Image Diffusion Models with Deep Language Understanding", section 2.3; diffusers' ``thresholding`` with
    ``dynamic_thresholding_ratio`` and ``sample_max_value``).

    Args:
        ratio: The quantile, above 0 and at most 1.
        maximum: The most that s may be, from 1; 1 is static clipping to ±1.

    Raises:
        ArgumentError: a value is out of range.
        ArgumentTypeError: a value is not a number.

    Example:
        >>> import diffuse_fast as df
        >>> clip = df.DynamicThreshold(0.995, maximum=2.0)
        >>> df.plan(df.Schedule.linear(), "ddim", 4, prediction_type="epsilon", clip=clip).rows[0].reduce.kind
        'dynamic_threshold'
    """

    ratio: float = 0.995
    maximum: float = 1.0

    def __post_init__(self) -> None:
        for name in ("ratio", "maximum"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
                raise ArgumentTypeError(f"{name} is {value!r}; it must be a number.")
        if not 0.0 < self.ratio <= 1.0:
            raise ArgumentError(f"ratio is {self.ratio!r}; a quantile is above 0 and at most 1.")
        if not (1.0 <= self.maximum < _TOO_LARGE):
            raise ArgumentError(f"maximum is {self.maximum!r}; it must be from 1, and finite in float32 (below 3.4e38).")


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a plan: one network call (or none) and the linear combination that follows it.

    Every field defaults to "not there": a term with coefficient 0 is neither read nor added.

    Attributes:
        timestep: The time given to the network, in the network's own units.
        calls_network: False for a row that only combines what is there (churn, a jump back).
        g: Guidance weights of up to three network outputs.
        p, q, r, lo, hi: The data prediction ``x0 = r·clamp(p·x + q·m, lo, hi)``; infinite bounds mean no clip.
        a, b, d: Weights of the state, the model output and the data prediction in the new state.
        c: Weights of the registers in the new state, by register number.
        s: Standard deviation of the noise.
        log_s: ``(A, B)`` for a learned standard deviation ``exp(A + B·v)``; then ``s`` is 0.
        known_y, known_z: Marginal of the known region after the row; used only with a mask.
        write: The register written by this row, or None.
        e_x, e_m, e_0, f: What it is given: weights of state, model output, data prediction and registers.
        reduce: A reduction over the sample that sets coefficients of this row when it runs.

    Raises:
        PlanError: a field has another type, or a number that is not finite in float32, in which kernels have it (3.4e38 is the
            largest); ``lo`` and ``hi`` may be infinite, as a larger number is there. What fields ask of one another is checked by
            :class:`Plan`.
    """

    timestep: float = 0.0
    calls_network: bool = True
    g: tuple[float, ...] = (1.0,)
    p: float = 0.0
    q: float = 0.0
    r: float = 1.0
    lo: float = -math.inf
    hi: float = math.inf
    a: float = 0.0
    b: float = 0.0
    d: float = 0.0
    c: tuple[float, ...] = ()
    s: float = 0.0
    log_s: tuple[float, float] | None = None
    known_y: float = 0.0
    known_z: float = 0.0
    write: int | None = None
    e_x: float = 0.0
    e_m: float = 0.0
    e_0: float = 0.0
    f: tuple[float, ...] = ()
    reduce: Reduction | None = None

    def __post_init__(self) -> None:
        for name in _SCALARS:
            if not _fits_float32(value := getattr(self, name)):
                raise PlanError(f"a row's {name} is {value!r}: not a number, or not finite in float32 (at most 3.4e38).")
        for name, most in _WEIGHTS.items():
            weights = getattr(self, name)
            if not isinstance(weights, tuple) or len(weights) > most or not all(map(_fits_float32, weights)):
                raise PlanError(f"a row's {name} is {weights!r}; it must be a tuple of at most {most} numbers, finite in float32.")
        for name in ("lo", "hi"):
            bound = getattr(self, name)
            if isinstance(bound, bool) or not isinstance(bound, int | float):
                raise PlanError(f"a row's {name} is {bound!r}; it must be a number.")
        # A bound that is too large for float32 is none; one that nothing can meet is refused.
        if not self.lo < self.hi or self.lo >= _TOO_LARGE or self.hi <= -_TOO_LARGE:
            raise PlanError(f"a row clamps to [{self.lo}, {self.hi}]; lo must be below hi.")
        if self.log_s is not None and not (
            isinstance(self.log_s, tuple) and len(self.log_s) == 2 and all(map(_fits_float32, self.log_s))
        ):
            raise PlanError(f"a row's log_s is {self.log_s!r}; it must be None or a pair of numbers that are finite in float32.")
        if not isinstance(self.calls_network, bool):
            raise PlanError(f"a row's calls_network is {self.calls_network!r}; it must be True or False.")
        if self.write is not None and (isinstance(self.write, bool) or not isinstance(self.write, int) or self.write < 0):
            raise PlanError(f"a row's write is {self.write!r}; it must be None or the number of a register, from 0.")
        if not isinstance(self.reduce, Reduction | None):
            raise PlanError(f"a row's reduce is {self.reduce!r}; it must be None or a Reduction.")

    @property
    def reads(self) -> tuple[int, ...]:
        """Numbers of the network outputs that the row reads, rising: those that it weighs, and output 0 also for its variance and
        where a rescale compares with it."""
        weighed = {j for j, g in enumerate(self.g) if g != 0.0} if self.calls_network else set()
        first = self.log_s is not None or (self.reduce is not None and self.reduce.kind == "guidance_rescale")
        return tuple(sorted(weighed | {0} if first else weighed))

    @property
    def stochastic(self) -> bool:
        """Whether the row draws noise."""
        return self.s != 0.0 or self.log_s is not None or (self.reduce is not None and self.reduce.kind == "langevin")

    @property
    def clips(self) -> bool:
        """Whether the data prediction is clamped, statically or by a reduction."""
        dynamic = self.reduce is not None and self.reduce.kind == "dynamic_threshold"
        return self.lo > -math.inf or self.hi < math.inf or dynamic

    def folded(self) -> Row:
        """The same row without a data prediction, where nothing is clamped: x0 is then linear in x and m, and the
        direct coefficients are one pass shorter and lose nothing to cancellation."""
        if self.clips or (self.d == 0.0 and self.e_0 == 0.0):
            return self
        x, m = self.r * self.p, self.r * self.q
        return dataclasses.replace(
            self,
            p=0.0,
            q=0.0,
            r=1.0,
            a=self.a + self.d * x,
            b=self.b + self.d * m,
            d=0.0,
            e_x=self.e_x + self.e_0 * x,
            e_m=self.e_m + self.e_0 * m,
            e_0=0.0,
        )


_SCALARS = ("timestep", "p", "q", "r", "a", "b", "d", "s", "known_y", "known_z", "e_x", "e_m", "e_0")
_WEIGHTS = {"g": MAX_OUTPUTS, "c": MAX_REGISTERS, "f": MAX_REGISTERS}
_DEFAULT_ROW = Row()
_ROW_FIELDS = tuple(f.name for f in dataclasses.fields(Row))


@dataclass(frozen=True)
class Plan:
    """A solver's table: immutable, hashable, thread-safe, JSON both ways.

    Attributes:
        solver: Name of the solver that wrote the table.
        steps: Number of intervals of the time grid.
        prediction_type: What the network predicts (``epsilon``, ``sample``, ``v_prediction``, ...).
        rows: The rows, in the order they run.
        registers: Number of registers the rows use (0 to 8).
        initial_scale: The state before the first row is ``initial_scale`` times N(0, 1).
        marginals: ``(alpha, sigma)`` of the state before each row and after the last, ``len(rows) + 1`` pairs: the state is
            distributed as ``alpha·x0 + sigma·ε`` (both in the scale in which the state is kept).
        deviation: None when the plan keeps its marginals exactly: a perfect prediction lands on the next pair. Otherwise,
            per row, how far it lands from it in closed form: ``(deviation of alpha, deviation of the variance)``.
        options: The solver's options, defaults included, for the record.

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
    rows: tuple[Row, ...] = field(repr=False)
    registers: int
    initial_scale: float
    marginals: tuple[tuple[float, float], ...] = field(repr=False)
    deviation: tuple[tuple[float, float], ...] | None = field(default=None, repr=False)
    options: tuple[tuple[str, Any], ...] = field(default=())

    def __post_init__(self) -> None:
        _validate(self)

    # ---- what a caller asks ---------------------------------------------------------------------

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
        """Whether it begins in the middle of the schedule (``begin=``), where the state is data plus noise: sampling is then given
        ``data=``, or that state as ``noise=``."""
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
        """The plan that gives the numbers of a diffusers scheduler. diffusers itself is not needed.

        Args:
            scheduler: A scheduler; its configuration as a dict with the name of the class under ``_class_name``, as
                ``scheduler_config.json`` has it; or the path of such a file, of its folder or of a pipeline's folder.
                ``diffuse_fast/interop.py`` lists the classes, their options, and where numbers differ by design.
            steps: Its num_inference_steps; left out with ``sigmas`` or ``timesteps``.
            sigmas, timesteps: The list that a pipeline gives to ``set_timesteps``, with the meaning that it has there: flow levels
                are shifted as the configuration says, and Euler's ends with a 0. Flux gives ``numpy.linspace(1, 1/steps, steps)``
                as ``sigmas``; without it the scheduler's own grid is another.
            mu: What the pipeline makes of the sample's size, where the configuration has ``use_dynamic_shifting``.
            **solver_options: What diffusers takes at each step, as options of the solver here: ``eta``,
                ``use_clipped_model_output`` (``rederive_epsilon`` here), ``solver_order`` (its ``order`` of LMS). Churn is an
                option of :func:`diffuse_fast.plan` with ``heun``; diffusers has it for Euler, where it is none here.

        Raises:
            ArgumentError: the class has no counterpart here, an option is not honoured, the class takes no such list, or a file
                cannot be read; the message names it.
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
        from ..interop import plan_from_diffusers

        return plan_from_diffusers(scheduler, steps, mu=mu, sigmas=sigmas, timesteps=timesteps, **solver_options)

    # ---- what an engine makes of it -------------------------------------------------------------

    def with_guidance(self, scale: float, *, interval: tuple[float, float] | None = None, rescale: float = 0.0) -> Plan:
        """This plan with classifier-free guidance: ``m = scale·m_cond + (1 − scale)·m_uncond`` (Ho & Salimans 2022, with
        the scale of the field: 1 is the conditional model, and needs no second evaluation).

        Args:
            scale: The guidance scale.
            interval: Guide only the rows whose noise level sigma/alpha is in ``[low, high)`` (Kynkäänniemi et al. 2024,
                "Applying Guidance in a Limited Interval"); the others need no second evaluation.
            rescale: φ of Lin et al. 2023, section 3.4: how far the standard deviation of the guided output is brought back to
                that of the conditional one, 0 (not at all) to 1.

        Raises:
            ArgumentError: a value is out of range, or the interval holds no row.
            PlanError: ``rescale`` is asked for, and a row has another reduction (dynamic thresholding) already.
        """
        if isinstance(scale, bool) or not isinstance(scale, int | float | np.integer | np.floating):
            raise ArgumentTypeError(f"guidance_scale is {scale!r}; it must be a number.")
        if not math.isfinite(scale):
            raise ArgumentError(f"guidance_scale is {scale}; it must be a finite number.")
        number = isinstance(rescale, int | float | np.integer | np.floating) and not isinstance(rescale, bool)
        if not number or not 0.0 <= rescale <= 1.0:
            raise ArgumentError(f"guidance_rescale is {rescale!r}; it must be a number from 0 to 1.")
        try:
            low, high = (0.0, math.inf) if interval is None else map(float, interval)
        except (TypeError, ValueError):
            raise ArgumentTypeError(f"guidance_interval is {interval!r}; it must be a pair of numbers (low, high).") from None
        if not 0.0 <= low < high:
            raise ArgumentError(f"guidance_interval is {interval!r}; it must be (low, high) with 0 <= low < high.")
        if scale == 1.0:
            return self
        weights: dict[str, Any] = {"g": (float(scale), 1.0 - float(scale))}
        if rescale > 0.0:
            weights["reduce"] = Reduction("guidance_rescale", (float(rescale),))
        rows = list(self.rows)
        for i, (row, (alpha, sigma)) in enumerate(zip(self.rows, self.marginals, strict=False)):
            level = sigma / alpha if alpha > 0.0 else math.inf
            if not row.calls_network or not (low <= level < high or level == high == math.inf):
                continue
            if rescale > 0.0 and row.reduce is not None:
                raise PlanError(f"guidance_rescale and the plan's {row.reduce.kind} both need the one reduction of row {i}.")
            rows[i] = dataclasses.replace(row, **weights)
        if all(row is same for row, same in zip(rows, self.rows, strict=True)):
            raise ArgumentError(f"guidance_interval is {interval!r}, and no row of the plan has its noise level there.")
        return dataclasses.replace(self, rows=tuple(rows))

    def with_input_scale(self, input_scale: str) -> Plan:
        """This plan for a network that takes the state on another scale. The state is then kept on that scale, so that no pass
        over it is needed; the samples are the same.

        Args:
            input_scale: ``"none"``: the network takes alpha·x0 + sigma·ε as the schedule has it, which is c_in·x with
                ``Schedule.edm()``. ``"1/alpha"``: it takes x0 + (sigma/alpha)·ε, as EDM's denoiser D(x; σ) does.

        Raises:
            ArgumentError: the scale is unknown.
            PlanError: nothing of the data is left before some row (alpha is 0), where x/alpha does not exist.

        Example:
            >>> import diffuse_fast as df
            >>> plan = df.plan(df.Schedule.edm(), "ddim", 5, prediction_type="denoised")
            >>> round(plan.initial_scale, 4), round(plan.with_input_scale("1/alpha").initial_scale, 4)
            (1.0, 80.0)
        """
        if input_scale not in INPUT_SCALES:
            raise ArgumentError(f"input_scale is {input_scale!r}.{suggest(str(input_scale), INPUT_SCALES)}")
        if input_scale == "none":
            return self
        if any(alpha <= 0.0 for alpha, _ in self.marginals[:-1]):
            raise PlanError(
                "input_scale is '1/alpha', but the plan starts without any signal (alpha is 0), where x/alpha does not exist; "
                "start later, or use a network that takes the state itself (input_scale='none')."
            )
        # What is returned stays as it is.
        scales = [*(alpha for alpha, _ in self.marginals[:-1]), 1.0]
        rows = tuple(_rescaled(r, now, then) for r, now, then in zip(self.rows, scales, scales[1:], strict=False))
        marginals = tuple((a / scale, s / scale) for (a, s), scale in zip(self.marginals, scales, strict=True))
        deviation = self.deviation
        if deviation is not None:
            deviation = tuple((a / then, v / then**2) for (a, v), then in zip(deviation, scales[1:], strict=True))
        return dataclasses.replace(
            self, rows=rows, initial_scale=self.initial_scale / scales[0], marginals=marginals, deviation=deviation
        )

    def with_known_region(self) -> Plan:
        """This plan with the coefficients that re-noise a known region to the marginal after each row (used with a mask)."""
        after = self.marginals[1:]
        rows = tuple(
            dataclasses.replace(r, known_y=alpha, known_z=sigma) for r, (alpha, sigma) in zip(self.rows, after, strict=True)
        )
        return dataclasses.replace(self, rows=rows)

    # ---- JSON -----------------------------------------------------------------------------------

    def to_json(self, *, indent: int | None = None) -> str:
        """The plan as JSON. Fields of a row that have their default are left out; infinite bounds are never written."""
        document: dict[str, Any] = {
            "format": FORMAT,
            "version": VERSION,
            "solver": self.solver,
            "steps": self.steps,
            "prediction_type": self.prediction_type,
            "registers": self.registers,
            "initial_scale": self.initial_scale,
            "marginals": [list(pair) for pair in self.marginals],
            "deviation": None if self.deviation is None else [list(pair) for pair in self.deviation],
            "options": dict(self.options),
            "rows": [_row_to_json(row) for row in self.rows],
        }
        return json.dumps(document, indent=indent, allow_nan=False)

    @classmethod
    def from_json(cls, text: str | bytes) -> Plan:
        """A plan from :meth:`to_json`.

        Raises:
            PlanError: the text is not JSON, not a plan, of another version, or the plan is inconsistent.
            ArgumentTypeError: neither text nor bytes.
        """
        if not isinstance(text, str | bytes | bytearray):
            raise ArgumentTypeError(f"the plan is a {type(text).__name__}; give its JSON, as text or bytes.")
        try:
            document = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise PlanError(f"a plan must be JSON: {error}") from None
        if not isinstance(document, dict) or document.get("format") != FORMAT:
            raise PlanError(f"this JSON is not a plan: its 'format' must be {FORMAT!r}.")
        if document.get("version") != VERSION:
            raise PlanError(f"plan version {document.get('version')!r} is not known here; this library reads version {VERSION}.")
        keys = {"format", "version", "solver", "steps", "prediction_type", "registers", "initial_scale", "marginals",
                "deviation", "options", "rows"}  # fmt: skip
        if extra := set(document) - keys:
            raise PlanError(f"the plan has unknown fields: {', '.join(sorted(extra))}.")
        if missing := keys - set(document):
            raise PlanError(f"the plan lacks the fields: {', '.join(sorted(missing))}.")
        deviation = document["deviation"]
        try:
            return cls(
                solver=document["solver"],
                steps=document["steps"],
                prediction_type=document["prediction_type"],
                rows=tuple(_row_from_json(row, i) for i, row in enumerate(document["rows"])),
                registers=document["registers"],
                initial_scale=float(document["initial_scale"]),
                marginals=tuple((float(a), float(s)) for a, s in document["marginals"]),
                deviation=None if deviation is None else tuple((float(a), float(v)) for a, v in deviation),
                options=_frozen_options(document["options"]),
            )
        except (TypeError, ValueError, AttributeError, KeyError, OverflowError) as error:
            if isinstance(error, PlanError):
                raise
            raise PlanError(f"the plan's JSON has a field of the wrong type: {error}") from None


def _rescaled(row: Row, now: float, then: float) -> Row:
    """The row between states that are divided by ``now`` before it and by ``then`` after it. Registers stay as they are."""
    reduce = row.reduce
    if reduce is not None and reduce.kind == "langevin":  # its step goes with 1/kappa²
        snr, kappa = reduce.values
        reduce = Reduction("langevin", (snr, kappa * then))
    return dataclasses.replace(
        row,
        p=row.p * now,
        a=row.a * now / then,
        e_x=row.e_x * now,
        b=row.b / then,
        d=row.d / then,
        s=row.s / then,
        c=tuple(c / then for c in row.c),
        log_s=None if row.log_s is None else (row.log_s[0] - math.log(then), row.log_s[1]),
        known_y=row.known_y / then,
        known_z=row.known_z / then,
        reduce=reduce,
    )


def _frozen_options(options: dict[str, Any]) -> tuple[tuple[str, Any], ...]:
    def freeze(value: Any, depth: int = 0) -> Any:
        if not isinstance(value, list):
            return value
        if depth >= _MAX_OPTION_DEPTH:
            raise PlanError(f"a plan's options are lists in lists, more than {_MAX_OPTION_DEPTH} deep.")
        return tuple(freeze(item, depth + 1) for item in value)

    return tuple(sorted((name, freeze(value)) for name, value in options.items()))


def _row_to_json(row: Row) -> dict[str, Any]:
    out: dict[str, Any] = {"timestep": row.timestep}
    for name in _ROW_FIELDS:
        value = getattr(row, name)
        if name == "timestep" or value == getattr(_DEFAULT_ROW, name):
            continue
        if isinstance(value, Reduction):
            value = {"kind": value.kind, "values": list(value.values)}
        elif isinstance(value, tuple):
            value = list(value)
        out[name] = value
    return out


def _row_from_json(document: Any, index: int) -> Row:
    if not isinstance(document, dict):
        raise PlanError(f"row {index} of the plan must be a JSON object.")
    if extra := set(document) - set(_ROW_FIELDS):
        raise PlanError(f"row {index} of the plan has unknown fields: {', '.join(sorted(extra))}.")
    if "timestep" not in document:
        raise PlanError(f"row {index} of the plan lacks the field 'timestep'.")
    values: dict[str, Any] = {}
    try:
        for name, value in document.items():
            if name == "reduce" and value is not None:
                value = Reduction(value["kind"], _floats(value["values"]))
            elif name != "write":
                value = _floats(value)
            values[name] = value
        return Row(**values)
    except PlanError as error:
        raise PlanError(f"row {index} of the plan is wrong: {error}") from None


def _floats(value: Any) -> Any:
    """JSON's numbers as floats, and its lists of them as tuples; all else as it is, to be refused by who knows what is wanted."""
    if isinstance(value, list):
        return tuple(map(_floats, value)) if all(isinstance(v, int | float) for v in value) else value
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _validate(plan: Plan) -> None:
    def check(condition: bool, message: str) -> None:
        if not condition:
            raise PlanError(message)

    def whole(value: Any) -> bool:
        return isinstance(value, int) and not isinstance(value, bool)

    def finite(*values: Any) -> bool:
        return all(isinstance(v, int | float) and not isinstance(v, bool) and math.isfinite(v) for v in values)

    def plain(value: Any, depth: int = 0) -> bool:
        if isinstance(value, tuple):
            return depth < _MAX_OPTION_DEPTH and all(plain(item, depth + 1) for item in value)
        return value is None or isinstance(value, bool | int | str) or finite(value)

    check(isinstance(plan.solver, str) and plan.solver != "", "a plan needs the name of its solver.")
    check(len(plan.rows) > 0, "a plan needs at least one row.")
    check(whole(plan.steps) and plan.steps >= 1, f"a plan's steps is {plan.steps!r}; it must be a whole number from 1.")
    check(
        plan.prediction_type in PREDICTION_TYPES,
        f"prediction_type is {plan.prediction_type!r}; it must be one of {', '.join(PREDICTION_TYPES)}.",
    )
    check(
        whole(plan.registers) and 0 <= plan.registers <= MAX_REGISTERS,
        f"a plan has {plan.registers!r} registers; 0 to {MAX_REGISTERS} are possible.",
    )
    check(_fits_float32(plan.initial_scale), f"a plan's initial_scale is {plan.initial_scale}; it must be finite in float32.")
    check(len(plan.marginals) == len(plan.rows) + 1, "a plan needs a marginal before each row and one after the last.")
    check(
        all(len(pair) == 2 and finite(*pair) and pair[1] >= 0 for pair in plan.marginals),
        "a plan's marginals are pairs (alpha, sigma), finite, sigma not negative.",
    )
    if plan.deviation is not None:
        check(
            len(plan.deviation) == len(plan.rows) and all(len(p) == 2 and finite(*p) for p in plan.deviation),
            "a plan's deviation is one finite pair per row.",
        )
    check(
        all(isinstance(name, str) and plain(value) for name, value in plan.options),
        f"a plan's options are named texts, numbers, booleans or lists of them, at most {_MAX_OPTION_DEPTH} deep.",
    )
    written: set[int] = set()
    for i, row in enumerate(plan.rows):
        where = f"row {i} of the plan"
        check(isinstance(row, Row), f"{where} is a {type(row).__name__}; it must be a Row.")
        check(len(row.g) >= 1, f"{where} weighs no network outputs; 1 to {MAX_OUTPUTS} are possible.")
        check(row.log_s is None or row.s == 0.0, f"{where} has both a fixed and a learned noise.")
        check(row.s >= 0.0, f"{where} has a negative standard deviation.")
        if not row.calls_network:
            uses = row.b != 0 or row.e_m != 0 or (row.q != 0 and (row.d != 0 or row.e_0 != 0)) or row.log_s is not None
            check(not uses and row.reduce is None, f"{where} uses the model output but does not call the network.")
        check(
            row.reduce is None or row.reduce.kind != "langevin_given",
            f"{where} has the reduction langevin_given, which stands for given noise; make it langevin.",
        )
        for name, weights in (("c", row.c), ("f", row.f)):
            check(len(weights) <= plan.registers, f"{where}: {name} names more registers than the plan has.")
            for k, weight in enumerate(weights):
                check(weight == 0.0 or k in written, f"{where} reads register {k} before any row has written it.")
        if row.write is None:
            check(not (row.e_x or row.e_m or row.e_0 or any(row.f)), f"{where} keeps a value but names no register to write.")
        else:
            check(row.write < plan.registers, f"{where} writes register {row.write!r}; the plan has {plan.registers}.")
            written.add(row.write)
