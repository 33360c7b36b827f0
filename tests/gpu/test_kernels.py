"""The CUDA kernels on a GPU have the bits of the CPU's."""

from __future__ import annotations

import numpy as np
import pytest

import diffuse_fast as df
from diffuse_fast.kernels import get_kernel

pytestmark = pytest.mark.gpu


def test_the_forward_process_has_the_bits_of_the_cpu(cuda):
    """As training calls it: with drawn or given noise."""
    from diffuse_fast.training.objectives import BatchPosition, ForwardProcess

    process = ForwardProcess(df.Schedule.cosine(), "v_prediction")
    x0, t = cuda.randn(5, 3, 33, 31), cuda.arange(5) * 200
    for noise in (BatchPosition(seed=2**62, step=7, first=3, batch=9), cuda.randn(x0.shape)):
        expected = process(x0, t, noise)
        found = process(x0.cuda(), t.cuda(), noise if isinstance(noise, BatchPosition) else noise.cuda())
        for mine, other in zip(found, expected, strict=True):
            np.testing.assert_array_equal(mine.cpu().numpy().view(np.uint32), other.numpy().view(np.uint32))


SHAPE = (3, 2, 517)
PLANS = {
    "ddim, clipped": ("ddim", {"clip": (-1, 1)}),
    "ddpm": ("ddpm", {}),
    "dpmpp_3m": ("dpmpp_3m", {}),
    "unipc": ("unipc", {}),
    "dpmpp_2m_sde": ("dpmpp_2m_sde", {}),
}


def test_noise(kernel, cuda):
    keys = {"seeds": np.array([0, 1, 2**64 - 1], np.uint64), "indices": np.array([0, 7, 2**32 - 1], np.uint32)}
    expected = np.empty(SHAPE, np.float32)
    got = cuda.empty(SHAPE, device="cuda")
    for row, stream in ((0, 0), (3, 1), (2**31, 2)):
        get_kernel().normals(expected, row=row, stream=stream, scale=1.5, **keys)
        get_kernel(kernel).normals(got, row=row, stream=stream, scale=1.5, **keys)
        np.testing.assert_array_equal(got.cpu().numpy(), expected)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize(("solver", "options"), PLANS.values(), ids=PLANS)
def test_every_row_of_a_plan(kernel, cuda, solver, options, dtype):
    plan = df.plan(df.Schedule.linear(), solver, 7, prediction_type="epsilon", **options)
    generator = cuda.Generator().manual_seed(0)
    x = cuda.randn(SHAPE, generator=generator).to(getattr(cuda, dtype))
    theirs, registers = x.cuda(), cuda.zeros(plan.registers, *SHAPE)
    on_gpu = registers.cuda()
    for i, row in enumerate(plan.rows):
        m = cuda.randn(SHAPE, generator=generator).to(x.dtype)
        common = {"seed": [1, 2, 3], "step": i}
        x = df.step(x, m, row, registers=registers if plan.registers else None, **common)
        theirs = df.step(theirs, m.cuda(), row, registers=on_gpu if plan.registers else None, kernel=kernel, **common)
        assert cuda.equal(theirs.cpu(), x)
        assert cuda.equal(on_gpu.cpu(), registers)


def test_the_operator_of_torch(cuda):
    from diffuse_fast.kernels.torch_op import rows_tensor, step

    plan = df.plan(df.Schedule.linear(), "ddpm", 5, prediction_type="epsilon")
    rows, keys = rows_tensor(plan.rows), (cuda.arange(3), cuda.zeros(3, dtype=cuda.int64))
    x, m = cuda.randn(2, *SHAPE).unbind()
    expected = step(x, [m], rows, 2, *keys)
    assert cuda.equal(step(x.cuda(), [m.cuda()], rows, 2, *keys).cpu(), expected)
    compiled = cuda.compile(lambda x, m: step(x, [m.sin().asin()], rows, 2, *keys), fullgraph=True)
    assert compiled(x.cuda(), m.cuda()).shape == x.shape
