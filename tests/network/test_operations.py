"""Every kind of operation in the core, on random views and stages, against the float64 reference."""

from __future__ import annotations

import numpy as np
import pytest

from diffuse_fast import _core
from diffuse_fast.program.encoding import encode
from diffuse_fast.program.reference import Reference
from tests.network.programs import KINDS, SIZE, Maker, constants

ISAS = [name for name, reason in _core.kernels() if reason is None]
BATCH = 5
SEEDS = 25


def run(program, weights, isa, x, t, cond, threads=1):
    """Evaluate a program in the core: sample i at time t[i] and condition i."""
    network = _core.Network(isa, encode(program), constants(program, weights))
    y = np.full((len(x), network.output_size), np.nan, np.float32)
    rows = list(range(len(x)))
    network.run(x, y, network.prepare_times(t), rows, network.prepare_conditions([cond]), rows, threads)
    return y


def inputs(seed, batch=BATCH):
    rng = np.random.default_rng(seed)
    return (
        rng.normal(size=(batch, SIZE)).astype(np.float32),
        rng.random(batch).astype(np.float32),
        rng.normal(size=(batch, SIZE)).astype(np.float32),
    )


@pytest.mark.parametrize("kind", KINDS)
def test_kind_against_the_reference(kind):
    for seed in range(SEEDS):
        maker = Maker(seed)
        program = getattr(maker, kind)()
        x, t, cond = inputs(seed)
        expected = Reference(program, maker.weights)(x, t, [cond]).reshape(BATCH, -1)
        results = [run(program, maker.weights, isa, x, t, cond) for isa in ISAS]
        limit = 2e-5 * max(1.0, np.abs(expected).max())
        error = np.abs(results[0] - expected).max()
        assert error <= limit, (seed, error, limit, program.operations[0])
        for isa, result in zip(ISAS, results, strict=True):
            assert result.tobytes() == results[0].tobytes(), (seed, isa, ISAS[0])


@pytest.mark.parametrize("kind", KINDS)
def test_a_sample_does_not_see_its_batch(kind):
    for seed in range(4):
        maker = Maker(seed)
        program = getattr(maker, kind)()
        x, t, cond = inputs(seed)
        together = run(program, maker.weights, ISAS[0], x, t, cond)
        assert run(program, maker.weights, ISAS[0], x, t, cond, threads=2).tobytes() == together.tobytes()
        for i in range(BATCH):
            alone = run(program, maker.weights, ISAS[0], x[i : i + 1], t[i : i + 1], cond[i : i + 1])
            assert alone.tobytes() == together[i : i + 1].tobytes()
        broken = x.copy()
        broken[2] = np.nan
        spoiled = run(program, maker.weights, ISAS[0], broken, t, cond)
        others = [i for i in range(BATCH) if i != 2]
        assert spoiled[others].tobytes() == together[others].tobytes()
