"""Every kernel of this machine, forced by name, against the float64 oracle and bit for bit against the others."""

import itertools

import numpy as np
import pytest

from diffuse_fast.errors import ArgumentError, DiffuseFastError, NonFiniteError
from diffuse_fast.kernels import get_kernel, kernels, reference, set_num_threads, step
from diffuse_fast.kernels.rows import pack
from diffuse_fast.plans.plan import Reduction, Row
from diffuse_fast.schedule import Schedule
from diffuse_fast.solver import plan

COMPILED = [k.name for k in kernels() if k.device == "cpu" and k.unavailable is None and k.name != "reference"]

BASE = {"a": 0.9, "b": -0.3}
ROWS = {
    "one step": Row(**BASE),
    "noise": Row(**BASE, s=0.5),
    "clipped, raw epsilon": Row(p=1.5, q=-1.1, lo=-1.0, hi=1.0, b=0.4, d=0.8),
    "clipped, posterior": Row(p=1.5, q=-1.1, lo=-1.0, hi=1.0, a=0.4, d=0.8, s=0.3),
    "rescaled clip": Row(p=1.5, q=-1.1, lo=-1.0, hi=2.0, r=0.7, d=1.0),
    "sample prediction": Row(q=1.0, d=0.5, a=0.25),
    "three outputs": Row(g=(2.0, -0.5, -0.5), **BASE),
    "second output alone": Row(g=(0.0, 1.0), **BASE),
    "one register": Row(**BASE, c=(0.7,), write=0, e_m=1.0),
    "two registers": Row(**BASE, c=(0.7, -0.2), write=1, e_x=0.5, e_m=1.0),
    "eight registers": Row(**BASE, c=tuple(0.1 * k for k in range(1, 9)), write=7, e_x=0.1, e_m=0.2, e_0=0.3, p=1.0, q=-0.5,
                           f=tuple(-0.1 * k for k in range(1, 9))),
    "learned variance": Row(**BASE, log_s=(-1.0, 0.7)),
    "no network": Row(calls_network=False, a=1.1, s=0.2),
    "nothing": Row(calls_network=False),
    "known region": Row(**BASE, s=0.1, known_y=0.8, known_z=0.6),
    "dynamic threshold": Row(p=1.5, q=-1.1, b=0.4, d=0.8, lo=-1.0, hi=1.0, reduce=Reduction("dynamic_threshold", (0.9, 4.0))),
    "guidance rescale": Row(g=(3.0, -2.0), **BASE, reduce=Reduction("guidance_rescale", (0.7,))),
    "langevin": Row(a=1.0, reduce=Reduction("langevin", (0.16, -1.3))),
    "rescale by an output of no weight": Row(g=(0.0, 1.0), **BASE, reduce=Reduction("guidance_rescale", (0.7,))),
    "langevin with given noise": Row(a=1.0, c=(0.3, 0.0, 1.0), reduce=Reduction("langevin_given", (0.16, -1.3))),
}  # fmt: skip


def run(kernel, row, *, shape=(3, 37), dtype=np.float32, seed=0, threads=1, in_place=False, offset=0):
    """Apply one row to fresh data; return the state and the registers."""
    rng = np.random.default_rng(seed)

    def draw(*size):
        return rng.standard_normal(size).astype(np.float32)

    n, elements = shape
    learned = 2 if row.log_s is not None else 1
    x = draw(n, elements).astype(dtype)
    outputs = [draw(n, elements * learned).astype(dtype) for _ in range(3)]
    registers = draw(8, n, elements)
    masked = bool(row.known_y or row.known_z)
    y, mask = (draw(n, elements), (rng.random((n, elements)) < 0.5).astype(np.float32)) if masked else (None, None)
    out = x if in_place else np.full_like(x, np.nan)
    seeds, indices = np.array([7, 7, 2**63 + 5][:n], np.uint64), np.array([0, 4, 1][:n], np.uint32)
    set_num_threads(threads)
    bound = get_kernel(kernel).bind(
        [row], x=x, out=out, outputs=outputs, registers=registers, seeds=seeds, indices=indices, y=y, mask=mask,
        variance_offset=elements if learned == 2 else -1, element_offset=offset,
    )  # fmt: skip
    assert bound.run(0, 11) == -1
    return out, registers


