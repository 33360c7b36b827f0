"""The engine on a device, held against the engine on the CPU by a mock device: what is captured when, and what never happens."""

from __future__ import annotations

import numpy as np
import pytest

import diffuse_fast as df
from diffuse_fast.errors import ArgumentError, NetworkError, NonFiniteError

SHAPE = (2, 5)
LINEAR = df.Schedule.linear()


def network(x, t, label=None):
    """Elementwise, so that a sample does not depend on its batch."""
    scale = (1 + np.asarray(t) / 1000).astype(np.float32)[:, None, None]
    shift = 0 if label is None else label.astype(np.float32)[:, None, None]
    return np.tanh(x * scale + shift)


def plan(solver="ddim", steps=6, **options):
    return df.plan(LINEAR, solver, steps, prediction_type="epsilon", **options)


CHURNED = {"s_churn": 3.0, "s_tmax": 50.0, "timestep_spacing": "karras"}
PLANS = {
    "ddim": plan(),
    "ddpm, clipped": plan("ddpm", 7, clip=(-1, 1)),
    "dpmpp_2m": plan("dpmpp_2m", 8),
    "dpmpp_3m_sde": plan("dpmpp_3m_sde", 6),
    "unipc": plan("unipc", 6),
    "heun, churn": plan("heun", 5, **CHURNED),
    "dynamic threshold": plan(clip=df.DynamicThreshold(0.9)),
}


def cpu(chosen, **options):
    return df.Sampler(network, chosen, shape=SHAPE, **options)


@pytest.mark.parametrize("graph", ["tick", "trajectory", "none"])
@pytest.mark.parametrize("chosen", PLANS.values(), ids=PLANS)
def test_bits_are_those_of_the_cpu(mocked, chosen, graph):
    m = mocked(network, chosen, shape=SHAPE, graph=graph)
    expected = cpu(chosen).sample(3, seed=5)
    np.testing.assert_array_equal(m.sampler.sample(3, seed=5), expected)
    np.testing.assert_array_equal(m.sampler.sample(3, seed=5), expected)  # the static memory is as good as new


def test_one_tick_is_captured_and_replayed_for_every_row(mocked):
    m = mocked(network, plan("ddpm", 9), shape=SHAPE)
    m.sampler.sample(2, seed=1)
    assert [g.replays for g in m.device.graphs] == [9]
    np.testing.assert_array_equal([t[0] for _, t in m.network.calls[-9:]], [row.timestep for row in m.sampler.plan.rows])


def test_what_is_data_is_not_captured_again(mocked):
    ten, seven = plan("ddim", 10), plan("ddim", 7, timestep_spacing="trailing")
    m = mocked(network, ten, shape=SHAPE)
    m.sampler.sample(2, seed=1, cond={"label": np.array([1, 2])})
    before = m.device.events.count("alloc")
    other = m.sampler.with_plan(seven)
    got = [
        m.sampler.sample(2, seed=[8, 9], cond={"label": np.array([1, 2])}),  # other seeds
        m.sampler.sample(2, seed=1, cond={"label": np.array([3, 0])}),  # other conditioning
        m.sampler.sample(2, noise=np.ones((2, *SHAPE), np.float32), cond={"label": np.array([1, 2])}),  # another start
        other.sample(2, seed=1, cond={"label": np.array([1, 2])}),  # another plan
    ]
    assert len(m.device.graphs) == 1
    assert m.device.graphs[0].replays == 10 * 4 + 7
    assert m.device.events.count("alloc") == before  # static memory stays
    expected = [
        cpu(ten).sample(2, seed=[8, 9], cond={"label": np.array([1, 2])}),
        cpu(ten).sample(2, seed=1, cond={"label": np.array([3, 0])}),
        cpu(ten).sample(2, noise=np.ones((2, *SHAPE), np.float32), cond={"label": np.array([1, 2])}),
        cpu(seven).sample(2, seed=1, cond={"label": np.array([1, 2])}),
    ]
    np.testing.assert_array_equal(got, expected)


