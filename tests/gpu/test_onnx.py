"""Model files on a GPU, with no torch in the process."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

import diffuse_fast as df
from diffuse_fast.errors import UnavailableError
from tests.cuda.on_device import on_device

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("graph", ["none", "tick"])
def test_digits(core_cuda, graph):
    options = {"seed": 0, "cond": {"label": 7}, "guidance_scale": 1.5}
    expected = df.sample("digits", 4, 10, device="cpu", **options)
    got = df.sample("digits", 4, 10, device="cuda", graph=graph, **options)
    assert isinstance(got, np.ndarray)
    np.testing.assert_allclose(got, expected, atol=2e-2)  # the network may use TF32; the step is exact


def test_device_arrays_are_read_on_the_device(core_cuda):
    noise, *draws = np.random.default_rng(0).standard_normal((6, 3, 1, 8, 8)).astype(np.float32)
    label = np.array([3, 4, 5])

    def sample(place):
        return df.sample(
            "digits",
            3,
            5,
            solver="ddpm",
            seed=0,
            device="cuda",
            noise=place(noise),
            cond={"label": place(label)},
            step_noise=lambda i: place(draws[i]),
        )

    np.testing.assert_array_equal(sample(on_device), sample(lambda array: array))


def test_no_torch_in_the_process(core_cuda):
    code = "import sys, diffuse_fast as df; df.sample('digits', 2, 3, device='cuda'); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_a_missing_device(core_cuda):
    with pytest.raises(UnavailableError):
        df.sample("digits", 1, 2, device="cuda:63")
