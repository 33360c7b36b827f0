"""Plans made from plans: with guidance, on another input scale, with a known region, with a scaled result."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import ArgumentError, ArgumentTypeError, PlanError, suggest
from .conventions import INPUT_SCALES
from .row import Reduction, Row

if TYPE_CHECKING:
    from .plan import Plan


def with_guidance(plan: Plan, scale: float, interval: tuple[float, float] | None, rescale: float) -> Plan:
    """See :meth:`diffuse_fast.Plan.with_guidance`."""
    if not _is_number(scale):
        raise ArgumentTypeError(f"guidance_scale is {scale!r}; it must be a number.")
    if not math.isfinite(scale):
        raise ArgumentError(f"guidance_scale is {scale}; it must be a finite number.")
    if not _is_number(rescale):
        raise ArgumentTypeError(f"guidance_rescale is {rescale!r}; it must be a number from 0 to 1.")
    if not 0.0 <= rescale <= 1.0:
        raise ArgumentError(f"guidance_rescale is {rescale!r}; it must be a number from 0 to 1.")
    try:
        low, high = (0.0, math.inf) if interval is None else map(float, interval)
    except (TypeError, ValueError):
        raise ArgumentTypeError(f"guidance_interval is {interval!r}; it must be a pair of numbers (low, high).") from None
    if not 0.0 <= low < high:
        raise ArgumentError(f"guidance_interval is {interval!r}; it must be (low, high) with 0 <= low < high.")
    if scale == 1.0:
        return plan
    weights: dict[str, Any] = {"g": (float(scale), 1.0 - float(scale))}
    if rescale > 0.0:
        weights["reduce"] = Reduction("guidance_rescale", (float(rescale),))
    rows = list(plan.rows)
    for i, (row, (alpha, sigma)) in enumerate(zip(plan.rows, plan.marginals, strict=False)):
        level = sigma / alpha if alpha > 0.0 else math.inf
        if not row.calls_network or not (low <= level < high or level == high == math.inf):
            continue
        if rescale > 0.0 and row.reduce is not None:
            raise PlanError(f"guidance_rescale and the plan's {row.reduce.kind} both need the one reduction of row {i}.")
        rows[i] = dataclasses.replace(row, **weights)
    if all(row is same for row, same in zip(rows, plan.rows, strict=True)):
        raise ArgumentError(f"guidance_interval is {interval!r}, but no row of the plan has its noise level in it.")
    return dataclasses.replace(plan, rows=tuple(rows))


def with_input_scale(plan: Plan, input_scale: str) -> Plan:
    """See :meth:`diffuse_fast.Plan.with_input_scale`."""
    if input_scale not in INPUT_SCALES:
        raise ArgumentError(f"input_scale is {input_scale!r}.{suggest(str(input_scale), INPUT_SCALES)}")
    if input_scale == "none":
        return plan
    if any(alpha <= 0.0 for alpha, _ in plan.marginals[:-1]):
        raise PlanError(
            "input_scale is '1/alpha', but the plan starts without any signal (alpha is 0), where x/alpha does not exist; "
            "start later, or use a network that takes the state itself (input_scale='none')."
        )
    # The scale of the result stays the same.
    scales = [*(alpha for alpha, _ in plan.marginals[:-1]), 1.0]
    rows = tuple(_rescaled(r, before, after) for r, before, after in zip(plan.rows, scales, scales[1:], strict=False))
    marginals = tuple((a / scale, s / scale) for (a, s), scale in zip(plan.marginals, scales, strict=True))
    deviation = plan.deviation
    if deviation is not None:
        deviation = tuple((a / after, v / after**2) for (a, v), after in zip(deviation, scales[1:], strict=True))
    return dataclasses.replace(
        plan, rows=rows, initial_scale=plan.initial_scale / scales[0], marginals=marginals, deviation=deviation
    )


def with_known_region(plan: Plan) -> Plan:
    """See :meth:`diffuse_fast.Plan.with_known_region`."""
    after = plan.marginals[1:]
    rows = tuple(dataclasses.replace(r, known_y=alpha, known_z=sigma) for r, (alpha, sigma) in zip(plan.rows, after, strict=True))
    return dataclasses.replace(plan, rows=rows)


def with_scaled_result(plan: Plan, scale: float) -> Plan:
    """The plan whose result is ``scale`` times as large. Only its last row changes."""
    row, (alpha, sigma) = plan.rows[-1], plan.marginals[-1]
    last = dataclasses.replace(
        row,
        a=scale * row.a,
        b=scale * row.b,
        d=scale * row.d,
        c=tuple(scale * c for c in row.c),
        s=scale * row.s,
        log_s=None if row.log_s is None else (row.log_s[0] + math.log(scale), row.log_s[1]),
    )
    deviation = plan.deviation
    if deviation is not None:
        of_alpha, of_variance = deviation[-1]
        deviation = (*deviation[:-1], (scale * of_alpha, scale**2 * of_variance))
    return dataclasses.replace(
        plan, rows=(*plan.rows[:-1], last), marginals=(*plan.marginals[:-1], (scale * alpha, scale * sigma)), deviation=deviation
    )


def _rescaled(row: Row, before: float, after: float) -> Row:
    """The row for a state that is divided by ``before`` ahead of it and by ``after`` behind it. Registers keep their scale."""
    reduce = row.reduce
    if reduce is not None and reduce.kind == "langevin":  # its step is proportional to 1/kappa²
        snr, kappa = reduce.values
        reduce = Reduction("langevin", (snr, kappa * after))
    return dataclasses.replace(
        row,
        p=row.p * before,
        a=row.a * before / after,
        e_x=row.e_x * before,
        b=row.b / after,
        d=row.d / after,
        s=row.s / after,
        c=tuple(c / after for c in row.c),
        log_s=None if row.log_s is None else (row.log_s[0] - math.log(after), row.log_s[1]),
        known_y=row.known_y / after,
        known_z=row.known_z / after,
        reduce=reduce,
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)
