"""The device side of the torch runtime, on CPU tensors: what is static, which dtypes reach module and kernel, what is refused."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from diffuse_fast.errors import ArgumentError, NetworkError

torch = pytest.importorskip("torch")

from diffuse_fast.runtimes.torch_cuda import network  # noqa: E402  (only where there is torch)

SHAPE = (3, 4)


class Memory:
    name = "here"

    def alloc(self, shape, dtype=np.float32):
        return torch.zeros(shape, dtype=torch.from_numpy(np.empty(0, dtype)).dtype)

    def upload(self, array, into):
        into.copy_(array if isinstance(array, torch.Tensor) else torch.from_numpy(array))


class Shifted(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.shift = torch.nn.Parameter(torch.tensor(0.5))
        self.seen: list[torch.Tensor] = []

    def forward(self, x, t, label, scale):
        self.seen = [x, t, label, scale]
        return x * scale[:, None, None] + self.shift + (t + label)[:, None, None].to(x.dtype) / 1024


def cond(batch, first):
    return {"label": np.arange(first, first + batch), "scale": np.linspace(1, 2, batch, dtype=np.float32) * (first + 1)}


def bound(module, batch=2, evaluations=2):
    call = network(module).bind_device(Memory(), batch, SHAPE, [cond(batch, 10 * j) for j in range(evaluations)])
    call.x.copy_(torch.randn(call.x.shape, generator=torch.Generator().manual_seed(0)))
    call.t.fill_(300.0)
    return call


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_one_batch_has_all_evaluations_in_the_modules_dtype(dtype):
    module = Shifted().to(dtype).eval()
    call = bound(module)
    first, second = call(2, True)
    x, t, label, scale = module.seen
    assert (x.dtype, t.dtype, label.dtype, scale.dtype) == (dtype, torch.int64, torch.int64, dtype)
    assert len(x) == 4
    assert first.dtype == second.dtype == dtype  # as the network gives it: the kernel reads it so
    assert first.is_contiguous() and second.is_contiguous()
    for output, given in zip((first, second), (cond(2, 0), cond(2, 10)), strict=True):
        expected = module(
            call.x.to(dtype),
            torch.full((2,), 300),
            **{name: torch.from_numpy(v).to(dtype) if v.dtype.kind == "f" else torch.from_numpy(v) for name, v in given.items()},
        )
        assert torch.equal(output, expected)


def test_fewer_evaluations_take_the_first_conditions():
    module = Shifted().eval()
    call = bound(module)
    (only,) = call(1, False)
    assert module.seen[1].dtype == torch.float32 and len(module.seen[0]) == 2
    assert torch.equal(only, call(2, False)[0])


def test_conditioning_is_copied_into_memory_that_stays():
    module = Shifted().eval()
    call = bound(module, evaluations=1)
    before = call(1, True)[0].clone()
    at = call._cond["label"].data_ptr()
    call.condition([cond(2, 5)])
    assert not torch.equal(call(1, True)[0], before)
    assert call._cond["label"].data_ptr() == at  # where a captured graph reads it


def test_conditioning_that_lies_on_the_device_is_copied_there(monkeypatch):
    seen = []

    def upload(self, array, into):
        seen.append(array)
        into.copy_(array)

    monkeypatch.setattr(Memory, "upload", upload)
    module = Shifted().half().eval()
    given = [{name: torch.from_numpy(value) for name, value in cond(2, first).items()} for first in (0, 10)]
    call = network(module).bind_device(Memory(), 2, SHAPE, given)
    assert {id(array) for array in seen} == {id(value) for c in given for value in c.values()}
    call.x.fill_(0.5)
    call(2, True)
    assert module.seen[2].tolist() == [0, 1, 10, 11] and module.seen[3].dtype == torch.float16


def test_the_fingerprint_tells_where_the_weights_lie():
    net = network(module := Shifted().eval())
    before = net.fingerprint()
    with torch.no_grad():
        module.shift += 1  # in place: a graph reads it
    assert net.fingerprint() == before
    module.half()
    assert net.fingerprint() != before


def test_other_memory_formats_and_float64_come_out_as_the_kernel_reads_them():
    call = network(lambda x, t: x.double().transpose(1, 2).contiguous().transpose(1, 2)).bind_device(Memory(), 2, SHAPE, [{}])
    (output,) = call(1, True)
    assert output.is_contiguous() and output.dtype == torch.float32


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (lambda x, t: x[:1], r"returned the shape \(1, 3, 4\); for this batch it must be \(2, 3, 4\)"),
        (lambda x, t: x.long(), "returned torch.int64"),
        (lambda x, t: None, "returned NoneType"),
        (lambda x, t: x.to("meta"), "returned a tensor on meta"),
        (lambda x, t: 1 / 0, "the network failed: ZeroDivisionError"),
    ],
)
def test_an_output_of_another_type_is_refused(function, said):
    call = network(function).bind_device(Memory(), 2, SHAPE, [{}])
    with pytest.raises(NetworkError, match=said):
        call(1, True)


def test_diffusers_output_is_unwrapped_and_training_refused():
    call = network(lambda x, t: SimpleNamespace(sample=x + 1)).bind_device(Memory(), 2, SHAPE, [{}])
    assert torch.equal(call(1, True)[0], call.x + 1)
    with pytest.raises(ArgumentError, match=r"module\.eval"):
        network(torch.nn.Sequential(torch.nn.Dropout(0.1)))
