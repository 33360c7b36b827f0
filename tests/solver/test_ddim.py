"""DDIM against the paper's formulas, diffusers, and the exact solution for a Gaussian."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import diffuse_fast as df

PREDICTIONS = ("epsilon", "sample", "v_prediction")


def naive(schedule, plan, network, x, noises, eta, final_alpha_cumprod=1.0, clip=None, rederive=False):
    """Equations (12) and (16) of the paper as they stand, for its α (= alphas_cumprod)."""
    a_bar = [schedule.alpha(t) ** 2 for t in plan.timesteps] + [final_alpha_cumprod]
    for i, t in enumerate(plan.timesteps):
        a, a_next, output = a_bar[i], a_bar[i + 1], network(x, t)
        if plan.prediction_type == "epsilon":
            eps = output
            x0 = (x - np.sqrt(1 - a) * eps) / np.sqrt(a)
        elif plan.prediction_type == "sample":
            x0 = output
            eps = (x - np.sqrt(a) * x0) / np.sqrt(1 - a)
        else:
            x0 = np.sqrt(a) * x - np.sqrt(1 - a) * output
            eps = np.sqrt(a) * output + np.sqrt(1 - a) * x
        if clip is not None:
            x0 = np.clip(x0, *clip)
        if rederive:
            eps = (x - np.sqrt(a) * x0) / np.sqrt(1 - a)
        s = eta * np.sqrt((1 - a_next) / (1 - a)) * np.sqrt(1 - a / a_next)
        x = np.sqrt(a_next) * x0 + np.sqrt(max(1 - a_next - s**2, 0)) * eps + s * noises[i]
    return x


def tolerance(plan, eta):
    # At eta = 1 and no signal sigma'² − s² is 0; the formulas as they stand leave ±EPS there, whose root is 1.5e-8.
    return 1e-7 if eta == 1.0 and plan.marginals[0][0] == 0.0 else 1e-9


def draw(steps, seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((6, 4)), rng.standard_normal((steps, 6, 4))


@pytest.mark.parametrize("clip", [None, (-0.3, 1.0)])
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("prediction_type", PREDICTIONS)
@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
def test_paper(schedule, gaussian, run, laid, spacing, prediction_type, eta, clip):
    for steps in (1, 2, 5, 23):
        for rederive in (None, False, True):
            arguments = {"prediction_type": prediction_type, "timesteps": laid(schedule, "ddim", spacing, steps), "clip": clip}
            options = {"eta": eta, "rederive_epsilon": rederive}
            try:
                plan = df.plan(schedule, "ddim", steps, **arguments, **options)
            except df.errors.PlanError:  # rightly: test_epsilon_at_zero_signal_is_refused
                assert prediction_type == "epsilon"
                assert schedule.alpha(schedule.num_train_timesteps - 1) == 0
                continue
            x, noises = draw(steps)
            network = gaussian.network(schedule, prediction_type)
            found = run(plan, network, x, noises)[-1]
            rederived = clip is not None if rederive is None else rederive
            exact = naive(schedule, plan, network, x, noises, eta, clip=clip, rederive=rederived)
            np.testing.assert_allclose(found, exact, rtol=0, atol=tolerance(plan, eta) * max(1.0, np.abs(exact).max()))


def test_paper_at_custom_timesteps_and_a_final_alpha(gaussian, run):
    schedule = df.Schedule.linear()
    network = gaussian.network(schedule)
    x, noises = draw(5)
    plan = df.plan(
        schedule, "ddim", prediction_type="epsilon", timesteps=[950.25, 700, 333.3, 12, 0.5], eta=0.8, set_alpha_to_one=False
    )
    exact = naive(schedule, plan, network, x, noises, 0.8, final_alpha_cumprod=schedule.alphas_cumprod[0])
    np.testing.assert_allclose(run(plan, network, x, noises)[-1], exact, rtol=0, atol=1e-9)
    assert plan.marginals[-1] == (schedule.alpha(0), schedule.sigma(0))


PEERS = [
    {"timestep_spacing": "leading"},
    {"timestep_spacing": "leading", "steps_offset": 1, "set_alpha_to_one": False},
    {"timestep_spacing": "leading", "set_alpha_to_one": False},
    {"timestep_spacing": "trailing"},
    {"timestep_spacing": "trailing", "rescale_betas_zero_snr": True},
    # "linspace" is not here: diffusers takes its previous timestep from T // steps instead of from the grid.
]
BETAS = {
    "linear": (df.Schedule.linear(), {"beta_schedule": "linear"}),
    "scaled": (df.Schedule.scaled_linear(),
               {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}),
    "cosine": (df.Schedule.cosine(), {"beta_schedule": "squaredcos_cap_v2"}),
}  # fmt: skip


@pytest.mark.parametrize("clip", [None, 1.0])
@pytest.mark.parametrize("prediction_type", PREDICTIONS)
@pytest.mark.parametrize("peer", PEERS, ids=lambda p: "-".join(map(str, p.values())))
@pytest.mark.parametrize("betas", list(BETAS))
def test_diffusers(gaussian, run, diffusers_loop, laid, betas, peer, prediction_type, clip):
    import torch
    from diffusers import DDIMScheduler

    schedule, config = BETAS[betas]
    zero_snr = peer.get("rescale_betas_zero_snr", False)
    if zero_snr:
        schedule = schedule.rescale_zero_terminal_snr()
        if prediction_type == "epsilon":
            pytest.skip("epsilon at zero signal-to-noise ratio is refused")
    options = {"set_alpha_to_one": peer.get("set_alpha_to_one", True)}
    network = gaussian.network(schedule, prediction_type)
    for steps, eta, rederive in ((1, 0.0, False), (2, 1.0, True), (5, 0.0, True), (10, 0.7, False), (50, 0.0, False)):
        grid = laid(schedule, "ddim", peer["timestep_spacing"], steps, steps_offset=peer.get("steps_offset", 0))
        plan = df.plan(
            schedule,
            "ddim",
            prediction_type=prediction_type,
            clip=clip and (-clip, clip),
            eta=eta,
            timesteps=grid,
            rederive_epsilon=rederive,
            **options,
        )
        x, noises = draw(steps)
        states = run(plan, network, x, noises)
        scheduler = DDIMScheduler(
            **config, **peer, prediction_type=prediction_type, clip_sample=clip is not None, clip_sample_range=clip or 1.0
        )
        step = {"eta": eta, "use_clipped_model_output": rederive}
        # As it is, in float32, judged at the trajectory's own size. Its cosine table takes alphas_cumprod at the end
        # from 1 − float32(0.999), off by 3e-5 relatively; and epsilon's own rounding has weight 1/alpha, 2e4 there and 157 at
        # the end of the linear table.
        amplified = 2**-22 / plan.marginals[0][0] if prediction_type == "epsilon" else 0.0
        float32 = max(1e-5 if betas != "cosine" else 1e-4, amplified)
        theirs = diffusers_loop(scheduler, steps, network, x, noises, torch.float32, **step)
        for ours, other in zip(states, theirs, strict=True):
            assert np.abs(ours - other).max() < float32 * max(1.0, np.abs(ours).max())
        # And its logic alone, on our tables in float64.
        scheduler.alphas_cumprod = torch.tensor(schedule.alphas_cumprod)
        if not options["set_alpha_to_one"]:
            scheduler.final_alpha_cumprod = scheduler.alphas_cumprod[0]
        theirs = diffusers_loop(scheduler, steps, network, x, noises, torch.float64, **step)
        for ours, other in zip(states, theirs, strict=True):
            np.testing.assert_allclose(ours, other, rtol=0, atol=tolerance(plan, eta) * max(1.0, np.abs(ours).max()))


@pytest.mark.parametrize("prediction_type", PREDICTIONS)
def test_order_1_on_an_exact_gaussian(gaussian, run, prediction_type):
    schedule = df.Schedule.linear()
    network = gaussian.network(schedule, prediction_type)
    high, low = schedule.log_snr(5), schedule.log_snr(990)
    ends = [(schedule.alpha(t), schedule.sigma(t)) for t in (990, 5)]
    x = gaussian.marginal(*ends[0])[0] + np.linspace(-2, 2, 9)[:, None]
    exact = gaussian.flow(x, *ends[0], *ends[1])
    counts, errors = [16, 32, 64, 128, 256], []
    for count in counts:
        grid = schedule.timestep_at_log_snr(np.linspace(low, high, count + 1))
        grid[[0, -1]] = 990, 5
        plan = df.plan(schedule, "ddim", prediction_type=prediction_type, timesteps=grid)
        errors.append(np.abs(run(plan, network, x)[-2] - exact).max())  # the state at t = 5, before the last row
    order = -np.polyfit(np.log(counts), np.log(errors), 1)[0]
    assert order == pytest.approx(1.0, abs=0.2), errors


def test_rederived_epsilon_is_the_network_s_where_nothing_is_clipped():
    arguments = {"prediction_type": "v_prediction", "timestep_spacing": "trailing", "eta": 0.3}
    kept, rederived = (df.plan(df.Schedule.cosine(), "ddim", 7, **arguments, rederive_epsilon=flag) for flag in (False, True))
    for one, other in zip(kept.rows, rederived.rows, strict=True):
        np.testing.assert_allclose((one.a, one.b, one.d, one.s), (other.a, other.b, other.d, other.s), rtol=0, atol=1e-12)


def test_without_clipping_there_is_no_data_prediction():
    plan = df.plan(df.Schedule.linear(), "ddim", 5, prediction_type="epsilon")
    assert all(row.d == row.p == row.q == 0.0 for row in plan.rows)
    clipped = df.plan(df.Schedule.linear(), "ddim", 5, prediction_type="epsilon", clip=(-1, 1), rederive_epsilon=False)
    assert all((row.lo, row.hi, row.a) == (-1.0, 1.0, 0.0) for row in clipped.rows)


def test_noise_only_where_eta_asks_for_it():
    arguments = {"prediction_type": "epsilon"}
    assert not df.plan(df.Schedule.linear(), "ddim", 5, **arguments).stochastic
    rows = df.plan(df.Schedule.linear(), "ddim", 5, **arguments, eta=1.0).rows
    assert [row.stochastic for row in rows] == [True] * 4 + [False]


@settings(derandomize=True, deadline=None, max_examples=40)
@given(data=st.data())
def test_plans_are_finite_and_keep_their_marginals(data, assert_declared_marginals):
    steps = data.draw(st.integers(1, 60))
    schedule = data.draw(
        st.sampled_from(
            [
                df.Schedule.linear(),
                df.Schedule.cosine(),
                df.Schedule.scaled_linear(400),
                df.Schedule.sigmoid(60),
                df.Schedule.quadratic(60, 1e-9, 0.5),
                df.Schedule.cosine(100).rescale_zero_terminal_snr(),
            ]
        )
    )
    prediction_type = data.draw(st.sampled_from(PREDICTIONS))
    last = schedule.num_train_timesteps - 1 - (schedule.alpha(schedule.num_train_timesteps - 1) == 0)
    fractions = data.draw(st.lists(st.integers(0, 10**6), min_size=steps, max_size=steps, unique=True))
    plan = df.plan(
        schedule,
        "ddim",
        prediction_type=prediction_type,
        timesteps=np.sort(fractions)[::-1] * last / 10**6,
        clip=data.draw(st.sampled_from([None, (-1e300, 1e300)])),
        eta=data.draw(st.sampled_from([0.0, 0.3, 1.0])),
        set_alpha_to_one=data.draw(st.booleans()),
        rederive_epsilon=data.draw(st.booleans()),
    )
    assert plan.exact_marginal
    assert plan.nfe == plan.steps == len(plan.rows) == steps
    assert df.Plan.from_json(plan.to_json()) == plan
    assert_declared_marginals(plan)


def test_eta_beyond_what_the_marginal_allows_is_refused():
    with pytest.raises(df.errors.ArgumentError, match="eta is 3"):
        df.plan(df.Schedule.linear(), "ddim", 5, prediction_type="epsilon", eta=3)
