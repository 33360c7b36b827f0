"""Hand out the shards of a batch to worker processes, and replace the ones that die."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import secrets
import subprocess
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from .. import __version__, _core, image_grid, saving
from ..checks import require_int
from ..console import Interval, silent
from ..engine.conditioning import conditions
from ..errors import ArgumentError, OutputError, StartError, WorkerError, suggest
from ..machine import physical_cores
from ..model import Model, load
from . import shard
from .conditioning import conditioning_of, read_conditioning
from .messages import Broken, Done, Ready, Settings
from .recipe import SUFFIXES, Recipe, stored_in

RETRIES = 3  # times that a shard is drawn again after its worker died
STARTS = 3  # workers in a row that may end before they are ready


@dataclass(frozen=True)
class Result:
    """What a folder holds when a batch has ended.

    Attributes:
        recipe: As in ``batch.json``.
        drawn: Number of shards that this run drew; the others were there.
        failed: Ids of the samples for which the network returned NaN or Inf, in order.
    """

    recipe: Recipe
    drawn: int
    failed: tuple[int, ...]


def run(
    model: str | Path | Model,
    n: int,
    out: str | os.PathLike[str],
    *,
    solver: str = "ddim",
    steps: int | None = 20,
    seed: int | None = None,
    guidance_scale: float = 1.0,
    cond: Mapping[str, Sequence[Any]] | None = None,
    cond_file: str | os.PathLike[str] | None = None,
    shard_size: int = 1000,
    processes: int | None = None,
    threads: int | None = 1,
    format: str = "npz",
    precision: str = "float32",
    runtime: str = "auto",
    say: Callable[[str], None] = silent,
) -> Result:
    """Draw n samples into shards in a folder, or the shards that it lacks.

    Sample i is index i of the seed: ``df.sample(model, 1, steps, seed=seed, first_index=i, ...)`` has the same bits, if the network
    is batch-invariant. Ctrl-C and any error leave complete shards only; the same call goes on.

    Args:
        model: A path, a bundled name, or a loaded model.
        n: Number of samples, from 1.
        out: The folder; it is made if there is none.
        solver, steps, precision, runtime: As for :func:`diffuse_fast.sample`.
        seed: None for the seed of the folder, or a random one at the start.
        guidance_scale: Scale of classifier-free guidance; 1 is none.
        cond: Lists of values by input name, which are assigned to the samples in turn.
        cond_file: An ``.npz`` with one array per input and one row per sample; not with ``cond``. Each worker holds all of it.
        shard_size: Samples per shard; a worker holds one shard in memory.
        processes: Number of workers; None for the physical cores divided by ``threads``. Each holds the network.
        threads: Threads of each worker; None as for :func:`diffuse_fast.sample`.
        format: ``npz``, or ``png`` for zip files of pictures; :mod:`.shard` describes both.
        say: Takes lines of progress.

    Raises:
        ArgumentError: an argument is invalid, or contradicts the recipe of the folder; the message names the field.
        OutputError: the folder or a shard cannot be written, or another run draws into it.
        StartError: workers end before they are ready.
        WorkerError: workers died each time that they drew a shard.
        DiffuseFastError: what a worker reports, such as a precision that this machine lacks.
    """
    model = load(model) if isinstance(model, str | Path) else model
    folder = Path(out).resolve()
    if threads is not None:
        require_int("threads", threads, 1)
    if processes is None:
        processes = max(1, physical_cores() // (threads or physical_cores()))
    if format not in SUFFIXES:
        raise ArgumentError(f"format is {format!r}.{suggest(format, SUFFIXES)}")
    if format == "png":
        image_grid.require_pillow()
        saving.check_images(model)
    model.plan(solver, steps)  # which checks both
    recipe = Recipe(
        model=model.name,
        sha256=model.sha256,
        n=require_int("n", n, 1),
        seed=-1 if seed is None else require_int("seed", seed, 0),
        solver=solver,
        steps=steps,
        guidance_scale=float(guidance_scale),
        cond={name: list(values) for name, values in (cond or {}).items()},
        cond_file=_checked(model, n, cond, cond_file),
        precision=precision,
        shard_size=require_int("shard_size", shard_size, 1),
        format=format,
        versions={"diffuse_fast": __version__, "noise_version": _core.NOISE_VERSION},
        network={},  # a worker says it
    )
    require_int("processes", processes, 1)
    with _alone_in(folder):
        stored = stored_in(folder)
        if seed is None:
            recipe = dataclasses.replace(recipe, seed=secrets.randbits(64) if stored is None else stored["seed"])
        if stored is not None:
            recipe.check_equal(stored, folder, leave_out=("network",))
        path = None if cond_file is None else Path(cond_file).resolve()
        batch = _Batch(Settings(recipe, model.path, path, folder, runtime, threads), stored, say)
        return batch.run(processes)


def _checked(
    model: Model, n: int, cond: Mapping[str, Sequence[Any]] | None, cond_file: str | os.PathLike[str] | None
) -> str | None:
    """Check the conditioning, and return the digest of its file."""
    if cond_file is None:
        lengths = [len(values) for values in (cond or {}).values()] or [1]
        longest = max(lengths)
        if min(lengths) < 1 or longest > n:
            raise ArgumentError(f"cond has lists of {lengths} values for {n} samples; each takes 1 to {n}.")
        conditions("cond", conditioning_of(cond or {}, range(longest)), longest, model.conditioning)
        return None
    if cond:
        raise ArgumentError("cond and cond_file contradict each other: give one of them.")
    arrays, digest = read_conditioning(Path(cond_file))
    for name, array in arrays.items():
        if array.shape[:1] != (n,):
            raise ArgumentError(f"cond_file has {name!r} of shape {array.shape}; it must have one row per sample ({n}).")
    conditions("cond_file", arrays, n, model.conditioning)
    return digest


@contextlib.contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Make a folder, and hold its lock."""
    import fcntl  # not on Windows, which has no descriptors to pass to a worker either

    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise OutputError(f"cannot write {str(folder)!r}: {error.strerror}.") from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise OutputError(f"another run draws into {str(folder)!r}.") from None
        except OSError:  # a file system without locks
            pass
        yield
    finally:
        os.close(descriptor)