def test_what_is_baked_in_is_captured_again(mocked):
    m = mocked(network, plan("ddim", 4), shape=SHAPE)
    m.sampler.sample(2, seed=1)
    assert len(m.device.graphs) == 1
    m.sampler.sample(3, seed=1)  # another shape of batch
    assert len(m.device.graphs) == 2
    noisy = m.sampler.with_plan(plan("ddpm", 4))  # another variant of the kernel
    np.testing.assert_array_equal(noisy.sample(2, seed=1), cpu(plan("ddpm", 4)).sample(2, seed=1))
    assert len(m.device.graphs) == 3
    m.sampler.sample(2, seed=1)  # both stay
    noisy.sample(2, seed=1)
    assert len(m.device.graphs) == 3
    m.network.weights = 1  # the weights lie elsewhere
    np.testing.assert_array_equal(m.sampler.sample(2, seed=1), cpu(plan("ddim", 4)).sample(2, seed=1))
    assert len(m.device.graphs) == 4


def test_a_longer_table_and_more_registers_are_bound_again(mocked):
    m = mocked(network, plan("ddim", 4), shape=SHAPE)
    m.sampler.sample(1, seed=1)
    for chosen in (plan("ddim", 300), plan("dpmpp_3m", 5)):
        np.testing.assert_array_equal(m.sampler.with_plan(chosen).sample(1, seed=1), cpu(chosen).sample(1, seed=1))


def test_nothing_waits_between_the_first_row_and_the_last(mocked):
    m = mocked(network, plan("ddpm", 12), shape=SHAPE)
    m.sampler.sample(4, seed=1, batch_size=2)
    events = m.device.events
    replays = [i for i, event in enumerate(events) if event == "replay"]
    for batch in (replays[:12], replays[12:]):
        assert set(events[batch[0] : batch[-1] + 1]) == {"replay"}
        assert events[batch[-1] + 1 :][:2] == ["sync", "sync"]  # was it finite, and the copy for the caller
    assert len(replays) == 24


def test_rows_without_a_call_have_a_graph_without_the_network(mocked):
    chosen = PLANS["heun, churn"]
    silent = sum(not row.calls_network for row in chosen.rows)
    assert silent
    m = mocked(network, chosen, shape=SHAPE)
    m.sampler.sample(1, seed=1)
    warm = len(m.network.calls) - chosen.nfe
    assert sorted(g.replays for g in m.device.graphs if len(g.tape) == 1) == [silent]
    assert sum(g.replays for g in m.device.graphs if len(g.tape) == 2) == chosen.nfe
    m.sampler.sample(1, seed=1)
    assert len(m.network.calls) == warm + 2 * chosen.nfe


def test_guidance_doubles_the_batch_only_where_it_guides(mocked):
    interval = (0.1, 1.0)
    chosen, options = plan("ddpm", 10), {"guidance_scale": 2.5, "guidance_interval": interval}
    cond = {"cond": {"label": np.array([1, 2])}, "negative_cond": {"label": 0}}
    m = mocked(network, chosen, shape=SHAPE, **options)
    guided = [len(row.g) for row in m.sampler.plan.rows]
    assert set(guided) == {1, 2}
    np.testing.assert_array_equal(m.sampler.sample(2, seed=1, **cond), cpu(chosen, **options).sample(2, seed=1, **cond))
    assert [evaluations for evaluations, _ in m.network.calls[-10:]] == guided
    assert len(m.device.graphs) == 2


def test_integer_and_fractional_times_have_graphs_of_their_own(mocked):
    seen = []

    def telling(x, t):
        seen.append(t.dtype)
        return network(x, t)

    chosen = plan(steps=None, timesteps=[900, 500.5, 20])
    m = mocked(telling, chosen, shape=SHAPE)
    got = m.sampler.sample(1, seed=1)
    assert seen[-3:] == [np.int64, np.float32, np.int64]
    np.testing.assert_array_equal(got, cpu(chosen).sample(1, seed=1))


def test_given_step_noise_and_callback(mocked):
    chosen = plan("ddpm", 5)
    draws = np.random.default_rng(0).standard_normal((5, 2, *SHAPE)).astype(np.float32)
    m = mocked(network, chosen, shape=SHAPE)
    seen, expected = [], []
    got = m.sampler.sample(2, seed=1, step_noise=lambda i: draws[i], callback=lambda i, x: seen.append(x.copy()))
    want = cpu(chosen).sample(2, seed=1, step_noise=lambda i: draws[i], callback=lambda i, x: expected.append(x.copy()))
    np.testing.assert_array_equal(got, want)
    np.testing.assert_array_equal(seen, expected)
    np.testing.assert_array_equal(m.sampler.sample(2, seed=1), cpu(chosen).sample(2, seed=1))  # the generator again


