"""Batches whose samples have nothing in common: each equals, bit for bit, the same sample drawn alone."""

from __future__ import annotations

import numpy as np
import pytest

import diffuse_fast as df
from diffuse_fast import console
from diffuse_fast.errors import ArgumentError, ArgumentTypeError, NonFiniteError

SHAPE = (3, 5)
SCHEDULE = df.Schedule.cosine()


class Network:
    """Batch-invariant: what a sample gets depends on its own x, t and label alone. Counts what it evaluates."""

    def __init__(self) -> None:
        self.evaluations = 0

    def __call__(self, x, t, label=None):
        self.evaluations += len(x)
        label = np.zeros(len(x)) if label is None else label
        shift = (0.01 * t + 0.1 * label)[:, None, None].astype(np.float32)
        return np.tanh(x * np.float32(0.7) + shift)


def plan(solver, steps, **options):
    return df.plan(SCHEDULE, solver, steps, prediction_type="v_prediction", **options)


PLANS = [plan("ddim", 3), plan("ddim", 7, eta=0.5), plan("ddpm", 5, clip=(-1, 1)), plan("ddpm", 12)]


def requests(seed, n):
    rng = np.random.default_rng(seed)
    return [
        df.Request(
            plan=PLANS[rng.integers(len(PLANS))],
            seed=int(rng.integers(2**63)),
            index=int(rng.integers(100)),
            guidance_scale=(scale := float(rng.choice([1.0, 0.0, 2.5]))),
            cond={"label": int(rng.integers(10))},
            negative_cond=None if scale == 1.0 else {"label": int(rng.integers(10))},
        )
        for _ in range(n)
    ]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("batch_size", "rescale"), [(None, 0.0), (4, 0.0), (None, 0.7)])
def test_each_request_equals_the_same_sample_drawn_alone(seed, batch_size, rescale):
    asked = requests(seed, 9)
    sampler = df.Sampler(Network(), PLANS[0], shape=SHAPE, guidance_rescale=rescale)
    together = sampler.sample_requests(asked, batch_size=batch_size)
    for request, result in zip(asked, together, strict=True):
        guidance = {"guidance_scale": request.guidance_scale, "guidance_rescale": rescale}
        alone = df.Sampler(Network(), request.plan, shape=SHAPE, **guidance).sample(
            1,
            seed=request.seed,
            first_index=request.index,
            cond={"label": np.array([request.cond["label"]])},
            negative_cond=request.negative_cond and {"label": np.array([request.negative_cond["label"]])},
        )
        np.testing.assert_array_equal(result, alone[0])


def test_the_order_of_requests_does_not_matter():
    asked = requests(11, 8)
    order = np.random.default_rng(3).permutation(8)
    sampler = df.Sampler(Network(), PLANS[0], shape=SHAPE)
    np.testing.assert_array_equal(sampler.sample_requests(asked)[order], sampler.sample_requests([asked[i] for i in order]))


def test_no_sample_pays_for_what_it_does_not_need():
    network = Network()
    asked = [
        df.Request(plan=PLANS[0], seed=1, cond={"label": 1}),  # 3 evaluations
        df.Request(plan=PLANS[2], seed=2, cond={"label": 1}, guidance_scale=2.0, negative_cond={"label": 0}),  # 2·5
        df.Request(plan=PLANS[3], seed=3, cond={"label": 1}, guidance_scale=0.0, negative_cond={"label": 0}),  # 12: only the other
    ]
    df.Sampler(network, PLANS[0], shape=SHAPE).sample_requests(asked)
    assert network.evaluations == 3 + 2 * 5 + 12


def test_rows_without_a_network_call_run_in_the_tick():
    churn = df.Row(calls_network=False, a=1.0, s=0.25)
    base = PLANS[0]
    rows = (churn, base.rows[0], churn, churn, *base.rows[1:], df.Row(calls_network=False, a=2.0))
    m = base.marginals
    mixed = df.Plan(
        solver="mixed",
        steps=3,
        prediction_type="v_prediction",
        rows=rows,
        registers=0,
        initial_scale=1.0,
        marginals=(m[0], m[0], m[1], m[1], *m[1:], m[-1]),
    )
    sampler = df.Sampler(Network(), mixed, shape=SHAPE)
    asked = [df.Request(seed=5), df.Request(plan=PLANS[3], seed=6), df.Request(seed=7)]
    together = sampler.sample_requests(asked)
    np.testing.assert_array_equal(together[0], sampler.sample(1, seed=5)[0])
    np.testing.assert_array_equal(together[2], sampler.sample(1, seed=7)[0])


def test_registers_are_kept_per_sample():
    rows = (
        df.Row(timestep=900.0, a=0.9, b=0.1, write=0, e_m=1.0),
        df.Row(timestep=500.0, a=0.8, b=0.3, c=(-0.2,), write=0, e_m=1.0),
        df.Row(timestep=100.0, a=0.7, b=0.3, c=(-0.1,)),
    )
    two_step = df.Plan(
        solver="two",
        steps=3,
        prediction_type="v_prediction",
        rows=rows,
        registers=1,
        initial_scale=1.0,
        marginals=((0.5, 0.5),) * 4,
    )
    sampler = df.Sampler(Network(), two_step, shape=SHAPE)
    together = sampler.sample_requests([df.Request(seed=1), df.Request(plan=PLANS[1], seed=2), df.Request(seed=3)])
    np.testing.assert_array_equal(together[2], sampler.sample(1, seed=3)[0])