class _Batch:
    """The shards that are missing, and the workers that draw them."""

    def __init__(self, settings: Settings, stored: Mapping[str, Any] | None, say: Callable[[str], None]):
        self._settings, self._stored, self._say = settings, stored, say
        self._recipe, self._folder = settings.recipe, settings.folder
        self._failed: list[int] = []
        self._missing: deque[int] = deque()
        for number in range(self._recipe.shards):
            failed = shard.failed_in(self._recipe.path(self._folder, number), self._recipe.ids(number))
            if failed is None:
                self._missing.append(number)
            else:
                self._failed += failed
        self._to_draw = len(self._missing)
        self._written = self._samples = 0
        self._deaths: Counter[int] = Counter()
        self._starts = 0
        self._workers: dict[Connection, _Worker] = {}
        self._begun = time.monotonic()

    def run(self, processes: int) -> Result:
        """Draw what is missing."""
        if self._to_draw < self._recipe.shards:
            self._say(f"batch: {self._recipe.shards - self._to_draw} of {self._recipe.shards} shards are there")
        due = Interval()
        try:
            while self._written < self._to_draw:
                while len(self._workers) < min(processes, self._to_draw - self._written):
                    worker = _Worker(self._settings)
                    self._workers[worker.connection] = worker
                for connection in wait(list(self._workers), timeout=1.0):
                    self._hear(self._workers[connection])  # type: ignore[index]  # only connections are waited for
                if due():
                    self._say(self._progress())
        except BaseException:
            for worker in self._workers.values():
                worker.kill()
            raise
        finally:
            for worker in self._workers.values():
                worker.end()
        if self._stored is not None:  # also where no worker has been needed
            network = self._stored.get("network", {})
            self._recipe = dataclasses.replace(self._recipe, network=network)
        return Result(self._recipe, self._written, tuple(sorted(self._failed)))

    def _hear(self, worker: _Worker) -> None:
        try:
            message = worker.connection.recv()
        except (EOFError, OSError):
            self._died(worker)
            return
        match message:
            case Broken(error):
                raise error
            case Ready(network):
                self._starts = 0
                self._check_network(network)
            case Done(failed):
                assert worker.shard is not None
                self._written += 1
                self._samples += len(self._recipe.ids(worker.shard))
                self._failed += failed
        worker.shard = self._missing.popleft() if self._missing else None
        if worker.shard is None:
            self._workers.pop(worker.connection).end()
        else:
            worker.send(worker.shard)

    def _check_network(self, network: Mapping[str, Any]) -> None:
        """Complete the recipe by what the first worker says, or check that another says the same."""
        recipe = dataclasses.replace(self._recipe, network=network)
        if self._stored is None:
            recipe.write(self._folder)
            self._stored = stored_in(self._folder)
        assert self._stored is not None
        recipe.check_equal(self._stored, self._folder)
        self._recipe = recipe

    def _died(self, worker: _Worker) -> None:
        code = self._workers.pop(worker.connection).end()
        how = f"signal {-code}" if code < 0 else f"exit status {code}"
        if worker.shard is None:
            self._starts += 1
            if self._starts == STARTS:
                raise StartError(f"{STARTS} workers ended before they were ready ({how}).")
            self._say(f"batch: a worker died ({how}) before it was ready; another is started")
            return
        self._deaths[worker.shard] += 1
        if self._deaths[worker.shard] > RETRIES:
            raise WorkerError(f"the worker died {RETRIES + 1} times while it drew shard {worker.shard} ({how}).")
        self._say(f"batch: a worker died ({how}); shard {worker.shard} is drawn again")
        self._missing.appendleft(worker.shard)

    def _progress(self) -> str:
        there = self._recipe.shards - self._to_draw + self._written
        line = f"batch: {there} of {self._recipe.shards} shards"
        if not self._written:
            return line
        rate = self._samples / (time.monotonic() - self._begun)
        left = (self._to_draw - self._written) * self._recipe.shard_size / rate
        return f"{line}, {rate:.3g} samples/s, about {_duration(left)} left"


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min" if minutes else f"{seconds:.0f} s"


class _Worker:
    """A process, and the shard it draws; None until it is ready."""

    def __init__(self, settings: Settings):
        self.shard: int | None = None
        self.connection, theirs = Pipe()
        try:
            # -P: not from the folder that the command was started in. A session of its own: Ctrl-C is for this process.
            command = [sys.executable, "-P", "-m", "diffuse_fast.batch.worker", str(theirs.fileno())]
            self._process = subprocess.Popen(command, pass_fds=(theirs.fileno(),), stdin=subprocess.DEVNULL, start_new_session=True)
        finally:
            theirs.close()
        self.send(settings)

    def send(self, message: Any) -> None:
        """Send a message; a worker that has died is found when it is listened to."""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.connection.send(message)

    def kill(self) -> None:
        """End the process now. The temporary file of its shard is removed when that is drawn again."""
        self._process.kill()

    def end(self) -> int:
        """Close the connection, at which the process ends, and return its exit status."""
        self.connection.close()
        try:
            return self._process.wait(5.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()
