"""MNN. The file is converted to MNN's format for the first network; a call copies the inputs into a session and runs it.

3x3 convolutions use Winograd's algorithm. In float32 only the smallest tile is allowed, whose transforms divide by 2 at most, so
the result is exact to rounding. float32-fast allows the larger tiles that are MNN's default; a call can then have an error of 3e-4
(``docs/runtimes.md``).
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
from .base import Inputs, MemoryCall, aligned, check_output, reject_time_dtype
from .fork_safety import ThreadOwner, forget_in_child
from .session_pool import SessionPool

_HINT = 3  # WINOGRAD_MEMORY_LEVEL
_TILES = {"float32": 1, "float32-fast": 3}  # F(2x2, 3x3) only; the tile up to 6x6 with the fewest multiplications

# Sessions kept per model for shapes without bound calls. Each holds a copy of the weights.
_KEPT = 4

_BANNER = b"The device supports:"  # MNN prints this line when it is imported
_CONVERTER_TIMEOUT = 600  # seconds; the converter takes 0.1 s per megabyte

_DTYPES = ("float32", "int64", "int32")  # of inputs; MNN computes with 32-bit integers

# Run in a separate process, because the converter exits on unexpected input. The command ``mnnconvert`` is not used: it runs pip
# and reports its use to a server.
_CONVERT = "import sys; sys.path.insert(0, sys.argv[1]); import _tools; _tools.mnnconvert(['mnnconvert', *sys.argv[2:]])"


class _Converted:
    """A converted model and its idle sessions."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.sessions: SessionPool[_Session] = SessionPool(_KEPT)


_models: weakref.WeakKeyDictionary[Model, _Converted] = weakref.WeakKeyDictionary()
_lock = threading.Lock()
_threads: ThreadOwner | None = None  # of the thread pool that all of MNN's sessions share, and that MNN makes once


def _forget() -> None:
    """Reset the caches in a forked child."""
    global _models, _lock
    _models, _lock = weakref.WeakKeyDictionary(), threading.Lock()


forget_in_child(lambda: list(_models.values()), _forget)


def network(model: Model, *, threads: int | None = None, time_dtype: str | None = None, precision: str = "float32") -> MNNNetwork:
    """Make a network from a ``df.Model``.

    Raises:
        ArtifactError: MNN's converter rejects the file; the message names the operators that it lacks.
        OutputError: a temporary file cannot be written.
    """
    reject_time_dtype(time_dtype)
    with _lock:
        mnn = _imported()
        made = _models.get(model)
        if made is None:
            made = _models[model] = _Converted(_convert(model, Path(mnn.__file__).parent.parent))
    return MNNNetwork(model, made, threads, precision)


def _imported() -> Any:
    """Import MNN without printing its line about the CPU. Output of other threads is kept."""
    if (mnn := sys.modules.get("MNN")) is not None:
        return mnn
    with _folder() as folder, open(folder / "printed", "w+b") as printed:
        try:
            kept = os.dup(1)
        except OSError:  # stdout is closed
            return _import()
        if sys.stdout is not None:
            sys.stdout.flush()
        os.dup2(printed.fileno(), 1)
        try:
            return _import()
        finally:
            ctypes.CDLL(None).fflush(None)  # the line is in C's buffer
            os.dup2(kept, 1)
            os.close(kept)
            printed.seek(0)
            os.write(1, b"".join(line for line in printed if not line.startswith(_BANNER)))


def _import() -> Any:
    try:
        return importlib.import_module("MNN")
    except ImportError as error:
        raise MissingDependencyError(f"the runtime 'mnn' cannot import MNN ({error}): {install_hint('mnn')}") from None


def _convert(model: Model, packages: Path) -> bytes:
    """Convert the model to MNN's format."""
    changed = passes.rewritten(model, "mnn")
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
                command,
                capture_output=True,
                text=True,
                errors="replace",
                stdin=subprocess.DEVNULL,
                cwd=folder,
                timeout=_CONVERTER_TIMEOUT,
            )
        except subprocess.TimeoutExpired:
            raise ArtifactError(
                f"MNN's converter did not finish {str(model.path)!r} within {_CONVERTER_TIMEOUT} s; "
                "use runtime='onnx' for this model."
            ) from None
        if done.returncode or not target.exists():
            errors = [line for line in (done.stdout + done.stderr).splitlines() if "Not Support" in line or "rror" in line]
            why = " ".join(errors) or f"status {done.returncode}"
            raise ArtifactError(f"MNN's converter rejects {str(model.path)!r}: {why[-1000:]}")
        return target.read_bytes()


