"""Slots on a CUDA device: one tick (network, step, advance) captured as a graph, and replayed for every row of any plan.

There is one graph for each kind of tick and each variant of the kernel. The kind is the number of network evaluations that the
rows combine (0 for rows without a network call), and whether their times are integers. Rows, times, seeds, conditioning and state
are data in static memory, so they can change without another capture.

Every sample advances by one row per tick, whether that row calls the network or not; a finished sample gets rows that keep its
state. So the sequence of ticks is known in advance, and the host waits for the device only after the last one, when it checks for
NaN and Inf. Every call evaluates all slots, active or not, because a captured graph has a fixed batch shape.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from ...errors import ArgumentError
from ...kernels.reference import STREAM_INITIAL
from ...kernels.rows import pack
from ...plans.plan import Row
from ...runtimes.base import is_integer
from ..arguments import device_noise, dtype_of
from ..conditioning import Conditions
from ..known_region import KnownRegion
from ..plan_cache import facts_of
from ..request import Admission, Batch, Defaults
from ..setup import Setup
from ..slots import OnRow, Slots, not_finite
from ..start import host_kernel
from ..step_noise import with_given_noise
from .base import Graph

# The number of network evaluations that a tick combines (0: no network call), and whether its times are integers.
Kind = tuple[int, bool]

# The smallest static table, in rows: most plans fit without another binding.
_CAPACITY = 64
_NO_TIME = 0.0
_SITS_OUT = -1
KEEP = Row(calls_network=False, a=1.0)  # x' = x


class CudaSlots(Slots):
    """See :class:`~diffuse_fast.engine.slots.Slots`. Static memory, its binding and its graphs."""

    def __init__(self, setup: Setup, capacity: int, defaults: Defaults | None = None):
        super().__init__(setup, capacity, defaults)
        assert setup.device is not None
        self._device = setup.device
        self._call: Any = None
        self._form: Any = None
        self._evaluations = 0
        self._region: Any = None  # the static known data and mask
        self._pool: Any = None
        self._fingerprint: Any = None
        self._fresh: dict[int, Admission] = {}  # admitted, and not started yet
        self._kinds: list[Kind] = []  # of the ticks to come
        self._ticked = 0  # ticks since the rows were placed
        self._unchecked = False
        self._retired: set[int] = set()  # since the rows were placed; NaN reported for them is ignored
        self._bank: Any = None
        self._registers = 0
        self._forget_step()

    def _forget_step(self) -> None:
        """Drop the binding and the graphs: as in new slots, or where the network has other weights now."""
        self._graphs: dict[Any, Graph] = {}
        self._warm: set[Any] = set()
        self._step: Any = None
        self._outputs: list[Any] = []

    # ---- between ticks --------------------------------------------------------------------------

    def admit_batch(self, batch: Batch) -> None:
        self._take_batch(batch)
        self._fresh.clear()
        self._kinds, self._ticked, self._unchecked, self._changed = [], 0, False, True

    def clear(self, defaults: Defaults | None = None) -> None:
        super().clear(defaults)
        self._fresh.clear()
        self._kinds, self._ticked, self._unchecked = [], 0, False

    def admit(self, request: Any, number: int | None = None) -> int:
        self._settle()
        return super().admit(request, number)

    def _place(self, slot: int, admission: Admission) -> None:
        self._fresh[slot] = admission

    def retire(self, slot: int) -> None:
        self._settle()
        super().retire(slot)
        self._fresh.pop(slot, None)
        self._retired.add(slot)

    def done(self, slot: int) -> bool:
        self._settle()
        return super().done(slot)

    @property
    def ticks(self) -> int:
        self._settle()
        return max((len(plan.rows) - self._at[i] for i, plan in enumerate(self._plans) if plan is not None), default=0)

    # ---- the loop -------------------------------------------------------------------------------

    def tick(self) -> bool:
        with self._device.scope():
            if self._changed:
                self._arrange()
            if self._ticked == len(self._kinds):
                return False
            self._tick(self._ticked)
            return True

    def run(self, advance: Callable[[], Any] | None = None, callback: OnRow | None = None) -> None:
        given = self._batch is not None and self._batch.step_noise is not None
        if self.setup.graph == "trajectory" and (callback is not None or given):
            raise ArgumentError("graph is 'trajectory', which runs all rows at once: callback and step_noise need graph='tick'.")
        with self._device.scope():
            if self._changed:
                self._arrange()
            if self.setup.graph == "trajectory" and self._ticked < len(self._kinds):
                self._trajectory(tuple(self._kinds[self._ticked :])).replay()
                self._ticked = len(self._kinds)
            for i in range(self._ticked, len(self._kinds)):
                self._tick(i)
                if advance is not None:
                    advance()
                if callback is not None:
                    callback(i, self.state)
            self.check()

    def _tick(self, i: int) -> None:
        """Enqueue tick i: every sample advances by one row."""
        if self._batch is not None and self._batch.step_noise is not None:
            self._give_noise(self._batch, self._at[0] + i)
        kind = self._kinds[i]
        if self._plain():
            self._enqueue(kind)
        else:
            self._graph(kind).replay()
        self._ticked = i + 1

    def check(self) -> None:
        if not self._unchecked:
            return
        with self._device.scope():
            bad = self._step.first_bad_rows(**self._on())
        self._unchecked = False
        bad[list(self._retired)] = -1
        at = np.where(bad >= 0, bad - self._first, np.iinfo(np.int32).max)
        if (bad >= 0).any():
            samples = np.flatnonzero(at == at.min())
            raise not_finite(self._plan_of(samples[0]).rows[at.min()], int(at.min()), [self._numbers[i] for i in samples])

    def _settle(self) -> None:
        """Count the ticks since the rows were placed as rows of the slots."""
        for i in self._active():
            self._at[i] = min(self._at[i] + self._ticked, len(self._plan_of(i).rows))
        self._kinds, self._ticked = self._kinds[self._ticked :], 0

    def _part(self, slot: int) -> Any:
        with self._device.scope():
            return self._device.part(self.state, slot)

    def _own(self, array: Any, as_tensor: bool) -> Any:
        with self._device.scope():
            return self._device.own(array, as_tensor)

    # ---- what a tick enqueues -------------------------------------------------------------------

    def _enqueue(self, kind: Kind) -> None:
        evaluations, integer_times = kind
        if evaluations == 0:
            self._step.launch(**self._on())
            return
        outputs = self._call(evaluations, integer_times)
        # A row of fewer evaluations has weights for those only; the rest is never read.
        self._step.launch(outputs=outputs + outputs[:1] * (len(self._outputs) - evaluations), **self._on())

    def _plain(self) -> bool:
        """Whether the engine captures nothing: the caller wants none, or the runtime has graphs of its own."""
        return self.setup.graph == "none" or self._call.captures_itself or not self._device.captures

    def _on(self, word: str = "stream") -> dict[str, int | None]:
        # Triton finds torch's current stream itself. A capture has a stream of its own: asked for each time.
        return {} if self.setup.kernel.name == "triton" else {word: self._device.stream}

    def _graph(self, kind: Kind) -> Graph:
        key = self._step.variant, kind
        if key not in self._graphs:
            self._graphs[key] = self._device.capture(functools.partial(self._enqueue, kind), self._graph_pool())
        return self._graphs[key]

    def _trajectory(self, kinds: tuple[Kind, ...]) -> Graph:
        key = self._step.variant, kinds
        if key not in self._graphs:

            def run() -> None:
                for kind in kinds:
                    self._enqueue(kind)

            self._graphs[key] = self._device.capture(run, self._graph_pool())
        return self._graphs[key]

    def _graph_pool(self) -> Any:
        if self._pool is None:
            self._pool = self._device.pool()
        return self._pool

    # ---- after admissions and retirements -------------------------------------------------------

    def _arrange(self) -> None:
        """Fill the static memory for who is in the slots now, and capture what the ticks to come need."""
        self._settle()
        self.check()  # placing the rows forgets which were bad
        active = self._active()
        batch = self._batch
        carry = batch is None and any(i not in self._fresh for i in active)  # samples on their way
        if active:
            self._bind_network(self._joined_conditions() if batch is None else batch.conditions, carry)
            if batch is None:
                table, registers = self._table_of(active), max(plan.registers for plan in self._distinct_plans())
            else:
                table, registers = self._table_of_batch(batch)
            self._load_known_region()
            self._prepare(*table, registers, carry)
            self._place_rows(active)
            self._start_batch(batch) if batch is not None else self._start_fresh()
            self._unchecked = True
        else:
            self._kinds = []
        self._changed = False

    def _table_of_batch(self, batch: Batch) -> tuple[tuple[np.ndarray, np.ndarray], int]:
        """The packed rows and times of a batch, and its registers; with given noise, one register more."""
        rows, registers = batch.plan.rows, batch.plan.registers
        packed = facts_of(batch.plan).packed
        if batch.step_noise is not None:
            rows, registers = with_given_noise(rows, registers), registers + 1
            packed = pack(rows)
        self._first, self._kinds = np.zeros(self.capacity, np.int32), [self._kind([row]) for row in rows]
        return (packed, times_of(rows)), registers

    def _table_of(self, active: list[int]) -> tuple[np.ndarray, np.ndarray]:
        """The packed rows and times of all plans, each followed by as many rows that keep the state as its slots may wait."""
        left = {i: len(self._plan_of(i).rows) - self._at[i] for i in active}
        ticks = max(left.values())
        waits: dict[int, int] = {}
        for i in active:
            key = id(self._plans[i])
            waits[key] = max(waits.get(key, 0), ticks - left[i])
        first, packed, times, number = {}, [], [], 0
        for plan in {id(p): p for p in map(self._plan_of, active)}.values():
            rest = [KEEP] * waits[id(plan)]
            first[id(plan)] = number
            packed += [facts_of(plan).packed, pack(rest)]
            times.append(times_of([*plan.rows, *rest]))
            number += len(plan.rows) + len(rest)
        self._first = np.array([first.get(id(plan), 0) for plan in self._plans], np.int32)
        at = {(id(self._plans[i]), self._at[i]): self._plan_of(i).rows[self._at[i] :] for i in active}
        self._kinds = [self._kind([rows[tick] for rows in at.values() if tick < len(rows)]) for tick in range(ticks)]
        return np.concatenate(packed), np.concatenate(times)

    def _kind(self, rows: list[Row]) -> Kind:
        """Which graph runs these rows, one for each sample or one for all."""
        calling = [row for row in rows if row.calls_network]
        for row in calling:
            self._call.check(float(row.timestep))
        weighed = max((len(row.g) for row in calling), default=0)
        return min(weighed, self._evaluations), all(is_integer(float(row.timestep)) for row in calling)

    def _joined_conditions(self) -> list[Conditions]:
        """Per network output, the conditioning of all slots. A slot with fewer outputs repeats its last condition, and a free slot
        that of another slot; their results are not used."""
        taken = [i for i, plan in enumerate(self._plans) if plan is not None]
        given = [self._conditions[i if plan is not None else taken[0]] for i, plan in enumerate(self._plans)]
        most = max(map(len, given))
        return [{name: self._joined([c[min(j, len(c) - 1)][name] for c in given]) for name in given[0][0]} for j in range(most)]

    def _joined(self, values: list[Any]) -> Any:
        if all(isinstance(value, np.ndarray | np.generic) for value in values):
            return np.stack(values)
        return self._device.stack(values)

    def _bind_network(self, conditions: list[Conditions], carry: bool) -> None:
        """Have the network in static memory for conditioning of this form, and copy its values there."""
        form = len(conditions), [(name, tuple(v.shape), dtype_of(v)) for name, v in conditions[0].items()]
        if form == self._form:
            self._call.condition(conditions)
            return
        setup, old = self.setup, self._call
        self._call = setup.network.bind_device(self._device, self.capacity, setup.shape, conditions, setup.output_shape)
        self._form, self._evaluations, self.state = form, len(conditions), self._call.x
        self._forget_step()
        if carry:
            self._device.upload(old.x, self.state)
            self._device.synchronize()  # the old memory goes

    def _load_known_region(self) -> None:
        """Copy the known regions to static memory, which is there once a sample has one."""
        regions = self._regions if self._batch is None else [self._batch.known]
        if self._region is None:
            if all(region is None for region in regions):
                return
            self._region = [self._device.alloc((self.capacity, *self.setup.shape)) for _ in KnownRegion._fields]
            self._forget_step()
        if self._batch is not None and self._batch.known is not None:
            arrays = self._batch.known
        else:
            zeros = np.zeros((1, *self.setup.shape), np.float32)
            parts = [KnownRegion(zeros, zeros) if region is None else region for region in self._regions]
            arrays = KnownRegion(*(np.concatenate(part) for part in zip(*parts, strict=True)))
        for array, into in zip(arrays, self._region, strict=True):
            self._device.upload(np.ascontiguousarray(array), into)

    def _place_rows(self, active: list[int]) -> None:
        """Give the kernel each sample's noise key and row. Slots that are not active sit out."""
        rows, at = np.full(self.capacity, _SITS_OUT, np.int32), np.zeros(self.capacity, np.int32)
        for i in active:
            rows[i], at[i] = self._first[i] + self._at[i], self._at[i]
        self._step.seed(self._seeds, self._indices, **self._on())
        self._step.place(rows, at, **self._on())
        self._retired.clear()

    def _start_batch(self, batch: Batch) -> None:
        scale = batch.plan.initial_scale
        if batch.start is not None:
            self._device.start(batch.start, scale, self.state)
            return
        self.setup.kernel.normals(
            self.state,
            seeds=batch.seeds,
            indices=batch.indices,
            row=0,
            stream=STREAM_INITIAL,
            scale=scale,
            **self._on("cuda_stream"),
        )

    def _start_fresh(self) -> None:
        """Put the start of what was admitted into its slots."""
        for slot, admission in self._fresh.items():
            start, scale, into = admission.start, admission.plan.initial_scale, self._device.part(self.state, slot)
            if start is not None and not isinstance(start, np.ndarray):
                self._device.start(start, scale, into)
                continue
            host = np.empty((1, *self.setup.shape), np.float32)
            if start is None:
                host_kernel().normals(
                    host, seeds=admission.seed, indices=admission.index, row=0, stream=STREAM_INITIAL, scale=scale
                )
            else:
                np.multiply(start, np.float32(scale), out=host[0, ...], casting="same_kind")
            self._device.start(host[0, ...], 1.0, into)
        self._fresh.clear()

    def _give_noise(self, batch: Batch, i: int) -> None:
        """Put the caller's noise for row i into the last register."""
        assert batch.step_noise is not None
        if not batch.plan.rows[i].stochastic:
            return
        given = device_noise(f"step_noise({i})", batch.step_noise(i), (self.capacity, *self.setup.shape), self._device)
        self._device.start(given, 1.0, self._device.part(self._bank, batch.plan.registers))
        if not isinstance(given, np.ndarray):  # the caller may free it while the copy is queued
            self._device.synchronize()

    # ---- binding and capturing ------------------------------------------------------------------

    def _prepare(self, packed: np.ndarray, times: np.ndarray, registers: int, carry: bool) -> None:
        """Load the rows into the static table, and capture what the device captures. The state does not change."""
        if (fingerprint := self.setup.network.fingerprint()) != self._fingerprint:
            self._forget_step()
            self._fingerprint = fingerprint
        if self._step is not None and (len(packed) > self._step.capacity or registers > self._registers):
            self._forget_step()
        if self._step is None:
            self._bind(packed, times, registers, carry)
        else:
            self._step.load(packed, times, **self._on())
        if self._plain():
            return
        for kind in dict.fromkeys(self._kinds):
            key = self._step.variant, kind
            if key not in self._warm:
                self._warm_up(kind)
                self._warm.add(key)
            if self.setup.graph == "tick":
                self._graph(kind)

    def _bind(self, packed: np.ndarray, times: np.ndarray, registers: int, carry: bool) -> None:
        most = max(self._kinds, key=lambda kind: kind[0])
        # What a call returns is known once there was one; its memory is then replaced by that of each capture.
        self._outputs = self._device.warm_up(lambda: self._call(*most)) if most[0] > 0 else []
        self._outputs += self._outputs[:1] * (self._evaluations - len(self._outputs))
        self._allocate_registers(registers, carry)
        capacity = max(_CAPACITY, 1 << (len(packed) - 1).bit_length())
        self._step = self.setup.kernel.bind(
            packed,
            x=self.state,
            out=self.state,
            outputs=self._outputs,
            registers=self._bank,
            seeds=np.zeros(self.capacity, np.uint64),
            indices=np.zeros(self.capacity, np.uint32),
            variance_offset=self.setup.variance_offset,
            times=times,
            t=self._call.t,
            capacity=capacity,
            **({} if self._region is None else {"y": self._region[0], "mask": self._region[1]}),
            **self._on(),
        )

    def _allocate_registers(self, registers: int, carry: bool) -> None:
        old, kept = self._bank, self._registers if carry else 0
        registers = max(registers, kept)
        self._bank = self._device.alloc((registers, self.capacity, *self.setup.shape)) if registers else None
        self._registers = registers
        for k in range(kept):
            self._device.upload(self._device.part(old, k), self._device.part(self._bank, k))
        if kept:
            self._device.synchronize()  # the old memory goes

    def _warm_up(self, kind: Kind) -> None:
        # With all samples sitting out, a launch compiles and loads what it needs, and changes nothing.
        nowhere = np.full(self.capacity, _SITS_OUT, np.int32)
        self._step.place(nowhere, nowhere, **self._on())
        self._device.warm_up(lambda: self._enqueue(kind))


def times_of(rows: tuple[Row, ...] | list[Row]) -> np.ndarray:
    """Return the times of a table's rows, float32; a row without a call has none."""
    return np.array([row.timestep if row.calls_network else _NO_TIME for row in rows], np.float32)
