"""A batch whose samples run in step: one plan, one row at a time for all of them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import ArgumentError, NonFiniteError
from ..kernels.reference import STREAM_INITIAL
from ..plans.plan import MAX_REGISTERS, Reduction, Row
from .arguments import noise_array
from .conditioning import Conditions

if TYPE_CHECKING:
    from .sampler import Sampler

StepNoise = Callable[[int], Any]


class Workspace:
    """The buffers of one batch, bound to network and kernel, owned by one call at a time."""

    def __init__(self, sampler: Sampler, batch: int, conditions: list[Conditions]):
        self.batch, self._plan, self._kernel, self._shape = batch, sampler.plan, sampler._kernel, sampler.shape
        outputs = len(conditions)
        # Joined: one call for all outputs. Separate: one each, on their own buffers.
        self._separate = outputs > 1 and sampler._guidance_batch == "separate"
        groups = self._groups(conditions)
        calls = [sampler._network.bind(len(g) * batch, sampler.shape, _stacked(g), sampler._output_shape) for g in groups]
        self._call, *self._others = calls
        self.state = self._call.x[:batch]
        parts = [(call, slice(j * batch, (j + 1) * batch)) for call, g in zip(calls, groups, strict=True) for j in range(len(g))]
        self._copies = [call.x[part] for call, part in parts[1:]]
        self._outputs = [call.output[part] for call, part in parts]
        # Rows outside the guidance interval weigh one output: they do not pay for the others.
        alone = outputs > 1 and not self._separate and any(row.calls_network and len(row.g) == 1 for row in self._plan.rows)
        self._single: Any = sampler._network.bind(batch, sampler.shape, conditions[0], sampler._output_shape) if alone else None
        # The variance is the second half of the channels, right behind the prediction.
        self._variance_offset = math.prod(sampler.shape) if sampler._output_shape != sampler.shape else -1
        self._bound = self._bind(sampler._packed, self._plan.registers)

    def condition(self, conditions: list[Conditions]) -> None:
        """Take the conditioning of another call, of the same names, shapes and dtypes."""
        if conditions[0]:
            for call, group in zip((self._call, *self._others), self._groups(conditions), strict=True):
                call.condition(_stacked(group))
            if self._single is not None:
                self._single.condition(conditions[0])

    def _groups(self, conditions: list[Conditions]) -> list[list[Conditions]]:
        """The conditions of each call of the network."""
        return [[c] for c in conditions] if self._separate else [conditions]

    def _bind(self, rows: Any, registers: int) -> Any:
        self._bank: Any = np.empty((registers, self.batch, *self._shape), np.float32) if registers else None
        nobody = np.zeros(self.batch, np.uint64), np.zeros(self.batch, np.uint32)
        return self._kernel.bind(
            rows,
            x=self.state,
            out=self.state,
            outputs=self._outputs,
            registers=self._bank,
            seeds=nobody[0],
            indices=nobody[1],
            variance_offset=self._variance_offset,
        )

    def run(self, seeds, indices, start, step_noise: StepNoise | None, advance, callback, first_sample: int) -> None:
        """From noise to samples, in ``state``."""
        plan, state, call = self._plan, self.state, self._call
        bound = self._bound
        if step_noise is not None:
            bound = self._bind(with_given_noise(plan.rows, plan.registers), plan.registers + 1)
        bound.seed(seeds, indices)
        if start is None:
            self._kernel.normals(state, seeds=seeds, indices=indices, row=0, stream=STREAM_INITIAL, scale=plan.initial_scale)
        else:
            np.multiply(start, np.float32(plan.initial_scale), out=state, casting="same_kind")
        apply, simple = bound.run, not self._copies
        for i, row in enumerate(plan.rows):
            if row.calls_network:
                if simple:
                    call(row.timestep)
                else:
                    self._call_several(row)
            if step_noise is not None and row.stochastic:
                self._bank[-1] = noise_array(f"step_noise({i})", step_noise(i), state.shape)
            if apply(i, i) >= 0:
                raise not_finite(row, i, [first_sample + s for s in bound.bad_samples()])
            if advance is not None:
                advance()
            if callback is not None:
                callback(i, state)
        if step_noise is not None:
            self._bound = self._bind(plan.rows, plan.registers)  # the register of the given noise goes

    def _call_several(self, row: Row) -> None:
        if len(row.g) == 1 and self._separate:
            self._call(row.timestep)
            return
        if len(row.g) == 1:
            np.copyto(self._single.x, self.state)
            np.copyto(self._outputs[0], self._single(row.timestep))
            return
        for copy in self._copies:
            copy[...] = self.state
        self._call(row.timestep)
        for call in self._others:
            call(row.timestep)


def not_finite(row: Row, number: int, samples: list[int]) -> NonFiniteError:
    """The error of a network that returned NaN or Inf."""
    named = f"{', '.join(map(str, samples[:8]))}{' and more' if len(samples) > 8 else ''}"
    return NonFiniteError(
        f"the network returned NaN or Inf at row {number} (timestep {row.timestep:g}) for sample {named}.",
        row=number,
        samples=tuple(samples),
    )


def _stacked(conditions: list[Conditions]) -> Conditions:
    return {name: np.concatenate([c[name] for c in conditions]) for name in conditions[0]}


def with_given_noise(rows: tuple[Row, ...], registers: int) -> tuple[Row, ...]:
    """The rows with noise that is given: one register more, which comes where z would in the sum."""
    reason = None
    if registers == MAX_REGISTERS:
        reason = f"it uses all {MAX_REGISTERS} registers, and given noise takes one"
    elif any(r.log_s is not None for r in rows):
        reason = "the standard deviation is the network's"
    if reason is not None:
        raise ArgumentError(f"step_noise cannot replace the generator in this plan: {reason}.")
    return tuple(_with_given_noise(row, registers) if row.stochastic else row for row in rows)


def _with_given_noise(row: Row, register: int) -> Row:
    scale, reduce = row.s, row.reduce
    if reduce is not None and reduce.kind == "langevin":
        scale, reduce = 1.0, Reduction("langevin_given", reduce.values)  # which puts its own scale there
    return dataclasses.replace(row, s=0.0, c=(*row.c, *(0.0,) * (register - len(row.c)), scale), reduce=reduce)