@pytest.mark.parametrize("kernel", COMPILED)
@pytest.mark.parametrize("name", ROWS)
@pytest.mark.parametrize("elements", [1, 3, 64, 65, 200])
def test_kernels_compute_the_row(kernel, name, elements):
    row = ROWS[name]
    out, registers = run(kernel, row, shape=(3, elements))
    expected, kept = run("reference", row, shape=(3, elements))
    # About a dozen float32 roundings of terms of order 1 to 10; the noise is accurate to 1e-5 where |z| is large.
    np.testing.assert_allclose(out, expected, rtol=2e-5, atol=2e-5)
    np.testing.assert_allclose(registers, kept, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("name", ROWS)
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_bits_agree_across_instruction_sets(name, dtype):
    results = [run(k, ROWS[name], shape=(3, 333), dtype=dtype) for k in COMPILED]
    for out, registers in results[1:]:
        np.testing.assert_array_equal(out.view(np.uint8), results[0][0].view(np.uint8))
        np.testing.assert_array_equal(registers.view(np.uint32), results[0][1].view(np.uint32))


@pytest.mark.parametrize("kernel", COMPILED)
def test_threads_and_place_change_no_bit(kernel):
    for row in (ROWS["noise"], ROWS["eight registers"]):
        one, _ = run(kernel, row, shape=(2, 100_001))
        for threads, in_place in itertools.product((1, 2, 3), (False, True)):
            np.testing.assert_array_equal(run(kernel, row, shape=(2, 100_001), threads=threads, in_place=in_place)[0], one)


@pytest.mark.parametrize("kernel", COMPILED)
@pytest.mark.parametrize("offset", [1, 2, 3, 4, 7, 64])
def test_shards_agree(kernel, offset):
    whole = np.empty((1, 300), np.float32)
    part = np.empty((1, 300 - offset), np.float32)
    where = {"seeds": np.array([5], np.uint64), "indices": np.array([9], np.uint32), "row": 2, "stream": 1}
    get_kernel(kernel).normals(whole, **where)
    get_kernel(kernel).normals(part, **where, element_offset=offset)
    np.testing.assert_array_equal(part, whole[:, offset:])


@pytest.mark.parametrize("kernel", COMPILED)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_bad_output_is_found(kernel, value):
    x, m = np.zeros((3, 70), np.float32), np.zeros((3, 70), np.float32)
    m[1, 69] = value
    bound = get_kernel(kernel).bind([Row(p=1.0, q=1.0, lo=-1.0, hi=1.0, d=1.0)], x=x, out=x.copy(), outputs=[m], registers=None,
                                   seeds=np.zeros(3, np.uint64), indices=np.zeros(3, np.uint32))  # fmt: skip
    assert bound.run(0, 0) == 1
    assert bound.bad_samples() == [1]
    m[1, 69] = 0.0  # bad samples are those of the last run
    assert bound.run(0, 1) == -1 and bound.bad_samples() == []
    m[2, 0] = value
    assert bound.run_each(np.zeros(3, np.int64), np.zeros(3, np.uint32)) == 2 and bound.bad_samples() == [2]
    assert bound.run_each(np.array([0, 0, -1]), np.zeros(3, np.uint32)) == -1 and bound.bad_samples() == []


@pytest.mark.parametrize("kernel", COMPILED)
@pytest.mark.parametrize("bounds", [{"hi": 1.0}, {"lo": -1.0}])
def test_a_prediction_may_have_one_bound(kernel, bounds):
    row = Row(p=1.5, q=-1.1, d=0.8, **bounds)
    out, _ = run(kernel, row)
    np.testing.assert_allclose(out, run("reference", row)[0], rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("kernel", COMPILED)
@pytest.mark.parametrize("offset", [1, 2, 3, 5])
def test_a_langevin_step_is_sized_by_the_noise_of_its_own_elements(kernel, offset):
    # Of a shard that begins inside a counter; few elements, so that one more would show.
    out, _ = run(kernel, ROWS["langevin"], shape=(3, 6), offset=offset)
    np.testing.assert_allclose(out, run("reference", ROWS["langevin"], shape=(3, 6), offset=offset)[0], rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("kernel", COMPILED)
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_the_threshold_of_a_sample_that_is_not_finite_is_1(kernel, value):
    x, m = np.linspace(-4, 4, 70, dtype=np.float32).reshape(1, 70), np.zeros((1, 70), np.float32)
    m[0, 0], out = value, np.empty_like(x)
    row = Row(p=1.0, q=1.0, d=1.0, reduce=Reduction("dynamic_threshold", (0.9, 9.0)))
    bound = get_kernel(kernel).bind([row], x=x, out=out, outputs=[m], registers=None, seeds=np.zeros(1, np.uint64),
                                    indices=np.zeros(1, np.uint32))  # fmt: skip
    assert bound.run(0, 0) == 0
    np.testing.assert_array_equal(out[0, 1:], np.clip(x[0, 1:], -1.0, 1.0))


@pytest.mark.parametrize("kernel", COMPILED)
def test_threads_beside_each_other_find_thresholds_of_their_own(kernel):
    row = Row(p=1.0, d=1.0, reduce=Reduction("dynamic_threshold", (0.5, 1e6)))
    size = 300_000  # six samples of it are work for several threads
    x = np.linspace(0.0, 2.0, size, dtype=np.float32) * np.arange(1, 7, dtype=np.float32)[:, None]
    out = np.empty_like(x)
    set_num_threads(3)
    bound = get_kernel(kernel).bind([row], x=x, out=out, outputs=[x], registers=None, seeds=np.zeros(6, np.uint64),
                                    indices=np.zeros(6, np.uint32))  # fmt: skip
    for _ in range(3):
        assert bound.run(0, 0) == -1
        np.testing.assert_allclose(out, np.minimum(x / np.arange(1, 7, dtype=np.float32)[:, None], 1.0), rtol=1e-5)


@pytest.mark.parametrize("kernel", COMPILED)
@pytest.mark.parametrize(("log_s", "held"), [(200.0, 88.0), (87.5, 87.5), (-200.0, -87.0), (-86.5, -86.5)])
def test_a_learned_deviation_is_held_to_normal_numbers(kernel, log_s, held):
    out, _ = run(kernel, Row(log_s=(log_s, 0.0)), shape=(1, 9))
    z = np.array([reference.normals(9, seed=7, index=0, row=11, stream=1)])
    np.testing.assert_allclose(out.astype(np.float64), np.exp(held) * z, rtol=2e-5)


@pytest.mark.parametrize("kernel", COMPILED)
def test_of_several_bad_samples_the_first_is_reported(kernel):
    x, m = np.zeros((4, 5), np.float32), np.zeros((4, 5), np.float32)
    m[1, 2] = m[3, 4] = np.nan
    bound = get_kernel(kernel).bind([Row(b=1.0)], x=x, out=x.copy(), outputs=[m], registers=None, seeds=np.zeros(4, np.uint64),
                                    indices=np.zeros(4, np.uint32))  # fmt: skip
    assert bound.run(0, 0) == 1 and bound.bad_samples() == [1, 3]
    assert bound.run_each(np.zeros(4, np.int64), np.zeros(4, np.uint32)) == 1 and bound.bad_samples() == [1, 3]


@pytest.mark.parametrize("kernel", COMPILED)
def test_a_term_with_weight_zero_is_not_read(kernel):
    x, m = np.full((1, 33), np.nan, np.float32), np.ones((1, 33), np.float32)
    out = np.empty_like(x)
    get_kernel(kernel).bind(
        [Row(b=2.0)], x=x, out=out, outputs=[m], registers=None, seeds=np.zeros(1, np.uint64), indices=np.zeros(1, np.uint32)
    ).run(0, 0)
    np.testing.assert_array_equal(out, 2.0)


# Known answers published with Random123 (kat_vectors, philox4x32-10).
@pytest.mark.parametrize(
    ("counter", "key", "words"),
    [
        ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        ((0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344), (0xA4093822, 0x299F31D0),
         (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1)),
    ],
)  # fmt: skip
def test_philox_known_answers(counter, key, words):
    from diffuse_fast import _core

    seed = key[0] | key[1] << 32
    assert tuple(reference.philox(seed, np.array([counter], np.uint32))[0]) == words
    for kernel in COMPILED:
        assert tuple(_core.philox(kernel, seed, *counter, 1)[0]) == words


@pytest.mark.parametrize("kernel", COMPILED)
def test_normals_are_normal(kernel):
    from scipy import stats

    z = np.empty((1, 1_000_000), np.float32)
    get_kernel(kernel).normals(z, seeds=np.array([3], np.uint64), indices=np.array([0], np.uint32), row=0, stream=0)
    np.testing.assert_allclose(z[0], reference.normals(z.size, seed=3, index=0, row=0, stream=0), atol=2e-5)
    z = z[0].astype(np.float64)
    # Five standard errors of each moment of a million normals.
    for power, moment, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
        assert abs((z**power).mean() - moment) < 5 * (variance / z.size) ** 0.5
    assert stats.kstest(z, "norm").pvalue > 1e-4
    assert 4.2 < np.abs(z).max() < 6.7
    assert abs(np.corrcoef(z[:-1], z[1:])[0, 1]) < 5e-3


def damaged(reduction, value):
    """A packed row whose reduction has an invalid first value."""
    table = pack([Row(d=1.0, q=1.0, reduce=reduction)])
    table["reduce_0"][0] = value
    return table


@pytest.mark.parametrize("kernel", COMPILED)
@pytest.mark.parametrize(
    ("row", "message"),
    [
        (Row(g=(0.0, 0.0, 1.0), b=1.0), "network output 2"),
        (Row(a=1.0, log_s=(0.0, 0.0)), "variance channel"),
        (Row(a=1.0, c=(0.0, 1.0)), "register 1"),
        (Row(a=1.0, write=1, e_x=1.0), "register 1"),
        (Row(a=1.0, write=0, f=(0.0, 0.0, 1.0)), "register 2"),
        (damaged(Reduction("dynamic_threshold", (0.9, 2.0)), -0.1), "quantile"),
        (damaged(Reduction("guidance_rescale", (0.9,)), 1.1), "phi"),
        (damaged(Reduction("guidance_rescale", (0.9,)), np.inf), "phi"),
    ],
)
def test_a_row_that_needs_a_missing_tensor_is_refused(kernel, row, message):
    x = np.zeros((1, 8), np.float32)
    with pytest.raises(ArgumentError, match=message):
        get_kernel(kernel).bind(
            row if isinstance(row, np.ndarray) else [row],
            x=x,
            out=x,
            outputs=[x],
            registers=np.zeros((1, 1, 8), np.float32),
            seeds=np.zeros(1, np.uint64),
            indices=np.zeros(1, np.uint32),
        )


@pytest.mark.parametrize(
    ("row", "options", "message"),
    [
        (Row(a=1.0, write=9, e_x=1.0), {"registers": np.zeros((10, 1, 8), np.float32)}, "register 9"),
        (Row(a=1.0), {"element_offset": 2**40}, "element_offset"),
        (Row(a=1.0), {"element_offset": -4}, "element_offset"),
    ],
)
def test_step_refuses_what_is_out_of_range(row, options, message):
    x = np.zeros((1, 8), np.float32)
    with pytest.raises(ArgumentError, match=message):
        step(x, x, row, **options)


@pytest.mark.parametrize("given", [0, 1])
def test_too_few_model_outputs_are_counted(given):
    x = np.zeros((1, 8), np.float32)
    row = Row(g=(1.0,) * (given + 1), b=1.0)
    with pytest.raises(ArgumentError, match=f"the row reads {given + 1} model outputs; {given} were given"):
        step(x, [x.copy()] * given, row)


# ---- the short path of float32 arrays -------------------------------------------------------------------------


@pytest.mark.parametrize("solver", ["ddim", "ddpm"])
@pytest.mark.parametrize("shape", [(1, 7), (5, 3, 33), (2, 70001)])
def test_the_short_path_gives_the_same_bits(solver, shape):
    rng = np.random.default_rng(2)
    x, m = (rng.standard_normal(shape).astype(np.float32) for _ in range(2))
    row = plan(Schedule.linear(), solver, 10, prediction_type="epsilon", clip=(-1, 1)).rows[2]
    general = step(x, m, row, seed=[7] * shape[0], index=range(4, 4 + shape[0]), step=2)
    out = np.empty_like(x)
    assert step(x, m, row, seed=7, index=4, step=2, out=out) is out
    np.testing.assert_array_equal(out, general)
    in_place = x.copy()
    step(in_place, m, row, seed=7, index=4, step=2, out=in_place)
    np.testing.assert_array_equal(in_place, general)


def test_the_short_path_names_every_bad_sample():
    x, m = np.zeros((4, 6), np.float32), np.zeros((4, 6), np.float32)
    m[1, 2], m[3, 0] = np.nan, np.inf
    with pytest.raises(NonFiniteError) as caught:
        step(x, m, Row(b=1.0), step=5, out=np.empty_like(x))
    assert (caught.value.row, caught.value.samples) == (5, (1, 3))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"out": np.zeros((2, 3), np.float32)}, "out"),
        ({"out": np.zeros((4, 6), np.float64)}, "out"),
        ({"seed": -1}, "seed"),
        ({"index": -1}, "index"),
        ({"index": 2**32 - 2}, "index"),
    ],
)
def test_the_short_path_refuses_bad_arguments(given, message):
    x = np.zeros((4, 6), np.float32)
    with pytest.raises(DiffuseFastError, match=message):
        step(x, x.copy(), Row(a=1.0, b=1.0, s=1.0), **{"out": np.empty_like(x), **given})


def test_the_short_path_refuses_an_overlap():
    memory = np.zeros((5, 6), np.float32)
    with pytest.raises(DiffuseFastError, match="overlaps"):
        step(memory[:4], np.zeros((4, 6), np.float32), Row(a=1.0, b=1.0), out=memory[1:])


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("first", ["x", "out"])
def test_memory_that_only_touches_does_not_overlap(dtype, first):
    halves = np.ones((2, 4, 6), dtype)
    x, out = halves if first == "x" else halves[::-1]
    assert step(x, np.ones((4, 6), dtype), Row(a=1.0, b=1.0), out=out) is out
    np.testing.assert_array_equal(out, 2)
