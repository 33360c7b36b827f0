"""Device arrays are exchanged between libraries without a copy: at the same address, kept alive by the reader, in stream order.

There is no second library with CUDA here: torch's CPU arrays stand in for its CUDA arrays, and only the device's type in the
capsule is another. Capsules are read by the published layout (https://dmlc.github.io/dlpack/latest/c_api.html), by ctypes.
"""

from __future__ import annotations

import ctypes
import gc
import weakref

import numpy as np
import pytest

from diffuse_fast.errors import ArgumentError, ArgumentTypeError
from diffuse_fast.kernels import cuda, device_array
from diffuse_fast.kernels.device_array import DeviceArray
from diffuse_fast.plans.plan import Row
from tests.cuda.on_device import on_device

torch = pytest.importorskip("torch")

pytestmark = pytest.mark.usefixtures("core")

CPU, CUDA = 1, 2


class Tensor(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p), ("device_type", ctypes.c_int32), ("device_id", ctypes.c_int32), ("rank", ctypes.c_int32),
        ("code", ctypes.c_uint8), ("bits", ctypes.c_uint8), ("lanes", ctypes.c_uint16), ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)), ("byte_offset", ctypes.c_uint64),
    )  # fmt: skip


def inside(capsule) -> Tensor:
    get = ctypes.pythonapi.PyCapsule_GetPointer
    get.restype, get.argtypes = ctypes.c_void_p, (ctypes.py_object, ctypes.c_char_p)
    return Tensor.from_address(get(capsule, b"dltensor"))


class Theirs:
    """A tensor that claims to be on a CUDA device."""

    def __init__(self, tensor, place=CUDA):
        self.tensor, self.place, self.streams = tensor, place, []

    def __dlpack_device__(self):
        return self.place, 0

    def __dlpack__(self, *, stream):
        self.streams.append(stream)
        capsule = self.tensor.__dlpack__()
        inside(capsule).device_type = self.place
        return capsule


class AsCpu:
    """A device array that claims to be on the CPU."""

    def __init__(self, array):
        self.array = array

    def __dlpack_device__(self):
        return CPU, 0

    def __dlpack__(self, **options):
        capsule = self.array.__dlpack__()
        inside(capsule).device_type = CPU
        return capsule


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "int64", "bool", "uint8"])
def test_ours_is_theirs_at_the_same_address(dtype):
    array = DeviceArray((2, 3), dtype if dtype == "bfloat16" else np.dtype(dtype))
    values = np.arange(6).reshape(2, 3).astype(array.dtype)
    array.copy_from_host(values)
    tensor = torch.from_dlpack(AsCpu(array))
    assert tensor.data_ptr() == array.memory.address
    assert (tuple(tensor.shape), tensor.dtype) == ((2, 3), getattr(torch, dtype))
    bits = (tensor.view(torch.uint16) if dtype == "bfloat16" else tensor).numpy()
    np.testing.assert_array_equal(bits, values)
    bits[...] = values[::-1]
    np.testing.assert_array_equal(array.copy_to_host(), values[::-1])  # the same memory


def test_the_contents_of_our_capsule():
    array = DeviceArray((4, 5), np.float32)
    assert array.__dlpack_device__() == (CUDA, 0)
    capsule = array.__dlpack__(stream=-1)
    tensor = inside(capsule)
    assert (tensor.data, tensor.device_type, tensor.device_id) == (array.memory.address, CUDA, 0)
    assert tensor.shape[:2] == [4, 5] and tensor.strides[:2] == [5, 1] and tensor.byte_offset == 0
    assert array.__cuda_array_interface__["data"] == (array.memory.address, False)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "float64", "int64", "uint8", "bool"])
def test_theirs_is_ours_at_the_same_address(dtype):
    tensor = torch.arange(12).reshape(3, 4).to(getattr(torch, dtype))
    array = DeviceArray.from_dlpack(Theirs(tensor))
    assert array.memory.address == tensor.data_ptr()
    assert (array.shape, array.dtype_name) == ((3, 4), dtype)
    theirs = tensor.view(torch.uint16) if dtype == "bfloat16" else tensor
    np.testing.assert_array_equal(array.copy_to_host(), theirs.numpy())


def test_a_part_begins_where_it_begins():
    base = torch.arange(24, dtype=torch.float32).reshape(6, 4)
    array = DeviceArray.from_dlpack(Theirs(base[2:5]))
    assert array.memory.address == base.data_ptr() + 2 * 4 * 4
    part = array[1:3]
    assert (part.memory.address, part.shape) == (base.data_ptr() + 3 * 4 * 4, (2, 4))
    assert (array[-1].memory.address, array[-1].shape) == (base.data_ptr() + 4 * 4 * 4, (4,))
    np.testing.assert_array_equal(part.copy_to_host(), base[3:5].numpy())
    assert array[3:].shape == (0, 4)
    with pytest.raises(IndexError):
        array[3]
    with pytest.raises(ArgumentError, match="this one has step 2"):
        array[::2]


def test_memory_is_kept_alive_as_long_as_it_is_read():
    values = np.ones(3, np.float32)
    alive = weakref.ref(values)
    part = DeviceArray.from_dlpack(Theirs(torch.from_numpy(values)))[1:]
    del values
    gc.collect()
    assert alive() is not None
    np.testing.assert_array_equal(part.copy_to_host(), [1, 1])
    del part
    gc.collect()
    assert alive() is None
    array = DeviceArray((3,), np.float32)
    array.copy_from_host(np.full(3, 2, np.float32))
    taken = torch.from_dlpack(AsCpu(array))
    memory = weakref.ref(array)
    del array
    gc.collect()
    assert memory() is None
    np.testing.assert_array_equal(taken.numpy(), [2, 2, 2])


