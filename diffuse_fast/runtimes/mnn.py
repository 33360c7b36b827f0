"""MNN. Its converter makes its graph of the file when the first network is; a call copies the inputs into a session and runs it.

Its convolutions of 3x3 are Winograd's. In float32 they are held to the smallest tile, whose transforms halve at most, so that it is
exact to rounding; with the tiles of float32-fast, which MNN takes by default, a call can be off by 3e-4 (``docs/runtimes.md``).
"""

from __future__ import annotations

import ctypes
import importlib
import os
import subprocess
import sys
import tempfile
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from .. import machine
from ..errors import ArgumentError, ArtifactError, DiffuseFastError, MissingDependencyError, NetworkError, OutputError, install_hint
from ..model import Model
from ..onnx import header
from ..rewrites import passes
from .base import Inputs, MemoryCall, aligned, check_output
from .fork_safety import Threaded, forget_in_child
from .session_pool import Sessions

_HINT = 3  # WINOGRAD_MEMORY_LEVEL
_TILES = {"float32": 1, "float32-fast": 3}  # F(2x2, 3x3) alone; the one that takes fewest products, of up to 6x6

# Shapes that no bound call has and for which a session is kept, for each model: it holds the weights in its own layout.
_KEPT = 4

_LINE = b"The device supports:"  # that it prints
_LONGEST = 600  # seconds for the converter, which takes 0.1 s for a megabyte

_DTYPES = ("float32", "int64", "int32")  # of inputs: whole numbers become 32 bits wide

# A process of its own: the converter ends the process where it meets what it did not expect. Called in its compiled module, never
# by the command ``mnnconvert``, which runs pip and reports its use to a server.
_CONVERT = "import sys; sys.path.insert(0, sys.argv[1]); import _tools; _tools.mnnconvert(['mnnconvert', *sys.argv[2:]])"


class _Converted:
    """What MNN's converter made of a model, and the sessions that no call is in."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.sessions: Sessions[_Session] = Sessions(_KEPT)


_models: weakref.WeakKeyDictionary[Model, _Converted] = weakref.WeakKeyDictionary()
_lock = threading.Lock()
_pool: Threaded | None = None  # MNN's threads, which all its sessions share: it makes no others


def _forget() -> None:
    """A forked child makes its own."""
    global _models, _lock
    _models, _lock = weakref.WeakKeyDictionary(), threading.Lock()


forget_in_child(lambda: list(_models.values()), _forget)


def network(model: Model, *, threads: int | None = None, time_dtype: str | None = None, precision: str = "float32") -> MNNNetwork:
    """A ``df.Model`` as a network.

    Raises:
        ArtifactError: MNN's converter refuses the file; the message names the operators it lacks.
        OutputError: a temporary file cannot be written.
    """
    if time_dtype is not None:
        raise ArgumentError("time_dtype is for modules and callables; an ONNX file fixes the type of its time itself.")
    with _lock:
        mnn = _imported()
        made = _models.get(model)
        if made is None:
            made = _models[model] = _Converted(_convert(model, Path(mnn.__file__).parent.parent))
    return MNNNetwork(model, made, threads, precision)


def _imported() -> Any:
    """MNN, without the line about the processor that it prints when it is imported. What other threads print meanwhile stays."""
    if (mnn := sys.modules.get("MNN")) is not None:
        return mnn
    with _folder() as folder, open(folder / "printed", "w+b") as printed:
        try:
            kept = os.dup(1)
        except OSError:  # it is closed, and so is what Python has for it
            return _import()
        if sys.stdout is not None:
            sys.stdout.flush()
        os.dup2(printed.fileno(), 1)
        try:
            return _import()
        finally:
            ctypes.CDLL(None).fflush(None)  # its line is in the buffer of C
            os.dup2(kept, 1)
            os.close(kept)
            printed.seek(0)
            os.write(1, b"".join(line for line in printed if not line.startswith(_LINE)))


def _import() -> Any:
    try:
        return importlib.import_module("MNN")
    except ImportError as error:
        raise MissingDependencyError(f"the runtime 'mnn' cannot import MNN ({error}): {install_hint('mnn')}") from None


def _convert(model: Model, packages: Path) -> bytes:
    """The model in MNN's format."""
    changed = passes.for_mnn(model)
    with _folder() as folder:
        source, target = folder / "model.onnx", folder / "model.mnn"
        if changed is None:
            source = model.path
        else:
            source.write_bytes(changed)
        arguments = ["-f", "ONNX", "--modelFile", os.fspath(source), "--MNNModel", os.fspath(target), "--bizCode", "model"]
        command = [sys.executable, "-P", "-c", _CONVERT, os.fspath(packages), *arguments]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, errors="replace", stdin=subprocess.DEVNULL, cwd=folder, timeout=_LONGEST
            )
        except subprocess.TimeoutExpired:
            raise ArtifactError(
                f"MNN's converter was not done with {str(model.path)!r} after {_LONGEST} s; take another runtime, such as 'onnx'."
            ) from None
        if done.returncode or not target.exists():
            said = [line for line in (done.stdout + done.stderr).splitlines() if "Not Support" in line or "rror" in line]
            why = " ".join(said) or f"status {done.returncode}"
            raise ArtifactError(f"MNN's converter refuses {str(model.path)!r}: {why[-1000:]}")
        return target.read_bytes()


