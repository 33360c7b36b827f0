"""Every kind of operation in the core, on random views and stages, against the float64 reference."""

from __future__ import annotations

import numpy as np
import pytest

from diffuse_fast import _core
from diffuse_fast.program.encoding import encode
from diffuse_fast.program.program import Attention, Map, Norm, View
from diffuse_fast.program.reference import Reference
from tests.network.programs import KINDS, SIZE, Maker, constants

ISAS = [name for name, reason in _core.kernels() if reason is None]
BATCH = 5
SEEDS = 12


def run(program, weights, isa, x, t, cond, threads=1):
    """Evaluate a program in the core: sample i at time t[i] and condition i."""
    network = _core.Network(isa, encode(program), constants(program, weights))
    y = np.full((len(x), network.output_size), np.nan, np.float32)
    network.run(x, y, network.prepare_times(t), network.prepare_conditions([cond], len(x)), threads)
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


def test_threads_share_the_queries_of_one_sample():
    """Enough work for several threads, whose parts begin and end inside a head."""
    for seed in range(4):
        maker = Maker(seed)
        views = tuple(maker.sample(shape) for shape in ((3, 210, 23), (3, 210, 23), (3, 210, 23)))
        program = maker.program(Attention(23**-0.5, seed == 1, 3.0 * (seed == 2)), views, (3, 210, 23))
        x, t, cond = inputs(seed, batch=1)
        alone = run(program, maker.weights, ISAS[0], x, t, cond)
        expected = Reference(program, maker.weights)(x, t, [cond]).reshape(1, -1)
        assert np.abs(alone - expected).max() <= 2e-5 * max(1.0, np.abs(expected).max())
        for threads in (2, 3, 5):
            assert run(program, maker.weights, ISAS[0], x, t, cond, threads).tobytes() == alone.tobytes()


@pytest.mark.parametrize("kind", KINDS)
def test_nan_where_the_reference_has_it(kind):
    for seed in range(3):
        maker = Maker(seed)
        program = getattr(maker, kind)()
        x, t, cond = inputs(seed)
        x[2, seed::97] = np.nan
        with np.errstate(all="ignore"):
            expected = Reference(program, maker.weights)(x, t, [cond]).reshape(BATCH, -1)
        for isa in ISAS:
            assert np.array_equal(np.isnan(run(program, maker.weights, isa, x, t, cond)), np.isnan(expected)), (seed, isa)


@pytest.mark.parametrize("axes", [(0, 1, 2), (0,), (1, 2), (2,)])
@pytest.mark.parametrize("spread", [1.0, 0.0])
def test_norms_at_a_large_mean(axes, spread):
    """Mean 1e4 and deviation 1, and constant channels, to the last places of what float32 holds of the input."""
    shape = (32, 12, 12)
    maker = Maker(0)
    x = (1e4 + spread * np.random.default_rng(0).normal(size=(2, SIZE))).astype(np.float32)
    view = View(0, 0, (((32, 1),), ((12, 32 * 12),), ((12, 32),)))
    maker.stages = lambda shape, norms: (Norm("standard", axes, 4 if axes[0] == 0 else 1, 1e-5),) if norms else ()
    program = maker.program(Map(), (view,), shape, prologue=True, epilogue=False)
    expected = Reference(program, {})(x, np.zeros(2), [x]).reshape(2, -1)
    for isa in ISAS:
        result = run(program, {}, isa, x, np.zeros(2, np.float32), x)
        assert np.abs(result - expected).max() <= 4e-6


def test_typed_errors():
    maker = Maker(0)
    program = maker.gather()
    words, given = encode(program), constants(program, maker.weights)
    with pytest.raises(ValueError, match="has 1 constants, and 0 were given"):
        _core.Network(ISAS[0], words, given[:-1])
    with pytest.raises(ValueError, match="too early"):
        _core.Network(ISAS[0], words[:-1], given)
    with pytest.raises(ValueError, match="no kernel 'avx3'"):
        _core.Network("avx3", words, given)
    x, t, cond = inputs(0)
    outside = {name: value + 100 for name, value in maker.weights.items()}
    with pytest.raises(RuntimeError, match="index of a Gather"):
        run(program, outside, ISAS[0], x, t, cond)
    network = _core.Network(ISAS[0], words, given)
    with pytest.raises(ValueError, match="rows of 30000"):
        network.prepare_conditions([cond[:, :-1].copy()], BATCH)
    with pytest.raises(ValueError, match="must have 4 rows"):
        network.prepare_conditions([cond], 4)
    with pytest.raises(ValueError, match="1 conditioning inputs"):
        network.prepare_conditions([], 1)
    y = np.zeros((BATCH, network.output_size), np.float32)
    times, conditions = network.prepare_times(t), network.prepare_conditions([cond], BATCH)
    with pytest.raises(ValueError, match="times must have one row, or one per sample"):
        network.run(x, y, network.prepare_times(t[:2]), conditions)
    with pytest.raises(ValueError, match="elements per sample"):
        network.run(x, y[:, :-1].copy(), times, conditions)