def test_a_capsule_is_consumed_once(core):
    capsule = Theirs(torch.ones(2)).__dlpack__(stream=1)
    core.take_dlpack(capsule)
    with pytest.raises(ValueError, match="PyCapsule"):
        core.take_dlpack(capsule)


@pytest.mark.parametrize(("stream", "received"), [(0, 1), (7, 7), (None, -1)])
def test_the_other_library_gets_the_stream_that_reads(stream, received):
    theirs = Theirs(torch.ones(2))
    DeviceArray.from_dlpack(theirs, stream)
    assert theirs.streams == [received]


def test_readers_wait_for_the_stream_that_wrote(core):
    stream = device_array.Stream()
    array = DeviceArray((2,), stream=stream.handle)
    core.waits()
    for given, waiting in ((None, 1), (1, 1), (2, 2), (640, 640)):
        array.__dlpack__(stream=given)
        assert core.waits() == [(waiting, stream.handle)]
    array.__dlpack__(stream=-1)
    DeviceArray((2,)).__dlpack__(stream=5)  # without a stream the caller orders
    assert core.waits() == []
    assert array.__cuda_array_interface__["stream"] == stream.handle
    assert DeviceArray((2,), stream=0).__cuda_array_interface__["stream"] == 1
    assert DeviceArray((2,)).__cuda_array_interface__["stream"] is None
    assert array[1:].stream == stream.handle


def test_the_kernel_reads_and_writes_theirs_in_place():
    x, m = torch.ones(2, 8), torch.full((2, 8), 3.0)
    theirs, at = Theirs(x), x.data_ptr()
    step = cuda.CudaKernel().bind([Row(a=2.0, b=1.0)], x=theirs, out=theirs, outputs=[Theirs(m)], registers=None, seeds=[0, 0],
                                  indices=[0, 1])  # fmt: skip
    step.place([0, 0], [0, 0])
    del m  # the step keeps its buffers alive
    gc.collect()
    step.launch()
    assert step.first_bad_rows().tolist() == [-1, -1]
    assert (x == 5).all() and x.data_ptr() == at


def test_copies_between_arrays_of_the_device(core):
    first = on_device(np.arange(6, dtype=np.int64).reshape(2, 3))
    second = DeviceArray((2, 3), np.int64)
    second.copy_from(first)
    np.testing.assert_array_equal(second.copy_to_host(), first.copy_to_host())
    flat = second.reshape((6,))
    assert (flat.memory.address, flat.shape) == (second.memory.address, (6,))
    second[0].copy_from(first[1])
    np.testing.assert_array_equal(flat.copy_to_host(), [3, 4, 5, 3, 4, 5])
    for call in (
        lambda: second.copy_from(first[0]),
        lambda: second.copy_from(DeviceArray((2, 3), np.float32)),
        lambda: DeviceArray((2,), "bfloat16").copy_from(DeviceArray((2,), np.uint16)),
        lambda: second.reshape((5,)),
    ):
        with pytest.raises(ArgumentError, match=r"the array is|an array of shape"):
            call()


class Interface:
    """An array with ``__cuda_array_interface__`` only, like Numba's."""

    def __init__(self, array, strides=None):
        self.array = array
        self.__cuda_array_interface__ = {"shape": array.shape, "typestr": array.dtype.str, "data": (array.ctypes.data, False),
                                         "strides": strides, "version": 3}  # fmt: skip


def test_strides_of_axes_with_one_entry_are_ignored():
    x = np.ones((2, 1, 4), np.float32)
    odd = torch.ones(2, 1, 4).as_strided((2, 1, 4), (4, 99, 1))
    assert DeviceArray.from_dlpack(Theirs(odd)).shape == (2, 1, 4)
    strided = Interface(x, (16, 1000, 4))
    step = cuda.CudaKernel().bind([Row(calls_network=False, a=2.0)], x=strided, out=strided, outputs=[], registers=None,
                                  seeds=[0, 0], indices=[0, 1])  # fmt: skip
    step.place([0, 0], [0, 0])
    step.launch()
    step.first_bad_rows()
    assert (x == 2).all()


@pytest.mark.parametrize(
    ("value", "error", "said"),
    [
        (lambda: [1.0], ArgumentTypeError, "noise is a list; give an array of a library that supports DLPack"),
        (lambda: np.zeros(2), ArgumentError, "noise is on DLPack's device 1; it must be on a CUDA device, 2"),
        (lambda: torch.zeros(2), ArgumentError, "noise is on DLPack's device 1"),
        (lambda: Theirs(torch.zeros(2), place=10), ArgumentError, "noise is on DLPack's device 10"),
        (lambda: Theirs(torch.zeros(4, 6).T), ArgumentError, "noise is not contiguous"),
        (lambda: Theirs(torch.zeros(4, 6)[:, ::2]), ArgumentError, "noise is not contiguous"),
        (lambda: Theirs(torch.zeros(2, dtype=torch.complex64)), ArgumentTypeError, "noise has DLPack's dtype 5 of 1 x 64 bits"),
        (lambda: Theirs(torch.zeros(2, requires_grad=True)), ArgumentError, "noise cannot be exported by DLPack: .*grad"),
    ],
)  # fmt: skip
def test_unsupported_arrays_are_refused(value, error, said):
    with pytest.raises(error, match=said):
        DeviceArray.from_dlpack(value(), 0, "noise")


def test_a_request_for_a_copy_is_refused():
    array = DeviceArray((2,))
    with pytest.raises(BufferError, match="without a copy"):
        array.__dlpack__(copy=True)
    with pytest.raises(BufferError, match="on its own device"):
        array.__dlpack__(dl_device=(CPU, 0))
    array.__dlpack__(dl_device=(CUDA, 0), copy=False, max_version=(1, 0))