@contextmanager
def _folder() -> Iterator[Path]:
    """A temporary folder: MNN reads and writes files only."""
    try:
        with tempfile.TemporaryDirectory(prefix="diffuse_fast-") as name:
            yield Path(name)
    except OSError as error:
        raise OutputError(f"MNN needs a temporary file, which cannot be written: {error}; TMPDIR names another folder.") from None


class MNNNetwork(Threaded):
    """A converted model, and how it is to be run."""

    name = "mnn"

    def __init__(self, model: Model, made: _Converted, threads: int | None, precision: str):
        super().__init__()
        # Of the model no more than it says: what was made of it lives as long as it does.
        dims = next(value.shape for value in header.read(model.path).inputs if value.name == model.time.input)
        per_sample = dims is None or (len(dims) == 1 and dims[0] != 1)
        self._inputs = Inputs(model.input, model.shape, model.time, len(dims or ()), per_sample, model.conditioning)
        self._output, self._output_shape = model.output, model.output_shape
        self._made, self._way = made, (machine.physical_cores() if threads is None else threads, _TILES[precision])
        for name, dtype in ((model.time.input, model.time.dtype), *((c.name, c.dtype) for c in model.conditioning)):
            if dtype not in _DTYPES:
                raise ArgumentError(f"the network's input {name!r} is {dtype}; MNN takes {', '.join(_DTYPES)}.")

    def bind(
        self, batch: int, shape: tuple[int, ...], cond: dict[str, np.ndarray], output_shape: tuple[int, ...] | None = None
    ) -> MNNCall:
        self.check_process()
        inputs = self._inputs.arrays(batch, shape, cond)
        into = aligned((batch, *(output_shape or self._output_shape)))
        return MNNCall(self._made, self._way, inputs, self._inputs.sample, self._inputs.time.input, self._output, into)


class MNNCall(MemoryCall):
    """Inputs and output are copied from and to a session, which is nobody's between two calls."""

    def __init__(
        self,
        made: _Converted,
        way: tuple[int, int],
        inputs: dict[str, np.ndarray],
        sample: str,
        time: str,
        output: str,
        into: np.ndarray,
    ) -> None:
        super().__init__(inputs, sample, time, into)
        shapes = {name: array.shape for name, array in inputs.items()}
        key = (way, *sorted(shapes.items()))

        def new() -> _Session:
            try:
                return _Session(made.content, *way, shapes, output, into.ndim)
            except DiffuseFastError:
                raise
            except Exception as error:
                raise ArtifactError(f"MNN refuses the network for inputs of {shapes}: {str(error)[:1000]}") from None

        made.sessions.bind(self, key)
        first = made.sessions.take(key) or new()  # what it refuses is told here, and no call but one beside another makes its own
        made.sessions.give(key, first)
        check_output(first.output.shape, into.shape)

        here = Threaded()

        def run() -> None:
            here.check_process()
            session = made.sessions.take(key) or new()
            session(inputs, into)
            made.sessions.give(key, session)

        self._run = run


class _Session:
    """A session for certain shapes. One call at a time: each has an interpreter of its own, for which sessions wait."""

    def __init__(
        self, content: bytes, threads: int, tiles: int, shapes: dict[str, tuple[int, ...]], output: str, dims: int
    ) -> None:
        global _pool
        mnn = sys.modules["MNN"]
        if threads > 1:
            if _pool is None:
                _pool = Threaded()
            _pool.check_process("take threads=1 or another runtime")
        with _folder() as folder:  # there is no way to give it bytes
            file = folder / "model.mnn"
            file.write_bytes(content)
            self._interpreter = mnn.Interpreter(os.fspath(file))
        self._interpreter.setSessionHint(_HINT, tiles)
        # "normal" is float32 as "high" is, which prints a line.
        self._session = self._interpreter.createSession({"backend": "CPU", "numThread": threads, "precision": "normal"})
        # Those that the network uses: the converter drops others.
        tensors = self._interpreter.getSessionInputAll(self._session)
        for name, tensor in tensors.items():
            self._interpreter.resizeTensor(tensor, shapes[name])
        self._interpreter.resizeSession(self._session)
        # Arrays over MNN's own memory, which it uses for other values too while it runs.
        self._inputs = {name: tensor.getNumpyData() for name, tensor in tensors.items()}
        self.output = self._interpreter.getSessionOutput(self._session, output).getNumpyData()
        if self.output.ndim == dims + 1 and self.output.shape[-1] == 1:  # a convolution of sequences is to it one of pictures
            self.output = self.output[..., 0]

    def __call__(self, inputs: dict[str, np.ndarray], into: np.ndarray) -> None:
        for name, array in self._inputs.items():
            np.copyto(array, inputs[name], casting="same_kind")
        if status := self._interpreter.runSession(self._session):
            raise NetworkError(f"MNN stopped with its error {status}.")
        np.copyto(into, self.output)