def test_a_request_may_bring_its_noise():
    noise = np.random.default_rng(0).standard_normal((2, *SHAPE)).astype(np.float32)
    sampler = df.Sampler(Network(), PLANS[0], shape=SHAPE)
    result = sampler.sample_requests([df.Request(noise=noise[0]), df.Request(noise=noise[1])])
    np.testing.assert_array_equal(result, sampler.sample(2, noise=noise))


def test_a_model_with_null_conditioning_needs_no_negative_condition():
    model = df.load("digits")
    sampler = df.Sampler(model, df.plan(model.schedule, "ddim", 4, prediction_type=model.prediction_type, clip=model.clip))
    result = sampler.sample_requests([df.Request(seed=1, cond={"label": 3}, guidance_scale=2.0), df.Request(seed=2)])
    guided = df.sample(model, 1, 4, seed=1, cond={"label": 3}, guidance_scale=2.0)
    np.testing.assert_allclose(result[0], guided[0], atol=1e-4)  # an ONNX runtime is not batch-invariant to the bit
    np.testing.assert_allclose(result[1], df.sample(model, 1, 4, seed=2)[0], atol=1e-4)


@pytest.mark.parametrize(
    ("asked", "error", "message"),
    [
        ([], ArgumentError, "empty"),
        ([{"seed": 1}], ArgumentTypeError, "request 0 is a dict"),
        ([df.Request(seed=-1)], ArgumentError, "seed"),
        ([df.Request(plan="ddim")], ArgumentTypeError, "plan"),
        ([df.Request(guidance_scale=2.0)], ArgumentError, "negative_cond"),
        ([df.Request(negative_cond={"label": 1})], ArgumentError, "guidance_scale"),
        ([df.Request(noise=np.zeros((2, 2), np.float32))], ArgumentError, "noise of request 0"),
        ([df.Request(cond={"label": 1}), df.Request()], ArgumentError, "request 1 has the conditioning"),
        ([df.Request(cond={"label": 1}), df.Request(cond={"label": [1, 2]})], ArgumentError, "request 1 has the conditioning"),
    ],
)
def test_bad_requests_are_refused(asked, error, message):
    with pytest.raises(error, match=message):
        df.Sampler(Network(), PLANS[0], shape=SHAPE).sample_requests(asked)


def test_a_network_that_fails_for_one_request_names_it():
    def network(x, t, label):
        return np.where(label[:, None, None] == 3, np.nan, x).astype(np.float32)

    asked = [df.Request(seed=1, cond={"label": label}) for label in (1, 3, 2)]
    with pytest.raises(NonFiniteError) as caught:
        df.Sampler(network, PLANS[0], shape=SHAPE).sample_requests(asked)
    assert caught.value.samples == (1,)


# ---- guidance ---------------------------------------------------------------------------------------


def test_a_scale_per_sample_equals_each_sample_with_its_scale():
    scales = [1.0, 3.0, 0.5]
    common = {"shape": SHAPE, "schedule": SCHEDULE, "prediction_type": "v_prediction", "solver": "ddpm"}
    label, other = np.array([4, 5, 6]), np.array([0, 0, 1])
    conditions = {"cond": {"label": label}, "negative_cond": {"label": other}}
    together = df.sample(Network(), 3, 6, seed=9, guidance_scale=scales, **conditions, **common)
    for i, scale in enumerate(scales):
        alone = df.sample(
            Network(),
            1,
            6,
            seed=9,
            first_index=i,
            guidance_scale=scale,
            cond={"label": label[i : i + 1]},
            negative_cond=None if scale == 1.0 else {"label": other[i : i + 1]},
            **common,
        )
        np.testing.assert_array_equal(together[i], alone[0])


def test_a_scale_per_sample_shows_its_progress_too(capsys, monkeypatch):
    monkeypatch.setattr(console, "INTERVAL", 0.0)
    df.sample(
        Network(),
        2,
        6,
        shape=SHAPE,
        schedule=SCHEDULE,
        prediction_type="v_prediction",
        guidance_scale=[1.0, 2.0],
        negative_cond={"label": 0},
        cond={"label": 1},
        progress=True,
    )
    shown = capsys.readouterr()
    assert "sampling" in shown.err
    assert shown.out == ""


@pytest.mark.parametrize("scales", [[1.0, 2.0], [[1.0], [2.0], [3.0]], ["1", "2", "3"]])
def test_scales_that_do_not_fit_are_refused(scales):
    with pytest.raises(ArgumentError, match="guidance_scale"):
        df.sample(
            Network(),
            3,
            6,
            shape=SHAPE,
            schedule=SCHEDULE,
            prediction_type="v_prediction",
            guidance_scale=scales,
            negative_cond={"label": 0},
        )


