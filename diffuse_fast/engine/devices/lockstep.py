"""A batch in lockstep on the CPU: one plan, all samples at the same row, no copy between network and step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ...kernels.reference import STREAM_INITIAL
from ...plans.plan import Row
from ..arguments import noise_array
from ..conditioning import Conditions
from ..known_region import KnownRegion
from ..plan_cache import facts_of
from ..request import Batch
from ..setup import Setup
from ..slots import OnRow, not_finite
from ..step_noise import with_given_noise


class Lockstep:
    """The buffers of a batch, bound to the network and the kernel. The network reads ``state`` and the step updates it in place.

    Args:
        setup: The model.
        batch: The first batch, which :meth:`start` then starts.

    Attributes:
        state: (n, *shape) float32.
        registers: (registers, n, *shape) float32, or None.
        known: The known region, or None.
    """

    def __init__(self, setup: Setup, batch: Batch):
        self._setup, self._plan, self._form = setup, batch.plan, batch.form
        self._size = n = len(batch.seeds)
        facts, outputs = facts_of(batch.plan), len(batch.conditions)
        # Joined: one call for all outputs. Separate: one call each, on their own buffers.
        self._separate = outputs > 1 and setup.separate
        groups = [[c] for c in batch.conditions] if self._separate else [batch.conditions]
        calls, self._copies, self._outputs = [], [], []
        for group in groups:
            call = setup.network.bind(len(group) * n, setup.shape, _stacked(group), setup.output_shape)
            calls.append(call)
            for j in range(len(group)):
                self._copies.append(call.x[j * n : (j + 1) * n])
                self._outputs.append(call.output[j * n : (j + 1) * n])
        self._call, *self._others = calls
        self.state, *self._copies = self._copies
        # Rows outside the guidance interval weigh one output and evaluate no other.
        alone = outputs > 1 and not self._separate and facts.mixed
        self._single: Any = setup.network.bind(n, setup.shape, batch.conditions[0], setup.output_shape) if alone else None
        self.known = None if batch.known is None else KnownRegion(np.empty_like(self.state), np.empty_like(self.state))
        self._bound = self._bind(facts.table(setup.kernel), batch.plan.registers)

    def fits(self, batch: Batch) -> bool:
        """Whether a batch can use these buffers: one of the same plan, with arguments of the same shapes and dtypes."""
        return batch.plan is self._plan and batch.form == self._form

    def condition(self, conditions: list[Conditions]) -> None:
        """Take the conditioning of another batch."""
        if conditions[0]:
            groups = [[c] for c in conditions] if self._separate else [conditions]
            for call, group in zip((self._call, *self._others), groups, strict=True):
                call.condition(_stacked(group))
            if self._single is not None:
                self._single.condition(conditions[0])

    def start(self, batch: Batch) -> None:
        """Put the start of a batch into ``state``."""
        self.seed(batch)
        seeds, indices, scale = batch.seeds, batch.indices, batch.plan.initial_scale
        if batch.start is None:
            self._setup.kernel.normals(self.state, seeds=seeds, indices=indices, row=0, stream=STREAM_INITIAL, scale=scale)
        else:
            np.multiply(batch.start, np.float32(scale), out=self.state, casting="same_kind")

    def resume(self, batch: Batch, state: np.ndarray, registers: np.ndarray | None) -> None:
        """Take over samples that are on their way."""
        self.seed(batch)
        self.state[...] = state
        if self.registers is not None and registers is not None:
            self.registers[...] = registers[: len(self.registers)]

    def seed(self, batch: Batch) -> None:
        """Take the noise keys and the known region of a batch."""
        self._bound.seed(batch.seeds, batch.indices)
        if batch.known is not None and self.known is not None:
            self.known.data[...], self.known.mask[...] = batch.known

    def run(self, batch: Batch, first: int, advance: Callable[[], Any] | None, callback: OnRow | None) -> None:
        """Apply the rows from number ``first`` to the last; see :meth:`~diffuse_fast.engine.slots.Slots.run`."""
        plan, state, bound = self._plan, self.state, self._bound
        given = batch.step_noise
        if given is not None:
            bound = self._bind(with_given_noise(plan.rows, plan.registers), plan.registers + 1)
            bound.seed(batch.seeds, batch.indices)
        apply, call, simple = bound.run, self._call, not self._copies
        for i, row in enumerate(plan.rows[first:] if first else plan.rows, first):
            if row.calls_network:
                if simple:
                    call(row.timestep)
                else:
                    self._call_several(row)
            if given is not None and row.stochastic:
                self.registers[-1] = noise_array(f"step_noise({i})", given(i), state.shape)
            if apply(i, i) >= 0:
                raise not_finite(row, i, [batch.first + s for s in bound.bad_samples()])
            if advance is not None:
                advance()
            if callback is not None:
                callback(i, state)
        if given is not None:
            self._bound = self._bind(facts_of(plan).table(self._setup.kernel), plan.registers)  # without the register of the noise

    def apply(self, i: int) -> list[int]:
        """Apply row number i. Returns the samples for which the network returned NaN or Inf."""
        row = self._plan.rows[i]
        if row.calls_network:
            if self._copies:
                self._call_several(row)
            else:
                self._call(row.timestep)
        return [] if self._bound.run(i, i) < 0 else self._bound.bad_samples()

    def _bind(self, rows: Any, registers: int) -> Any:
        n = self._size
        self.registers: Any = np.empty((registers, n, *self._setup.shape), np.float32) if registers else None
        return self._setup.kernel.bind(
            rows,
            x=self.state,
            out=self.state,
            outputs=self._outputs,
            registers=self.registers,
            seeds=np.zeros(n, np.uint64),
            indices=np.zeros(n, np.uint32),
            variance_offset=self._setup.variance_offset,
            **({} if self.known is None else {"y": self.known.data, "mask": self.known.mask}),
        )

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


def _stacked(conditions: list[Conditions]) -> Conditions:
    if len(conditions) == 1:
        return conditions[0]
    return {name: np.concatenate([c[name] for c in conditions]) for name in conditions[0]}
