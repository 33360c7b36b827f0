"""Slots on a network of the compiled core: the whole loop runs there.

A tick, or all of them, is one call of the core without the GIL. Between two rows Python runs only where a callback, a progress bar
or given noise asks for it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ... import _core
from ...errors import StoppedError
from ...kernels.reference import STREAM_INITIAL
from ...plans.plan import Plan
from ...runtimes.base import network_error
from ...runtimes.native import NativeNetwork
from ..arguments import noise_array
from ..conditioning import Conditions
from ..known_region import KnownRegion
from ..plan_cache import compiled, facts_of
from ..request import Admission, Batch, Defaults, StepNoise
from ..setup import Setup
from ..slots import OnRow, Slots, not_finite
from ..step_noise import with_given_noise
from .cpu import own_copy


class NativeSlots(Slots):
    """See :class:`~diffuse_fast.engine.slots.Slots`."""

    def __init__(self, setup: Setup, capacity: int, defaults: Defaults | None = None):
        super().__init__(setup, capacity, defaults)
        self._network: NativeNetwork = setup.network
        self._network.check_shapes(setup.shape, setup.output_shape)
        self._core = _core.Slots(self._network.core, setup.kernel.name, capacity, self._network.threads)
        self.state = self._shaped(self._core.state)

    def clear(self, defaults: Defaults | None = None) -> None:
        super().clear(defaults)
        for slot in range(self.capacity):
            self._core.retire(slot)

    def admit_batch(self, batch: Batch) -> None:
        plan = batch.plan
        if batch.step_noise is None:
            rows = facts_of(plan).compiled
        else:
            rows = compiled(with_given_noise(plan.rows, plan.registers), plan.registers + 1)
        self._start(slice(0, self.capacity), plan, rows, batch.seeds, batch.indices, batch.conditions, batch.start, batch.known)
        self._take_batch(batch)
        self._changed = False

    def retire(self, slot: int) -> None:
        super().retire(slot)
        self._core.retire(slot)

    def done(self, slot: int) -> bool:
        return self._plans[slot] is not None and self._core.done(slot)

    def at(self, slot: int) -> int:
        return self._core.at(slot)

    @property
    def ticks(self) -> int:
        if self._batch is not None:
            return len(self._batch.plan.rows) - self._core.at(0)
        # One tick for each call, and none for rows behind the last one.
        return max((facts_of(plan).calls for plan in self._plans if plan is not None), default=0)

    def tick(self) -> bool:
        return self._call(self._core.tick)

    def run(self, advance: Callable[[], Any] | None = None, callback: OnRow | None = None) -> None:
        given = None if self._batch is None else self._batch.step_noise
        if advance is None and callback is None and given is None:
            self._call(self._core.run)
        elif self._batch is None:
            super().run(advance, callback)
        else:
            self._run_rows(self._batch.plan, given, advance, callback)

    def stop(self) -> None:
        """End a tick or a run of another thread, which raises ``StoppedError`` there. Without one, do nothing.

        The slots stay at the rows that they have completed, and may go on.
        """
        self._core.stop()

    def _run_rows(self, plan: Plan, given: StepNoise | None, advance: Callable[[], Any] | None, callback: OnRow | None) -> None:
        noise = None if given is None else self._shaped(self._core.register_view(plan.registers))
        for i in range(self._core.at(0), len(plan.rows)):
            if given is not None and noise is not None and plan.rows[i].stochastic:
                noise[...] = noise_array(f"step_noise({i})", given(i), self.state.shape)
            self._call(self._core.row)
            if advance is not None:
                advance()
            if callback is not None:
                callback(i, self.state)

    def _call(self, run: Callable[[], str]) -> bool:
        """Run rows in the core, and raise what ended them; False if all slots were done before."""
        try:
            result = run()
        except (RuntimeError, MemoryError) as error:
            raise network_error(self._time(), error) from error
        if result == "not_finite":
            bad = self._core.bad
            slot, row = bad[0]
            raise not_finite(self._plan_of(slot).rows[row], row, [self._numbers[i] for i, _ in bad])
        if result == "stopped":
            raise StoppedError("the samples were stopped from another thread.")
        return result == "advanced"

    def _time(self) -> float:
        """The time of the first slot that is not done."""
        slot = next(i for i in range(self.capacity) if not self._core.done(i))
        return self._plan_of(slot).rows[self._core.at(slot)].timestep

    def _place(self, slot: int, admission: Admission) -> None:
        conditions = [{name: value[None] for name, value in c.items()} for c in admission.conditions]
        start = None if admission.start is None else admission.start[None]
        plan, rows = admission.plan, facts_of(admission.plan).compiled
        self._start(slice(slot, slot + 1), plan, rows, admission.seed, admission.index, conditions, start, admission.known)

    def _start(
        self,
        which: slice,
        plan: Plan,
        rows: _core.Plan,
        seeds: np.ndarray,
        indices: np.ndarray,
        conditions: list[Conditions],
        start: Any,
        known: KnownRegion | None,
    ) -> None:
        """Put samples at the start of a plan into consecutive slots."""
        self._network.check_times(facts_of(plan).times)
        prepared = [self._network.prepare(c, len(seeds)) for c in conditions]
        self._core.admit(which.start, rows, seeds, indices, prepared, known is not None)
        state, scale = self.state[which], plan.initial_scale
        if start is None:
            self.setup.kernel.normals(state, seeds=seeds, indices=indices, row=0, stream=STREAM_INITIAL, scale=scale)
        else:
            np.multiply(start, np.float32(scale), out=state, casting="same_kind")
        if known is not None:
            self._shaped(self._core.known)[which], self._shaped(self._core.mask)[which] = known

    def _shaped(self, array: np.ndarray) -> np.ndarray:
        return array.reshape(self.capacity, *self.setup.shape)

    def _part(self, slot: int) -> Any:
        return self.state[slot]

    def _own(self, array: Any, as_tensor: bool) -> Any:
        return own_copy(array, as_tensor)