def test_outside_the_interval_the_second_evaluation_is_not_paid():
    base = plan("ddim", 10)
    levels = np.array([sigma / max(alpha, 1e-30) for alpha, sigma in base.marginals[:-1]])
    low, high = levels[6], levels[3]  # rows 4, 5 and 6: levels fall
    network = Network()
    sampler = df.Sampler(network, base, shape=SHAPE, guidance_scale=2.0, guidance_interval=(low, high))
    sampler.sample(4, seed=0, cond={"label": 1}, negative_cond={"label": 0})
    assert network.evaluations == 4 * (10 + 3)
    assert [len(row.g) for row in sampler.plan.rows] == [1] * 4 + [2] * 3 + [1] * 3


def test_an_interval_gives_the_same_in_step_and_by_requests():
    base = plan("ddpm", 10)
    sampler = df.Sampler(Network(), base, shape=SHAPE, guidance_scale=2.0, guidance_interval=(0.5, 5.0))
    in_step = sampler.sample(2, seed=3, cond={"label": 1}, negative_cond={"label": 0})
    asked = [df.Request(seed=3, index=i, cond={"label": 1}, negative_cond={"label": 0}) for i in range(2)]
    np.testing.assert_array_equal(sampler.sample_requests(asked), in_step)


def test_an_interval_over_everything_is_plain_guidance():
    base = plan("ddim", 10)
    assert base.with_guidance(2.0, interval=(0.0, float("inf"))) == base.with_guidance(2.0)


@pytest.mark.parametrize("interval", [(2.0, 1.0), (1.0, 1.0), (-1.0, 1.0), (1e9, 2e9)])
def test_an_empty_interval_is_refused(interval):
    with pytest.raises(ArgumentError, match="guidance_interval"):
        plan("ddim", 10, timestep_spacing="leading").with_guidance(2.0, interval=interval)


@pytest.mark.parametrize("kernel", [None, "reference"])
@pytest.mark.parametrize("way", ["joined", "separate"])
def test_a_rescale_compares_with_a_conditional_output_of_no_weight(kernel, way, monkeypatch):
    """guidance_scale 0 and φ = 0.7 in float64: the unconditional output, with the conditional one's deviation for the most part."""
    if kernel is not None:
        monkeypatch.setenv("DIFFUSE_FAST_KERNEL", kernel)
    evaluated = []

    def network(x, t, label):
        evaluated.append(len(x))
        return np.tanh(x * (0.3 * label)[:, None, None].astype(np.float32))

    chosen = plan("ddim", 3)
    sampler = df.Sampler(network, chosen, shape=SHAPE, guidance_scale=0.0, guidance_rescale=0.7, guidance_batch=way)
    rng = np.random.default_rng(8)
    noise, labels = rng.standard_normal((2, *SHAPE)).astype(np.float32), (np.array([1.0, 5.0]), np.array([4.0, 2.0]))
    x = noise.astype(np.float64)
    for row in chosen.rows:
        t = np.full(2, row.timestep)
        conditional, other = (network(x, t, label).astype(np.float64) for label in labels)
        ratio = conditional.std(axis=(1, 2), keepdims=True) / other.std(axis=(1, 2), keepdims=True)
        assert (np.abs(np.log(ratio)) > 0.1).all()  # it is not about a factor of 1
        x = row.a * x + row.b * other * (0.7 * ratio + 0.3)
    evaluated.clear()
    together = sampler.sample(2, noise=noise, cond={"label": labels[0]}, negative_cond={"label": labels[1]})
    asked = [df.Request(noise=noise[i], cond={"label": labels[0][i]}, negative_cond={"label": labels[1][i]}) for i in range(2)]
    np.testing.assert_allclose(together, x, rtol=0, atol=2e-5)
    np.testing.assert_array_equal(sampler.sample_requests(asked), together)
    assert sum(evaluated) == 2 * 2 * 2 * 3  # both outputs of both samples in every row, twice


def test_rescaled_guidance_has_the_standard_deviation_of_the_conditional_output():
    """Lin et al. 2023, eq. 14-16 with φ = 1: the output the row sees has the conditional output's standard deviation."""
    rng = np.random.default_rng(5)
    conditional, other = (rng.standard_normal((1, *SHAPE)).astype(np.float32) for _ in range(2))
    row = df.Row(timestep=1.0, b=1.0)  # x' = m
    one_row = df.Plan(
        solver="output",
        steps=1,
        prediction_type="epsilon",
        rows=(row,),
        registers=0,
        initial_scale=1.0,
        marginals=((0.5, 0.5),) * 2,
    )
    for phi in (1.0, 0.7):
        guided = one_row.with_guidance(4.0, rescale=phi)
        result = df.step(np.zeros_like(other), [conditional, other], guided.rows[0])
        mixed = 4.0 * conditional.astype(np.float64) - 3.0 * other
        expected = phi * mixed * conditional.std() / mixed.std() + (1 - phi) * mixed
        np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-6)
