"""A batch on a device: one tick (network, step, advance) captured as a graph, and replayed for every row of any plan.

What is captured: one graph for each kind of row (how many evaluations it weighs; none for rows without a network call; whether its
time is whole), for the kernel's variant of the plan. What is not, because it is data in static memory: the rows, times, seeds,
conditioning and state. Between the first row and the last nothing waits for the device; NaN and Inf are looked for at the end.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import ArgumentError
from ..kernels.reference import STREAM_INITIAL
from ..kernels.rows import pack
from ..plans.plan import Plan, Row
from ..runtimes.base import is_whole
from .arguments import device_noise
from .conditioning import Conditions
from .workspace import StepNoise, not_finite, with_given_noise

if TYPE_CHECKING:
    from .device import Graph
    from .sampler import Sampler

# Evaluations a row weighs (0: no network call), and whether its time is a whole number.
Kind = tuple[int, bool]

# Rows that the static table holds at least: most plans fit without another binding.
_CAPACITY = 64
_NO_TIME = 0.0


class DeviceWorkspace:
    """The static memory of one batch, its binding and its graphs, owned by one call at a time."""

    def __init__(self, sampler: Sampler, batch: int, conditions: list[Conditions]):
        backend = sampler._backend
        assert backend is not None
        self._device, self._network, self._kernel = backend.device, backend.network, backend.kernel
        self.batch, self._shape, self._evaluations = batch, sampler.shape, len(conditions)
        # The variance is the second half of the channels, right behind the prediction.
        self._variance_offset = math.prod(sampler.shape) if sampler._output_shape != sampler.shape else -1
        with self._device.scope():
            self._call = self._network.bind_device(self._device, batch, sampler.shape, conditions, sampler._output_shape)
        self.state = self._call.x
        self._pool: Any = None
        self._fingerprint: Any = None
        self._forget_step()

    def _forget_step(self) -> None:
        """No binding and no graph: as a new workspace, and as one whose network has other weights now."""
        self._graphs: dict[Any, Graph] = {}
        self._warm: set[Any] = set()
        self._step: Any = None
        self._bank: Any = None
        self._outputs: list[Any] = []
        self._registers = 0

    def condition(self, conditions: list[Conditions]) -> None:
        """Take the conditioning of another call, of the same names, shapes and dtypes."""
        with self._device.scope():
            self._call.condition(conditions)

    def run(
        self,
        plan: Plan,
        packed: Any,
        graph: str,
        seeds,
        indices,
        start,
        step_noise: StepNoise | None,
        advance,
        callback,
        first_sample: int,
    ) -> None:
        """From noise to samples, in ``state``, all samples by one plan."""
        rows, registers = plan.rows, plan.registers
        before = None
        if step_noise is not None:
            rows, registers = with_given_noise(rows, registers), registers + 1
            packed = pack(rows)

            def before(i: int) -> None:
                if plan.rows[i].stochastic:
                    given = device_noise(f"step_noise({i})", step_noise(i), (self.batch, *self._shape), self._device)
                    self._device.start(given, 1.0, self._device.part(self._bank, registers - 1))
                    if not isinstance(given, np.ndarray):  # who frees it does not know that it is still read
                        self._device.synchronize()

        def fill() -> None:
            if start is not None:
                self._device.start(start, plan.initial_scale, self.state)
                return
            self._kernel.normals(
                self.state,
                seeds=seeds,
                indices=indices,
                row=0,
                stream=STREAM_INITIAL,
                scale=plan.initial_scale,
                **self._on("cuda_stream"),
            )

        kinds = [self.kind([row]) for row in rows]
        bad = self.run_table(
            packed,
            times_of(rows),
            registers,
            kinds,
            graph,
            seeds,
            indices,
            np.zeros(self.batch, np.int32),
            fill,
            advance,
            callback,
            before,
        )
        if (bad >= 0).any():
            row = int(bad[bad >= 0].min())
            raise not_finite(rows[row], row, [first_sample + int(i) for i in np.flatnonzero(bad == row)])

    def run_table(
        self,
        packed,
        times,
        registers: int,
        kinds: list[Kind],
        graph: str,
        seeds,
        indices,
        first: np.ndarray,
        fill: Callable[[], None],
        advance,
        callback,
        before=None,
    ) -> np.ndarray:
        """A tick for each of ``kinds``, sample i from row ``first[i]`` of the table on. ``fill`` puts the start into ``state``.

        Returns:
            For each sample the first row whose model output held NaN or Inf, or -1.
        """
        if graph == "trajectory" and (callback is not None or before is not None):
            raise ArgumentError("graph is 'trajectory', which runs all rows at once: callback and step_noise need graph='tick'.")
        with self._device.scope():
            self._prepare(packed, times, registers, dict.fromkeys(kinds), graph)
            self._step.seed(seeds, indices, **self._on())
            self._step.place(first, np.zeros(self.batch, np.int32), **self._on())
            fill()
            if graph == "trajectory":
                self._trajectory(tuple(kinds)).replay()
            else:
                for i, kind in enumerate(kinds):
                    if before is not None:
                        before(i)
                    self._tick(kind, graph)
                    if advance is not None:
                        advance()
                    if callback is not None:
                        callback(i, self.state)
            return self._step.first_bad_rows(**self._on())

    # ---- one tick -------------------------------------------------------------------------------

    def kind(self, rows: list[Row]) -> Kind:
        """Which graph runs these rows, one for each sample or one for all."""
        calling = [row for row in rows if row.calls_network]
        for row in calling:
            self._call.check(float(row.timestep))
        weighed = max((len(row.g) for row in calling), default=0)
        return min(weighed, self._evaluations), all(is_whole(float(row.timestep)) for row in calling)

    def _tick(self, kind: Kind, graph: str) -> None:
        """Enqueue one tick: every sample goes on by one row."""
        if self._plain(graph):
            self._enqueue(kind)
        else:
            self._graphs[self._step.variant, kind].replay()

    def _enqueue(self, kind: Kind) -> None:
        evaluations, whole = kind
        if evaluations == 0:
            self._step.launch(**self._on())
            return
        outputs = self._call(evaluations, whole)
        # A row of fewer evaluations weighs only what is there.
        self._step.launch(outputs=outputs + outputs[:1] * (len(self._outputs) - evaluations), **self._on())

    def _plain(self, graph: str) -> bool:
        """Whether the engine captures nothing: it was told so, or the runtime has graphs of its own."""
        return graph == "none" or self._call.captures_itself or not self._device.captures

    def _on(self, word: str = "stream") -> dict[str, int | None]:
        # Triton finds torch's current stream itself. A capture has a stream of its own: asked for each time.
        return {} if self._kernel.name == "triton" else {word: self._device.stream}

    # ---- binding and capturing ------------------------------------------------------------------

    def _prepare(self, packed: np.ndarray, times: np.ndarray, registers: int, kinds: Any, graph: str) -> None:
        """The rows in the static table, and what the device captures captured. Nothing of it changes the state."""
        if (fingerprint := self._network.fingerprint()) != self._fingerprint:
            self._forget_step()
            self._fingerprint = fingerprint
        if self._step is not None and (len(packed) > self._step.capacity or registers > self._registers):
            self._forget_step()
        if self._step is None:
            self._bind(packed, times, registers, kinds)
        else:
            self._step.load(packed, times, **self._on())
        if self._plain(graph):
            return
        for kind in kinds:
            key = self._step.variant, kind
            if key not in self._warm:
                self._warm_up(kind)
                self._warm.add(key)
            if graph == "tick" and key not in self._graphs:
                self._graphs[key] = self._device.capture(functools.partial(self._enqueue, kind), self._pool_here())

    def _bind(self, packed: np.ndarray, times: np.ndarray, registers: int, kinds: Any) -> None:
        most = max(kinds, key=lambda kind: kind[0])
        calling = most[0] > 0
        # What a call returns is known once there was one; its memory is then replaced by that of each capture.
        self._outputs = self._device.warm_up(lambda: self._call(*most)) if calling else []
        self._outputs += self._outputs[:1] * (self._evaluations - len(self._outputs))
        self._registers = registers
        self._bank = self._device.alloc((registers, self.batch, *self._shape)) if registers else None
        nobody = np.zeros(self.batch, np.uint64), np.zeros(self.batch, np.uint32)
        capacity = max(_CAPACITY, 1 << (len(packed) - 1).bit_length())
        self._step = self._kernel.bind(
            packed,
            x=self.state,
            out=self.state,
            outputs=self._outputs,
            registers=self._bank,
            seeds=nobody[0],
            indices=nobody[1],
            variance_offset=self._variance_offset,
            times=times,
            t=self._call.t,
            capacity=capacity,
            **self._on(),
        )

    def _warm_up(self, kind: Kind) -> None:
        # With all samples sitting out, a launch compiles and loads what it needs, and changes nothing.
        nowhere = np.full(self.batch, -1, np.int32)
        self._step.place(nowhere, nowhere, **self._on())
        self._device.warm_up(lambda: self._enqueue(kind))

    def _trajectory(self, kinds: tuple[Kind, ...]) -> Graph:
        key = self._step.variant, kinds
        if key not in self._graphs:

            def run() -> None:
                for kind in kinds:
                    self._enqueue(kind)

            self._graphs[key] = self._device.capture(run, self._pool_here())
        return self._graphs[key]

    def _pool_here(self) -> Any:
        if self._pool is None:
            self._pool = self._device.pool()
        return self._pool


def times_of(rows: tuple[Row, ...] | list[Row]) -> np.ndarray:
    """The times of a table's rows for its samples, float32; a row without a call has none."""
    return np.array([row.timestep if row.calls_network else _NO_TIME for row in rows], np.float32)
