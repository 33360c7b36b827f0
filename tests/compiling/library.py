"""libdiffuse_fast by ctypes: the structures of ``diffuse_fast.h``, and models as objects."""

from __future__ import annotations

import ctypes
from ctypes import POINTER, byref, c_char_p, c_double, c_int32, c_int64, c_size_t, c_uint32, c_uint64, c_void_p
from pathlib import Path

import numpy as np

PATH = Path(__file__).parents[2] / "build/core/libdiffuse_fast.so"  # `make core` builds it
STATUS = ("ok", "bad_argument", "cannot_read", "bad_file", "unavailable", "no_memory", "not_finite", "stopped", "failed")
TYPES = (np.float32, np.int64, np.int32, np.bool_)


class Info(ctypes.Structure):
    _fields_ = [
        ("name", c_char_p),
        ("about", c_char_p),
        ("shape", POINTER(c_int64)),
        ("elements", c_int64),
        ("rank", c_int32),
        ("inputs", c_int32),
        ("steps", c_int32),
        ("has_value_range", c_int32),
        ("value_low", c_double),
        ("value_high", c_double),
        ("guidance_scale", c_double),
    ]


class Input(ctypes.Structure):
    _fields_ = [
        ("name", c_char_p),
        ("shape", POINTER(c_int64)),
        ("elements", c_int64),
        ("classes", c_int64),
        ("bytes", c_size_t),
        ("null_value", c_double),
        ("rank", c_int32),
        ("type", c_int32),
        ("has_null", c_int32),
    ]


class Value(ctypes.Structure):
    _fields_ = [("name", c_char_p), ("data", c_void_p), ("bytes", c_size_t)]


class Request(ctypes.Structure):
    _fields_ = [
        ("size", c_size_t),
        ("count", c_int64),
        ("seeds", POINTER(c_uint64)),
        ("seed", c_uint64),
        ("first_index", c_uint32),
        ("threads", c_int32),
        ("values", POINTER(Value)),
        ("value_count", c_size_t),
        ("stop", c_void_p),
    ]


class LibraryError(Exception):
    def __init__(self, status: int, message: str):
        super().__init__(message)
        self.status = STATUS[status]


class Library:
    def __init__(self, path: Path = PATH):
        self.c = ctypes.CDLL(str(path))
        self.c.df_version.restype = self.c.df_instruction_set.restype = self.c.df_last_error.restype = c_char_p
        self.c.df_describe.restype, self.c.df_describe.argtypes = POINTER(Info), [c_void_p]
        self.c.df_input_at.restype, self.c.df_input_at.argtypes = POINTER(Input), [c_void_p, c_int32]
        self.c.df_open.argtypes = [c_char_p, POINTER(c_void_p)]
        self.c.df_open_memory.argtypes = [c_char_p, c_size_t, POINTER(c_void_p)]
        self.c.df_sample.argtypes = [c_void_p, POINTER(Request), c_void_p]
        self.c.df_close.argtypes, self.c.df_close.restype = [c_void_p], None

    def check(self, status: int) -> None:
        if status:
            raise LibraryError(status, self.c.df_last_error().decode())

    def open(self, file: Path | bytes) -> Opened:
        handle = c_void_p()
        if isinstance(file, bytes):
            self.check(self.c.df_open_memory(file, len(file), byref(handle)))
        else:
            self.check(self.c.df_open(bytes(file), byref(handle)))
        return Opened(self, handle)


class Opened:
    """A model of the library."""

    def __init__(self, library: Library, handle: c_void_p):
        self._library, self._handle = library, handle
        self.info = library.c.df_describe(handle).contents
        self.shape = tuple(self.info.shape[i] for i in range(self.info.rank))
        self.inputs = [library.c.df_input_at(handle, i).contents for i in range(self.info.inputs)]

    def __del__(self) -> None:
        self._library.c.df_close(self._handle)

    def sample(self, n: int, seed=0, cond=None, *, first_index: int = 0, threads: int = 0) -> np.ndarray:
        """As df.sample: one seed or a list, and an array for each conditioning input, in its type."""
        types = {one.name.decode(): TYPES[one.type] for one in self.inputs}
        arrays = {name: np.ascontiguousarray(value, types.get(name)) for name, value in (cond or {}).items()}
        values = (Value * len(arrays))(*(Value(name.encode(), a.ctypes.data, a.nbytes) for name, a in arrays.items()))
        seeds = (c_uint64 * n)(*seed) if isinstance(seed, list) else None
        one = 0 if isinstance(seed, list) else seed
        request = Request(ctypes.sizeof(Request), n, seeds, one, first_index, threads, values, len(values), None)
        out = np.empty((n, *self.shape), np.float32)
        self._library.check(self._library.c.df_sample(self._handle, byref(request), out.ctypes.data))
        return out
