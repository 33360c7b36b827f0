"""Cache of what the engine derives from a plan: facts, packed rows, and the plan with guidance.

Plans are keyed by identity: hashing one reads all of its rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from .. import _core
from ..artifact.document import clear_input_scale
from ..kernels.rows import pack
from ..plans.plan import Plan, Row

# Plans whose facts, and derived plans, are kept.
_KEPT = 64


@dataclass(frozen=True)
class PlanFacts:
    """Properties of a plan that every sampling call asks for.

    Attributes:
        plan: The plan.
        outputs: The most network outputs that a row weighs: 2 with guidance.
        mixed: Whether some calling rows weigh one output and others more.
        learned_variance: Whether a row takes its standard deviation from the network.
        scaled: Whether the state of a row is alpha·x0 + sigma·ε with an alpha other than 1.
        plain: Whether every calling row reads output 0 and no other.
        calls: Number of rows that call the network.
    """

    plan: Plan
    outputs: int
    mixed: bool
    learned_variance: bool
    scaled: bool
    plain: bool
    calls: int

    @cached_property
    def packed(self) -> np.ndarray:
        """The rows as compiled kernels read them."""
        return pack(self.plan.rows)

    @cached_property
    def compiled(self) -> _core.Plan:
        """The plan as the loop in the core runs it."""
        return compiled(self.plan.rows, self.plan.registers)

    @cached_property
    def times(self) -> np.ndarray:
        """The times of the network's calls, float64."""
        return np.array([row.timestep for row in self.plan.rows if row.calls_network])

    def table(self, kernel: Any) -> Any:
        """The rows as a kernel reads them."""
        return self.plan.rows if kernel.name == "reference" else self.packed


def compiled(rows: tuple[Row, ...], registers: int) -> _core.Plan:
    """Return rows as the loop in the core runs them."""
    return _core.Plan(pack(rows), np.array([row.timestep for row in rows], np.float32), registers)


_facts: dict[int, PlanFacts] = {}
_derived: dict[Any, tuple[Plan, Plan]] = {}


def facts_of(plan: Plan) -> PlanFacts:
    """Return the facts of a plan."""
    found = _facts.get(id(plan))
    if found is not None and found.plan is plan:  # held here, so that its id stays its own
        return found
    outputs, single, learned, plain, calls, scaled = 1, False, False, True, 0, False
    for row in plan.rows:
        outputs = max(outputs, len(row.g))
        learned = learned or row.log_s is not None
        if row.calls_network:
            calls += 1
            single = single or len(row.g) == 1
            plain = plain and row.reads == (0,)
    for alpha, _ in plan.marginals[:-1]:
        scaled = scaled or alpha != 1.0
    facts = PlanFacts(plan, outputs, outputs > 1 and single, learned, scaled, plain, calls)
    if len(_facts) >= _KEPT:
        _facts.clear()
    _facts[id(plan)] = facts
    return facts


def derive(
    plan: Plan, scale: float, *, interval: Any = None, rescale: float = 0.0, input_scale: str | None = None, known: bool = False
) -> Plan:
    """Return the plan with guidance, for the network's input scale, and with a known region. Equal calls return one object.

    Raises:
        ArgumentError, ArgumentTypeError, PlanError: as :meth:`~diffuse_fast.Plan.with_guidance` and
            :meth:`~diffuse_fast.Plan.with_input_scale`.
    """
    default = scale == 1.0 and rescale == 0.0 and type(scale) is type(rescale) is float
    if default and interval is None and input_scale == "none" and not known:
        return plan
    # The types too: True equals 1, and is refused.
    interval = tuple(interval) if isinstance(interval, list) else interval
    key = (id(plan), scale, type(scale), interval, rescale, type(rescale), input_scale, known)
    try:
        found = _derived.get(key)
    except TypeError:  # an argument that cannot be hashed
        return _derive(plan, scale, interval, rescale, input_scale, known)
    if found is not None and found[0] is plan:
        return found[1]
    derived = _derive(plan, scale, interval, rescale, input_scale, known)
    if len(_derived) >= _KEPT:
        _derived.clear()
    _derived[key] = plan, derived
    return derived


def _derive(plan: Plan, scale: float, interval: Any, rescale: float, input_scale: str | None, known: bool) -> Plan:
    derived = plan.with_guidance(scale, interval=interval, rescale=rescale)
    derived = derived.with_input_scale(clear_input_scale(input_scale, plan.prediction_type, scaled=facts_of(plan).scaled))
    return derived.with_known_region() if known else derived