@contextmanager
def _folder() -> Iterator[Path]:
    """Make a temporary folder, because MNN reads and writes files only."""
    try:
        with tempfile.TemporaryDirectory(prefix="diffuse_fast-") as name:
            yield Path(name)
    except OSError as error:
        raise OutputError(f"MNN needs a temporary file, which cannot be written: {error}; set TMPDIR to another folder.") from None


class MNNNetwork(ThreadOwner):
    """A converted model and its settings."""

    name = "mnn"

    def __init__(self, model: Model, made: _Converted, threads: int | None, precision: str):
        super().__init__()
        # Copies, not the model itself: the cache drops the converted model when the model is garbage-collected.
        dims = next(value.shape for value in header.read(model.path).inputs if value.name == model.time.input)
        per_sample = dims is None or (len(dims) == 1 and dims[0] != 1)
        self._inputs = Inputs(model.input, model.shape, model.time, len(dims or ()), per_sample, model.conditioning)
        self._output, self._output_shape = model.output, model.output_shape
        self._made, self._settings = made, (machine.physical_cores() if threads is None else threads, _TILES[precision])
        for name, dtype in ((model.time.input, model.time.dtype), *((c.name, c.dtype) for c in model.conditioning)):
            if dtype not in _DTYPES:
                raise ArgumentError(f"the network's input {name!r} is {dtype}; MNN takes {', '.join(_DTYPES)}.")

    def bind(
        self, batch: int, shape: tuple[int, ...], cond: dict[str, np.ndarray], output_shape: tuple[int, ...] | None = None
    ) -> MNNCall:
        self.check_process()
        inputs = self._inputs.arrays(batch, shape, cond)
        into = aligned((batch, *(output_shape or self._output_shape)))
        return MNNCall(self._made, self._settings, inputs, self._inputs.sample, self._inputs.time.input, self._output, into)


class MNNCall(MemoryCall):
    """Copies the inputs to a session and the output from it. The session is in the pool between calls."""

    def __init__(
        self,
        made: _Converted,
        settings: tuple[int, int],
        inputs: dict[str, np.ndarray],
        sample: str,
        time: str,
        output: str,
        into: np.ndarray,
    ) -> None:
        super().__init__(inputs, sample, time, into)
        shapes = {name: array.shape for name, array in inputs.items()}
        key = (settings, *sorted(shapes.items()))

        def new() -> _Session:
            try:
                return _Session(made.content, *settings, shapes, output, into.ndim)
            except DiffuseFastError:
                raise
            except Exception as error:
                raise ArtifactError(f"MNN rejects the network for inputs of {shapes}: {str(error)[:1000]}") from None

        made.sessions.bind(self, key)
        first = made.sessions.take(key) or new()  # errors are raised here; only concurrent calls make more
        made.sessions.give(key, first)
        check_output(first.output.shape, into.shape)

        here = ThreadOwner()

        def run() -> None:
            here.check_process()
            session = made.sessions.take(key) or new()
            session(inputs, into)
            made.sessions.give(key, session)

        self._run = run


class _Session:
    """A session for fixed shapes that runs one call at a time. Each has its own interpreter, for which sessions would wait."""

    def __init__(
        self, content: bytes, threads: int, tiles: int, shapes: dict[str, tuple[int, ...]], output: str, dims: int
    ) -> None:
        global _threads
        mnn = sys.modules["MNN"]
        if threads > 1:
            if _threads is None:
                _threads = ThreadOwner()
            _threads.check_process("use threads=1 or another runtime")
        with _folder() as folder:  # it does not accept bytes
            file = folder / "model.mnn"
            file.write_bytes(content)
            self._interpreter = mnn.Interpreter(os.fspath(file))
        self._interpreter.setSessionHint(_HINT, tiles)
        # "normal" is float32. So is "high", but it prints a line.
        self._session = self._interpreter.createSession({"backend": "CPU", "numThread": threads, "precision": "normal"})
        # Only the inputs that the network uses: the converter drops the others.
        tensors = self._interpreter.getSessionInputAll(self._session)
        for name, tensor in tensors.items():
            self._interpreter.resizeTensor(tensor, shapes[name])
        self._interpreter.resizeSession(self._session)
        # Views of MNN's memory, which is reused for other values while the session runs.
        self._inputs = {name: tensor.getNumpyData() for name, tensor in tensors.items()}
        self.output = self._interpreter.getSessionOutput(self._session, output).getNumpyData()
        if self.output.ndim == dims + 1 and self.output.shape[-1] == 1:  # MNN treats a 1-D convolution as 2-D
            self.output = self.output[..., 0]

    def __call__(self, inputs: dict[str, np.ndarray], into: np.ndarray) -> None:
        for name, array in self._inputs.items():
            np.copyto(array, inputs[name], casting="same_kind")
        if status := self._interpreter.runSession(self._session):
            raise NetworkError(f"MNN failed with error code {status}.")
        np.copyto(into, self.output)