def test_what_device_of_the_device_is_read_there(mocked, there):
    chosen = plan("ddpm", 5)
    rng = np.random.default_rng(0)
    noise, *draws = rng.standard_normal((6, 3, *SHAPE)).astype(np.float32)
    label, other = np.array([1, 2, 3]), np.array(9)  # one per sample, and one for all
    guided = {"guidance_scale": 1.5}
    m = mocked(network, chosen, shape=SHAPE, **guided)
    host = {"cond": {"label": label}, "negative_cond": {"label": other}, "noise": noise}
    expected = cpu(chosen, **guided).sample(3, step_noise=lambda i: draws[i], **host)
    np.testing.assert_array_equal(m.sampler.sample(3, step_noise=lambda i: draws[i], **host), expected)
    captured = len(m.device.graphs)
    m.device.read.clear()
    got = m.sampler.sample(
        3,
        cond={"label": there(label)},
        negative_cond={"label": there(other)},
        noise=there(noise),
        step_noise=lambda i: there(draws[i]),
    )
    np.testing.assert_array_equal(got, expected)
    noisy = [draw for draw, row in zip(draws, chosen.rows, strict=True) if row.s]
    for given in (label, other, noise, *noisy):
        assert any(read.ctypes.data == given.ctypes.data for read in m.device.read)
    assert len(m.device.graphs) == captured  # of the same form, wherever it lay


def test_batches_are_parts_of_what_device_of_the_device(mocked, there):
    m = mocked(network, plan(), shape=SHAPE)
    label, noise = np.arange(5), np.random.default_rng(1).standard_normal((5, *SHAPE)).astype(np.float32)
    got = m.sampler.sample(5, noise=there(noise), cond={"label": there(label)}, batch_size=2)
    np.testing.assert_array_equal(got, cpu(plan()).sample(5, noise=noise, cond={"label": label}))
    at = {read.ctypes.data for read in m.device.read}
    assert at == {array[first:].ctypes.data for array in (label, noise) for first in (0, 2, 4)}


def test_requests_bring_what_device_of_the_device(mocked, there):
    noise = np.random.default_rng(0).standard_normal((2, *SHAPE)).astype(np.float32)
    scaled = plan("euler", 4)  # whose initial scale is not 1

    def requests(place):
        return [
            df.Request(plan=scaled, noise=place(noise[0]), cond={"label": place(np.array(4))}),
            df.Request(seed=3, cond={"label": 5}),
            df.Request(seed=4, noise=noise[1], cond={"label": place(np.array(6))}, guidance_scale=2.0, negative_cond={"label": 0}),
        ]

    m = mocked(network, plan("ddpm", 4), shape=SHAPE)
    expected = cpu(plan("ddpm", 4)).sample_requests(requests(lambda values: values))
    np.testing.assert_array_equal(m.sampler.sample_requests(requests(there)), expected)


def test_what_device_of_a_device_is_refused_where_the_host_reads(there):
    sampler = cpu(plan())
    for call in (
        lambda: sampler.sample(2, seed=0, cond={"label": there(np.arange(2))}),
        lambda: sampler.sample(2, noise=there(np.zeros((2, *SHAPE), np.float32))),
        lambda: cpu(plan("ddpm")).sample(2, seed=0, step_noise=lambda i: there(np.zeros((2, *SHAPE), np.float32))),
        lambda: sampler.sample_requests([df.Request(cond={"label": there(np.array(1))})]),
        lambda: sampler.sample_requests([df.Request(noise=there(np.zeros(SHAPE, np.float32)))]),
    ):
        with pytest.raises(ArgumentError, match="is a There on a CUDA device, and is read on the host here; copy it there"):
            call()


def test_a_trajectory_is_one_graph_for_all_plans_of_its_kinds(mocked):
    m = mocked(network, plan("ddim", 6), shape=SHAPE, graph="trajectory")
    m.sampler.sample(2, seed=1)
    other = plan("ddim", 6, timestep_spacing="trailing")
    np.testing.assert_array_equal(m.sampler.with_plan(other).sample(2, seed=3), cpu(other).sample(2, seed=3))
    assert [(len(g.tape), g.replays) for g in m.device.graphs] == [(12, 2)]
    with pytest.raises(ArgumentError, match="graph is 'trajectory', which runs all rows at once"):
        m.sampler.sample(2, seed=1, callback=lambda i, x: None)


