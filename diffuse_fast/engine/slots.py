"""Slots: the samples in flight. The one loop of the engine, for batches, mixed requests and servers.

A slot holds one sample: its state, its plan, and the row of the plan that it is at. :meth:`Slots.admit` puts a request into a free
slot and :meth:`Slots.retire` frees it, both between ticks. :meth:`Slots.tick` advances every active slot with one joint call of the
network. Lockstep is the fast path: one plan, and all samples at the same row. :meth:`Slots.admit_batch` fills all slots that way.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import numpy as np

from ..errors import ArgumentError, NonFiniteError
from ..plans.plan import Plan, Row
from .conditioning import Conditions, check_form
from .known_region import KnownRegion
from .request import Admission, Batch, Defaults, admit
from .setup import Setup

# Slots kept for each key: what a few threads need, and no more memory than that.
_IDLE_PER_KEY = 8

OnRow = Callable[[int, Any], Any]


class Slots(ABC):
    """The samples in flight, for one user at a time.

    Args:
        setup: The model.
        capacity: Number of slots.
        defaults: Plan and guidance of requests without their own; only :meth:`admit` needs it.

    Attributes:
        setup, capacity: As given.
        state: (capacity, *shape) float32, an array of the device. It may be another array after a tick that follows an admission.
    """

    state: Any
    # Whether slots that are kept for a later batch take another plan.
    any_plan = True

    def __init__(self, setup: Setup, capacity: int, defaults: Defaults | None = None):
        self.setup, self.capacity, self._defaults = setup, capacity, defaults
        self._plans: list[Plan | None] = [None] * capacity
        self._at = [0] * capacity
        self._numbers = list(range(capacity))
        self._conditions: list[list[Conditions]] = [[]] * capacity
        self._seeds, self._indices = np.zeros(capacity, np.uint64), np.zeros(capacity, np.uint32)
        self._regions: list[KnownRegion | None] = [None] * capacity
        self._batch: Batch | None = None
        self._changed = True

    # ---- between ticks --------------------------------------------------------------------------

    def clear(self, defaults: Defaults | None = None) -> None:
        """Free all slots, for requests with other defaults."""
        self._defaults, self._batch, self._changed = defaults, None, True
        self._plans, self._regions = [None] * self.capacity, [None] * self.capacity

    def admit(self, request: Any, number: int | None = None) -> int:
        """Put a request into a free slot.

        Args:
            request: A :class:`~diffuse_fast.Request`.
            number: What errors call its sample; default: the slot.

        Returns:
            The slot.

        Raises:
            ArgumentError, ArgumentTypeError: no slot is free; or the request does not fit the model; or its conditioning differs in
                names, shapes or dtypes from that of the other slots.
        """
        if None not in self._plans:
            raise ArgumentError(f"all {self.capacity} slots are taken; retire one first.")
        assert self._defaults is not None, "slots without defaults take batches only"
        self._split_batch()
        slot = self._plans.index(None)
        admission = admit(self.setup, self._defaults, request, slot if number is None else number)
        self._check_form(admission)
        self._plans[slot], self._at[slot], self._numbers[slot] = admission.plan, 0, admission.number
        self._conditions[slot], self._regions[slot] = admission.conditions, admission.known
        self._seeds[slot], self._indices[slot] = admission.seed[0], admission.index[0]
        self._changed = True
        self._place(slot, admission)
        return slot

    @abstractmethod
    def admit_batch(self, batch: Batch) -> None:
        """Fill all slots with a batch in lockstep, in place of what they held."""

    def retire(self, slot: int) -> None:
        """Free a slot, finished or not."""
        if self._plans[slot] is None:
            raise ArgumentError(f"slot {slot} is free already.")
        self._split_batch()
        self._plans[slot] = self._regions[slot] = None
        self._changed = True

    def done(self, slot: int) -> bool:
        """Whether the sample of a slot has passed the last row of its plan."""
        plan = self._plans[slot]
        return plan is not None and self._at[slot] >= len(plan.rows)

    def at(self, slot: int) -> int:
        """The number of the row that the sample of a slot comes to next."""
        return self._at[slot]

    @property
    @abstractmethod
    def ticks(self) -> int:
        """How many ticks are left until every slot is done."""

    # ---- the loop -------------------------------------------------------------------------------

    @abstractmethod
    def tick(self) -> bool:
        """Advance every slot that is not done by one row, with one joint call of the network; False if all are done.

        Raises:
            NetworkError: the network failed.
            NonFiniteError: the network returned NaN or Inf; on a CUDA device :meth:`check` raises it. The row has been applied to
                every slot: once those that it names are retired, the others can go on.
        """

    def check(self) -> None:  # noqa: B027  (the CPU has nothing left to report)
        """Wait for the device, and raise what it has not reported yet.

        Raises:
            NonFiniteError: the network returned NaN or Inf since the last check.
        """

    def run(self, advance: Callable[[], Any] | None = None, callback: OnRow | None = None) -> None:
        """Tick until every slot is done, then check.

        Args:
            advance: Called after each tick.
            callback: Called as ``callback(i, state)`` after tick i; of a batch in lockstep, after row i.
        """
        number = 0
        while self.tick():
            if advance is not None:
                advance()
            if callback is not None:
                callback(number, self.state)
            number += 1
        self.check()

    # ---- results --------------------------------------------------------------------------------

    def result(self, slot: int) -> Any:
        """Return a copy of the sample of a finished slot, of shape ``setup.shape``.

        Raises:
            NonFiniteError: as :meth:`check`.
        """
        self.check()
        sample, region = self._own(self._part(slot), False), self._regions[slot]
        if self._batch is not None and self._batch.known is not None:
            region = self._batch.known.part(slice(slot, slot + 1))
        if region is not None:
            region.restore(sample[None], self._plan_of(slot))
        return sample

    def results(self, as_tensor: bool = False) -> Any:
        """Return a copy of the finished samples of all slots, (capacity, *shape): NumPy, or a tensor.

        Raises:
            NonFiniteError: as :meth:`check`.
        """
        self.check()
        samples = self._own(self.state, as_tensor)
        if self._batch is not None:
            if self._batch.known is not None:
                self._batch.known.restore(samples, self._batch.plan)
            return samples
        for slot, region in enumerate(self._regions):
            if region is not None:
                region.restore(samples[slot : slot + 1], self._plan_of(slot))
        return samples

    @abstractmethod
    def _part(self, slot: int) -> Any:
        """The state of one slot."""

    @abstractmethod
    def _own(self, array: Any, as_tensor: bool) -> Any:
        """A copy for the caller."""

    # ---- for the devices ------------------------------------------------------------------------

    @abstractmethod
    def _place(self, slot: int, admission: Admission) -> None:
        """Put the start of an admitted request into its slot."""

    def _take_batch(self, batch: Batch) -> None:
        """Note that the slots hold a batch."""
        n, self._batch = self.capacity, batch
        self._plans, self._at = [batch.plan] * n, [0] * n
        self._numbers = list(range(batch.first, batch.first + n))
        self._seeds, self._indices = batch.seeds, batch.indices

    def _split_batch(self) -> None:
        """Give every slot of a batch its own conditioning and known region, so that slots can change one by one."""
        batch, self._batch = self._batch, None
        if batch is None:
            return
        self._seeds, self._indices = self._seeds.copy(), self._indices.copy()
        for i in range(self.capacity):
            self._conditions[i] = [{name: value[i] for name, value in c.items()} for c in batch.conditions]
            self._regions[i] = None if batch.known is None else batch.known.part(slice(i, i + 1))

    def _active(self) -> list[int]:
        """The slots that are not done."""
        return [i for i, plan in enumerate(self._plans) if plan is not None and self._at[i] < len(plan.rows)]

    def _plan_of(self, slot: int) -> Plan:
        plan = self._plans[slot]
        assert plan is not None, "the slot is free"
        return plan

    def _row(self, slot: int) -> Row:
        return self._plan_of(slot).rows[self._at[slot]]

    def _distinct_plans(self) -> list[Plan]:
        return list({id(plan): plan for plan in self._plans if plan is not None}.values())

    def _check_form(self, admission: Admission) -> None:
        """Check that all conditioning has one form, as one call of the network takes it."""
        first, number = admission.conditions, admission.number
        for i, plan in enumerate(self._plans):
            if plan is not None:
                first, number = self._conditions[i], self._numbers[i]
                break
        for condition in admission.conditions:
            check_form(condition, f"request {admission.number}", first[0], f"request {number}")


class Pool:
    """Idle slots by what they are bound to, for calls from any thread."""

    def __init__(self) -> None:
        self._idle: dict[Any, list[Any]] = {}
        self._lock = threading.Lock()

    def take(self, key: Any) -> Any:
        """Return idle slots, which are the caller's until :meth:`give`; None if there are none."""
        with self._lock:
            idle = self._idle.get(key)
            return idle.pop() if idle else None

    def give(self, key: Any, slots: Any) -> None:
        """Keep slots for a later call."""
        with self._lock:
            idle = self._idle.setdefault(key, [])
            if len(idle) < _IDLE_PER_KEY:
                idle.append(slots)


def not_finite(row: Row, number: int, samples: list[int]) -> NonFiniteError:
    """The error of a network that returned NaN or Inf."""
    named = f"{', '.join(map(str, samples[:8]))}{' and more' if len(samples) > 8 else ''}"
    return NonFiniteError(
        f"the network returned NaN or Inf at row {number} (timestep {row.timestep:g}) for sample {named}.",
        row=number,
        samples=tuple(samples),
    )
