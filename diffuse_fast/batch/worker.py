"""The process that draws shards: ``python -m diffuse_fast.batch.worker CONNECTION``.

Over the connection come its settings and then numbers of shards (:mod:`.messages`). It ends when the other end is closed.
"""

from __future__ import annotations

import contextlib
import itertools
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from ..engine.sampler import Sampler
from ..errors import ArgumentError, ArtifactError, DiffuseFastError, NonFiniteError
from ..model import load
from ..runtimes.record import record
from . import shard
from .conditioning import conditioning_of, read_conditioning
from .messages import Broken, Done, Ready, Settings

BATCH = 64  # samples per network call; bounds memory


def main(connection: Connection) -> None:
    """Draw the shards that are asked for over the connection."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process at the other end, which ends this one
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):  # nobody is there any more
        try:
            drawer = _Drawer(connection.recv())
            connection.send(Ready(drawer.network()))
            while True:
                connection.send(Done(drawer.draw(connection.recv())))
        except (DiffuseFastError, MemoryError) as error:
            connection.send(Broken(error))


class _Drawer:
    """A sampler, and the conditioning of all samples."""

    def __init__(self, settings: Settings):
        self._settings, self._recipe = settings, settings.recipe
        self._model = load(settings.model)
        if self._model.sha256 != self._recipe.sha256:
            raise ArtifactError(f"{str(settings.model)!r} was replaced during the batch.")
        self._cond: Mapping[str, Sequence[Any] | np.ndarray] = self._recipe.cond
        if settings.cond_file is not None:
            self._cond, digest = read_conditioning(settings.cond_file)
            if digest != self._recipe.cond_file:
                raise ArgumentError(f"{str(settings.cond_file)!r} was replaced during the batch.")
        self._sampler = Sampler(
            self._model,
            self._model.plan(self._recipe.solver, self._recipe.steps),
            guidance_scale=self._recipe.guidance_scale,
            runtime=settings.runtime,
            precision=self._recipe.precision,
            threads=settings.threads,
            device="cpu",
        )

    def network(self) -> dict[str, Any]:
        """What runs the network."""
        settings = self._settings
        found = record(self._model, settings.runtime, self._recipe.precision, settings.threads)
        return {name: value for name, value in found.items() if name != "instruction_set"}

    def draw(self, number: int) -> list[int]:
        """Write a shard, and return the ids that failed."""
        ids = self._recipe.ids(number)
        parts, failed = finite(self._sample, [ids[i : i + BATCH] for i in range(0, len(ids), BATCH)])
        there = [i for run, _ in parts for i in run]
        samples = np.concatenate([x for _, x in parts]) if parts else np.empty((0, *self._model.shape), np.float32)
        shard.write(self._recipe.path(self._settings.folder, number), there, samples, failed, self._model)
        return failed

    def _sample(self, ids: range) -> np.ndarray:
        cond = conditioning_of(self._cond, ids)
        return np.asarray(self._sampler.sample(len(ids), seed=self._recipe.seed, first_index=ids.start, cond=cond))


def finite(draw: Callable[[range], np.ndarray], runs: Sequence[range]) -> tuple[list[tuple[range, np.ndarray]], list[int]]:
    """Draw runs of ids. A run with samples that are not finite is drawn again in parts, without them.

    Returns:
        The runs that were drawn with their samples, and the ids that failed; both in order.
    """
    parts, failed = [], []
    waiting = list(reversed(runs))
    while waiting:
        run = waiting.pop()
        try:
            parts.append((run, draw(run)))
        except NonFiniteError as error:
            bad = sorted({run[i] for i in error.samples})
            if not bad:
                raise
            failed += bad
            edges = [run.start - 1, *bad, run.stop]
            between = [range(low + 1, high) for low, high in itertools.pairwise(edges) if high - low > 1]
            waiting += reversed(between)
    return parts, sorted(failed)


if __name__ == "__main__":
    main(Connection(int(sys.argv[1])))