@pytest.mark.parametrize("graph", ["tick", "trajectory", "none"])
def test_nan_is_reported_at_the_end_with_row_and_sample(mocked, graph):
    def broken(x, t):
        out = network(x, t)
        out[1][t[1] < 400] = np.nan
        return out

    chosen = plan("ddim", 8)
    m = mocked(broken, chosen, shape=SHAPE, graph=graph)
    with pytest.raises(NonFiniteError) as got:
        m.sampler.sample(3, seed=1)
    with pytest.raises(NonFiniteError) as expected:
        df.Sampler(broken, chosen, shape=SHAPE).sample(3, seed=1)
    assert (got.value.row, got.value.samples) == (expected.value.row, expected.value.samples)
    assert str(got.value) == str(expected.value)


def test_samples_of_a_later_batch_are_numbered_through(mocked):
    def broken(x, t, label):
        return np.where(label[:, None, None] == 7, np.float32(np.nan), network(x, t, label))

    m = mocked(broken, plan(), shape=SHAPE)
    with pytest.raises(NonFiniteError) as error:
        m.sampler.sample(4, seed=1, batch_size=2, cond={"label": np.array([0, 1, 2, 7])})
    assert (error.value.row, error.value.samples) == (0, (3,))


def test_requests_are_those_of_the_cpu_with_one_wait(mocked):
    plans = [plan("ddim", 3), PLANS["heun, churn"], plan("dpmpp_2m", 7), None]
    scales = (None, None, 2.0, 1.0)
    requests = [
        df.Request(plan=p, seed=i, index=i, cond={"label": i}, guidance_scale=g, negative_cond={"label": 9} if g == 2.0 else None)
        for i, (p, g) in enumerate(zip(plans, scales, strict=True))
    ]
    m = mocked(network, plan("ddpm", 4), shape=SHAPE)
    expected = cpu(plan("ddpm", 4)).sample_requests(requests)
    np.testing.assert_array_equal(m.sampler.sample_requests(requests), expected)
    ticks = max(len(p.rows) for p in plans if p)
    assert m.device.events.count("replay") == ticks
    first = m.device.events.index("replay")
    assert m.device.events[first:] == ["replay"] * ticks + ["sync", "sync"]
    captured = len(m.device.graphs)
    np.testing.assert_array_equal(m.sampler.sample_requests(requests), expected)
    assert len(m.device.graphs) == captured


def test_a_bad_request_is_named(mocked):
    def broken(x, t, label):
        return np.where((label[:, None, None] == 1) & (t[:, None, None] < 500), np.float32(np.nan), network(x, t, label))

    requests = [df.Request(plan=plan("ddim", n), seed=0, cond={"label": i}) for i, n in enumerate((3, 5))]
    m = mocked(broken, plan(), shape=SHAPE)
    with pytest.raises(NonFiniteError) as got:
        m.sampler.sample_requests(requests)
    with pytest.raises(NonFiniteError) as expected:
        df.Sampler(broken, plan(), shape=SHAPE).sample_requests(requests)
    assert (got.value.row, got.value.samples) == (expected.value.row, expected.value.samples)


def test_a_network_that_fails_while_captured_leaves_a_working_sampler(mocked):
    failing = [True]
    m = mocked(network, plan(), shape=SHAPE)
    bound = m.network.bind_device

    def bind(memory, *rest):
        call = bound(memory, *rest)
        run = type(call).__call__

        class Call(type(call)):
            def __call__(self, evaluations, integer_times):
                if failing and memory.tape is not None:
                    raise NetworkError("not while capturing")
                return run(self, evaluations, integer_times)

        call.__class__ = Call
        return call

    m.network.bind_device = bind
    with pytest.raises(NetworkError, match="not while capturing"):
        m.sampler.sample(1, seed=1)
    failing.clear()
    np.testing.assert_array_equal(m.sampler.sample(1, seed=1), cpu(plan()).sample(1, seed=1))
