"""Slots on the CPU.

In every tick the active samples call the network once, together, and each applies its own row. Samples without guidance cost one
evaluation in that call; finished samples cost none. Rows without a network call run in the tick of the next call.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from ...errors import NonFiniteError
from ...kernels.reference import STREAM_INITIAL
from ...plans.plan import MAX_OUTPUTS
from ...runtimes.base import aligned
from ..known_region import KnownRegion
from ..plan_cache import facts_of
from ..request import Admission, Batch, Defaults
from ..setup import Setup
from ..slots import OnRow, Slots, not_finite
from .lockstep import Lockstep


def own_copy(array: np.ndarray, as_tensor: bool) -> Any:
    """A copy for the caller: NumPy, or a tensor."""
    own = np.array(array)
    return sys.modules["torch"].from_numpy(own) if as_tensor else own


class CpuSlots(Slots):
    """See :class:`~diffuse_fast.engine.slots.Slots`."""

    any_plan = False  # they are bound to the memory of one plan's registers

    def __init__(self, setup: Setup, capacity: int, defaults: Defaults | None = None):
        super().__init__(setup, capacity, defaults)
        self.state = None
        self._registers: Any = None
        self._known: KnownRegion | None = None
        self._lockstep: Lockstep | None = None
        # The evaluations (slot, output number) that the network is bound for, and its calls for them.
        self._evaluations: list[tuple[int, int]] | None = None
        self._calls: list[Any] = []
        self._gathered: np.ndarray | None = None

    def admit_batch(self, batch: Batch) -> None:
        if self._lockstep is not None and self._lockstep.fits(batch):
            self._lockstep.condition(batch.conditions)
        else:
            self._lockstep = Lockstep(self.setup, batch)
        self._lockstep.start(batch)
        self._take_batch(batch)
        self._use_buffers_of(self._lockstep)
        self._changed = False

    @property
    def ticks(self) -> int:
        if self._batch is not None:
            return len(self._batch.plan.rows) - self._at[0]
        # One tick for each call, and none for rows behind the last one.
        return max((facts_of(plan).calls for plan in self._plans if plan is not None), default=0)

    def tick(self) -> bool:
        if self._changed:
            self._arrange()
        if self._lockstep is not None:
            return self._tick_in_lockstep()
        active = self._active()
        if not active:
            return False
        evaluations = [(i, j) for i in active for j in self._next_reads(i)]
        if evaluations != self._evaluations and (evaluations or self._evaluations is None):
            self._bind(evaluations)
        while silent := [i for i in active if not self._row(i).calls_network]:
            self._apply(silent)
            active = self._active()
        if active:
            for call, group, samples, part, _ in self._calls:
                np.take(self.state, samples, axis=0, out=call.x)
                call(self._times(group))
                if self._gathered is not None:
                    self._gathered[part] = call.output
            self._apply(active)
        return True

    def run(self, advance: Callable[[], Any] | None = None, callback: OnRow | None = None) -> None:
        if self._batch is None or self._changed or self._lockstep is None:
            super().run(advance, callback)
            return
        ended = len(self._batch.plan.rows)
        try:
            self._lockstep.run(self._batch, self._at[0], advance, callback)
        except NonFiniteError as error:
            ended = error.row + 1
            raise
        finally:
            self._at = [ended] * self.capacity

    def _part(self, slot: int) -> Any:
        return self.state[slot]

    def _own(self, array: Any, as_tensor: bool) -> Any:
        return own_copy(array, as_tensor)

    # ---- lockstep -------------------------------------------------------------------------------

    def _tick_in_lockstep(self) -> bool:
        assert self._lockstep is not None and self._plans[0] is not None
        rows, at = self._plans[0].rows, self._at[0]
        if at == len(rows):
            return False
        while True:
            bad = self._lockstep.apply(at)
            at += 1
            if rows[at - 1].calls_network or at == len(rows):
                break
        self._at = [at] * self.capacity
        if bad:
            raise not_finite(rows[at - 1], at - 1, [self._numbers[i] for i in bad])
        return True

    def _come_together(self) -> None:
        """Switch to lockstep if all slots are at one row of one plan, and lockstep makes the same evaluations."""
        plan = self._plans[0]
        together = plan is not None and all(p is plan for p in self._plans) and self._at.count(self._at[0]) == self.capacity
        if plan is None or not together or not facts_of(plan).plain:
            return
        conditions = {name: np.stack([c[0][name] for c in self._conditions]) for name in self._conditions[0][0]}
        batch = Batch(plan, self._seeds, self._indices, [conditions], known=self._known)
        self._lockstep = Lockstep(self.setup, batch)
        self._lockstep.resume(batch, self.state, self._registers)
        self._use_buffers_of(self._lockstep)

    def _use_buffers_of(self, lockstep: Lockstep) -> None:
        self.state, self._registers, self._known = lockstep.state, lockstep.registers, lockstep.known

    # ---- slots at rows of their own -------------------------------------------------------------

    def _place(self, slot: int, admission: Admission) -> None:
        if self.state is None:
            self.state = aligned((self.capacity, *self.setup.shape))
        scale, part = admission.plan.initial_scale, slice(slot, slot + 1)
        if admission.start is None:
            self.setup.kernel.normals(
                self.state[part], seeds=admission.seed, indices=admission.index, row=0, stream=STREAM_INITIAL, scale=scale
            )
        else:
            np.multiply(admission.start, np.float32(scale), out=self.state[slot, ...], casting="same_kind")
        if admission.known is not None and self._known is None:
            self._known = KnownRegion(np.zeros_like(self.state), np.zeros_like(self.state))
        if self._known is not None:
            self._known.data[part], self._known.mask[part] = (0.0, 0.0) if admission.known is None else admission.known

    def _arrange(self) -> None:
        """Bind anew after slots were admitted or retired. The table holds the rows of all plans, each plan once."""
        self._split_batch()
        self._lockstep, self._evaluations, self._changed = None, None, False
        plans = self._distinct_plans()
        if not plans:
            return
        tables = [facts_of(plan).table(self.setup.kernel) for plan in plans]
        self._table = np.concatenate(tables) if isinstance(tables[0], np.ndarray) else sum(tables, ())
        first, number = {}, 0
        for plan in plans:
            first[id(plan)] = number
            number += len(plan.rows)
        self._first = [first.get(id(plan), 0) for plan in self._plans]
        needed, bank = max(plan.registers for plan in plans), self._registers
        if needed > (0 if bank is None else len(bank)):
            self._registers = np.empty((needed, *self.state.shape), np.float32)
            if bank is not None:
                self._registers[: len(bank)] = bank
        self._come_together()

    def _next_reads(self, slot: int) -> tuple[int, ...]:
        """The network outputs that a slot needs from the next call."""
        return next((row.reads for row in self._plan_of(slot).rows[self._at[slot] :] if row.calls_network), ())

    def _times(self, evaluations: list[tuple[int, int]]) -> float | np.ndarray:
        times = [self._row(i).timestep for i, _ in evaluations]
        return times[0] if times.count(times[0]) == len(times) else np.array(times)

    def _bind(self, evaluations: list[tuple[int, int]]) -> None:
        # Joined: one call for all evaluations. Separate: one for each output number, gathered into one array.
        setup = self.setup
        groups = [[e for e in evaluations if e[1] == j] for j in range(MAX_OUTPUTS)] if setup.separate else [evaluations]
        groups = [group for group in groups if group]
        bound = {(len(call.x), form): call for call, *_, form in self._calls}
        self._calls, self._numbers_of = [], np.full((self.capacity, MAX_OUTPUTS), -1, np.int64)
        self._gathered = aligned((len(evaluations), *setup.output_shape)) if len(groups) > 1 else None
        first = 0
        for group in groups:
            names = self._conditions[group[0][0]][group[0][1]]
            cond = {name: np.stack([self._conditions[i][j][name] for i, j in group]) for name in names}
            form = tuple((name, value.shape, value.dtype) for name, value in cond.items())
            call = bound.pop((len(group), form), None)
            if call is None:
                call = setup.network.bind(len(group), setup.shape, cond, setup.output_shape)
            elif cond:
                call.condition(cond)
            self._calls.append((call, group, np.array([i for i, _ in group]), slice(first, first + len(group)), form))
            for number, (i, j) in enumerate(group, first):
                self._numbers_of[i, j] = number
            first += len(group)
        output = self._gathered
        if output is None:
            output = self._calls[0][0].output if self._calls else aligned((1, *setup.output_shape))  # rows without a call read none
        self._bound = setup.kernel.bind(
            self._table,
            x=self.state,
            out=self.state,
            outputs=[output] * MAX_OUTPUTS,
            registers=self._registers,
            seeds=self._seeds,
            indices=self._indices,
            variance_offset=setup.variance_offset,
            **({} if self._known is None else {"y": self._known.data, "mask": self._known.mask}),
        )
        self._evaluations = evaluations

    def _apply(self, slots: list[int]) -> None:
        rows, noise_rows = np.full(self.capacity, -1, np.int64), np.zeros(self.capacity, np.uint32)
        for i in slots:
            rows[i], noise_rows[i] = self._first[i] + self._at[i], self._at[i]
        bad = self._bound.run_each(rows, noise_rows, self._numbers_of)
        for i in slots:
            self._at[i] += 1
        if bad >= 0:
            at = self._at[bad] - 1
            raise not_finite(self._plan_of(bad).rows[at], at, [self._numbers[i] for i in self._bound.bad_samples()])
