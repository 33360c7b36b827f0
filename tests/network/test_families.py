"""Whole families of networks in the core, against torch, on every instruction set that this machine has."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from diffuse_fast import _core
from diffuse_fast.program.lower import lower_file
from diffuse_fast.runtimes.native import load
from diffuse_fast.runtimes.native.error import LIMIT, inputs_of_file, measure

families = pytest.importorskip("tests.program.families", reason="needs torch")

ISAS = [name for name, reason in _core.kernels() if reason is None]
QUICK = (
    "df.nn.MLP classes", "df.nn.UNet", "df.nn.UNet attention, classes", "df.nn.UNet1D", "df.nn.DiT", "policy ConditionalUnet1D",
    "guided-diffusion", "diffusers UNet2DCondition SD1",
)  # fmt: skip
REFUSED = ("df.nn.UNet3D", "diffusers UNet1D")
NOT_TRACED = ("diffusers Flux", "DiT qk-norm", "DiT RoPE, RMSNorm")  # by torch's older exporter
FOURIER = ("diffusers UNet2D fourier", "diffusers UNet2D NCSN++ (FIR)")  # sines of large numbers, which float32 rounds


def evaluate(network, inputs, threads=1):
    """The output for (x, t, *conditions), each sample with its own time and condition."""
    x, t, *conditions = (np.ascontiguousarray(one.numpy(), np.float32) for one in inputs)
    y = np.full((len(x), network.output_size), np.nan, np.float32)
    network.run(x, y, network.prepare_times(t), network.prepare_conditions(conditions, len(x)), threads)
    return y


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=() if n in QUICK else (pytest.mark.slow,)) for n in families.FAMILIES if n not in REFUSED]
)
def test_family(tmp_path, name):
    family = families.FAMILIES[name]
    if not families.installed(family):
        pytest.skip(f"{', '.join(family.packages)} is not installed.")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = tmp_path / "network.onnx"
        if name in NOT_TRACED:
            family.export(path, 23)
        else:
            family.export_by_tracing(path)
    program = lower_file(path)
    networks = [load(program, path, isa) for isa in ISAS]
    for batch in (1, 3, 16, 70):
        inputs = family.inputs(batch, batch)
        expected = family.module(*inputs).numpy().reshape(batch, -1)
        results = [evaluate(network, inputs, threads) for network in networks for threads in (1, 2)]
        assert np.abs(results[0] - expected).max() <= 1e-5 * np.abs(expected).max()
        for result in results:
            assert result.tobytes() == results[0].tobytes()
        alone = evaluate(networks[0], [one[batch // 2 : batch // 2 + 1] for one in inputs])
        assert alone.tobytes() == results[0][batch // 2 : batch // 2 + 1].tobytes()
    found = measure(program, path, inputs_of_file(path, program))
    assert max(found.errors["float32"]) <= (3e-5 if name in FOURIER else 1e-5)
    assert max(found.errors["float32-fast"]) <= LIMIT
