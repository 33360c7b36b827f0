"""One row of a plan: a network call and the linear combination that follows it.

The equations are those of ``csrc/step/step.h``::

    m   = Σ_j g_j·m_j
    x0  = r·clamp(p·x + q·m, lo, hi)
    x'  = a·x + b·m + d·x0 + Σ_k c_k·h_k + s·z
    x'  = x' + M·(known_y·y + known_z·z_y − x')
    h_w = e_x·x + e_m·m + e_0·x0 + Σ_k f_k·h_k
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

from ..errors import PlanError

MAX_OUTPUTS = 3
MAX_REGISTERS = 8
MAX_ROWS = 1 << 20  # of a plan; bounds its memory
MAX_ELEMENTS = 1 << 34  # of a sample: four per counter of the noise, and the counter's word has 32 bits

# Kinds of reduction, and their number of values. Plans do not contain ``langevin_given``: the engine replaces ``langevin`` by it
# where the caller provides the noise.
REDUCTIONS = {"dynamic_threshold": 2, "guidance_rescale": 1, "langevin": 2, "langevin_given": 2}
_FRACTIONS = {"dynamic_threshold": "the quantile", "guidance_rescale": "phi"}  # kinds whose first value is from 0 to 1

# The smallest float64 that rounds to infinity in float32, the precision of the kernels' coefficients.
FLOAT32_OVERFLOW = 3.4028235677973366e38


def fits_float32(value: Any) -> bool:
    """Whether a value is a number that is finite in float32."""
    return isinstance(value, int | float) and not isinstance(value, bool) and -FLOAT32_OVERFLOW < value < FLOAT32_OVERFLOW


@dataclass(frozen=True, slots=True)
class Reduction:
    """A number computed from each sample while sampling, which sets coefficients of its row.

    Attributes:
        kind: ``"dynamic_threshold"`` (values: ratio, max), ``"guidance_rescale"`` (values: phi) or ``"langevin"`` (values: snr,
            kappa with score = kappa·m). ``csrc/step/step.h`` defines each.
        values: Its parameters: finite in float32; ratio and phi are from 0 to 1.

    Raises:
        PlanError: an unknown kind, or invalid values.
    """

    kind: str
    values: tuple[float, ...]

    def __post_init__(self) -> None:
        arity = REDUCTIONS.get(self.kind) if isinstance(self.kind, str) else None
        if arity is None:
            raise PlanError(f"a row has the reduction {self.kind!r}; it must be one of {', '.join(REDUCTIONS)}.")
        if not isinstance(self.values, tuple) or len(self.values) != arity or not all(map(fits_float32, self.values)):
            raise PlanError(f"the reduction {self.kind} has the values {self.values!r}; it takes {arity} finite numbers.")
        if self.kind in _FRACTIONS and not 0.0 <= self.values[0] <= 1.0:
            raise PlanError(f"{_FRACTIONS[self.kind]} of the reduction {self.kind} is {self.values[0]!r}; it must be from 0 to 1.")


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a plan: one network call (or none) and the linear combination that follows it.

    Every field defaults to "absent": a term with coefficient 0 is neither read nor added.

    Attributes:
        timestep: The time given to the network, in the network's own units.
        calls_network: False for a row that only combines existing tensors (churn, a jump back).
        g: Guidance weights of up to three network outputs.
        p, q, r, lo, hi: The data prediction ``x0 = r·clamp(p·x + q·m, lo, hi)``; infinite bounds mean no clip.
        a, b, d: Weights of the state, the model output and the data prediction in the new state.
        c: Weights of the registers in the new state, by register number.
        s: Standard deviation of the noise.
        log_s: ``(A, B)`` for a learned standard deviation ``exp(A + B·v)``; then ``s`` is 0.
        known_y, known_z: Marginal of the known region after the row; used only with a mask.
        write: The register written by this row, or None.
        e_x, e_m, e_0, f: Weights of the state, the model output, the data prediction and the registers in the written register.
        reduce: A reduction over the sample that sets coefficients of this row when it runs.

    Raises:
        PlanError: a field has the wrong type, or is not finite in float32, the precision of the kernels (3.4e38 is the largest
            value). ``lo`` and ``hi`` may be infinite. :class:`Plan` checks the fields against each other.
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
            if not fits_float32(value := getattr(self, name)):
                raise PlanError(f"a row's {name} is {value!r}; it must be a number that is finite in float32 (at most 3.4e38).")
        for name, most in _WEIGHTS.items():
            weights = getattr(self, name)
            if not isinstance(weights, tuple) or len(weights) > most or not all(map(fits_float32, weights)):
                raise PlanError(f"a row's {name} is {weights!r}; it must be a tuple of at most {most} numbers, finite in float32.")
        for name in ("lo", "hi"):
            bound = getattr(self, name)
            if isinstance(bound, bool) or not isinstance(bound, int | float):
                raise PlanError(f"a row's {name} is {bound!r}; it must be a number.")
        # A bound that overflows float32 does not clip; bounds that no value can satisfy are rejected.
        if not self.lo < self.hi or self.lo >= FLOAT32_OVERFLOW or self.hi <= -FLOAT32_OVERFLOW:
            raise PlanError(f"a row clamps to [{self.lo}, {self.hi}]; lo must be below hi.")
        if self.log_s is not None and not (
            isinstance(self.log_s, tuple) and len(self.log_s) == 2 and all(map(fits_float32, self.log_s))
        ):
            raise PlanError(f"a row's log_s is {self.log_s!r}; it must be None or a pair of numbers that are finite in float32.")
        if not isinstance(self.calls_network, bool):
            raise PlanError(f"a row's calls_network is {self.calls_network!r}; it must be True or False.")
        if self.write is not None and (isinstance(self.write, bool) or not isinstance(self.write, int) or self.write < 0):
            raise PlanError(f"a row's write is {self.write!r}; it must be None or the index of a register, from 0.")
        if not isinstance(self.reduce, Reduction | None):
            raise PlanError(f"a row's reduce is {self.reduce!r}; it must be None or a Reduction.")

    @property
    def reads(self) -> tuple[int, ...]:
        """Indices of the network outputs that the row reads, in order: those with a weight, and output 0 also for a learned
        variance or a guidance rescale."""
        weighed = {j for j, g in enumerate(self.g) if g != 0.0} if self.calls_network else set()
        first = self.log_s is not None or (self.reduce is not None and self.reduce.kind == "guidance_rescale")
        return tuple(sorted(weighed | {0} if first else weighed))

    @property
    def stochastic(self) -> bool:
        """Whether the row draws noise."""
        return self.s != 0.0 or self.log_s is not None or (self.reduce is not None and self.reduce.kind == "langevin")

    @property
    def clips(self) -> bool:
        """Whether the data prediction is clamped, to fixed bounds or by dynamic thresholding."""
        dynamic = self.reduce is not None and self.reduce.kind == "dynamic_threshold"
        return self.lo > -math.inf or self.hi < math.inf or dynamic

    def folded(self) -> Row:
        """The equivalent row without a data prediction. Only if nothing is clamped: x0 is then linear in x and m, and direct
        coefficients of x and m need fewer operations and avoid cancellation. Otherwise the row itself."""
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
