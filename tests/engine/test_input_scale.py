"""Networks that take x0 + (sigma/alpha)·ε and not the state alpha·x0 + sigma·ε, declared by ``input_scale="1/alpha"``."""

from __future__ import annotations

import numpy as np
import pytest

import diffuse_fast as df
from diffuse_fast.errors import ArgumentError, ArtifactError, PlanError

STD = 0.5  # of the data, N(0, STD²)
EDM = df.Schedule.edm()
KNOWN = {"shape": (2,), "schedule": EDM, "prediction_type": "denoised"}


def denoiser(x, t):
    """D(x; σ) of Karras et al. 2022 for this data, x = x0 + σ·ε; it takes log(σ)/4."""
    sigma = np.exp(4.0 * t.astype(np.float64))[:, None]
    return (x * (STD**2 / (STD**2 + sigma**2))).astype(np.float32)


def exact(noise):
    """Where the ODE carries σ_max·noise: its quantile stays the same."""
    return noise * EDM.sigma_max * STD / np.hypot(STD, EDM.sigma_max)


NOISE = np.random.default_rng(0).standard_normal((6, 2)).astype(np.float32)


@pytest.mark.parametrize("solver", ["heun", "dpmpp_2m", "unipc"])
def test_edms_denoiser_is_sampled_to_the_exact_solution(solver):
    x = df.sample(denoiser, 6, 60, solver=solver, noise=NOISE, input_scale="1/alpha", **KNOWN)
    np.testing.assert_allclose(x, exact(NOISE), rtol=5e-3)


def test_a_denoiser_on_a_scaled_state_must_say_what_it_takes():
    with pytest.raises(ArgumentError, match=r"input_scale='1/alpha'.*input_scale='none'"):
        df.sample(denoiser, 2, 5, **KNOWN)
    with pytest.raises(ArgumentError, match="input_scale"):
        df.probability_flow(denoiser, 2, **KNOWN)
    with pytest.raises(ArgumentError, match="input_scale"):
        df.likelihood(denoiser, NOISE, "ode", schedule=EDM, prediction_type="denoised")
    with pytest.raises(ArgumentError, match=r"input_scale is 'c_in'.*1/alpha"):
        df.sample(denoiser, 2, 5, input_scale="c_in", **KNOWN)
    # No doubt where alpha is 1 all the way.
    df.sample(lambda x, t: x * 0, 2, 5, shape=(2,), schedule=df.Schedule.ve_sde(), prediction_type="denoised")


def test_the_state_itself_is_what_it_was():
    def on_the_state(x, t):
        sigma = np.exp(4.0 * t.astype(np.float64))[:, None]
        return denoiser(x / EDM.c_in(sigma), t)

    one, other = (
        df.sample(f, 6, 20, noise=NOISE, input_scale=scale, **KNOWN) for f, scale in ((on_the_state, "none"), (denoiser, "1/alpha"))
    )
    np.testing.assert_allclose(one, other, atol=1e-5)


FAMILIES = {
    "linear": (df.Schedule.linear(), "epsilon", {"timesteps": [999, 700, 400, 150, 20]}),
    "cosine": (df.Schedule.cosine(), "v_prediction", {"timesteps": [950, 700, 400, 150, 20]}),
    "edm": (EDM, "epsilon", {"sigmas": [80, 20, 5, 1, 0.1, 0], "time_convention": "sigma"}),
    "vp_sde": (df.Schedule.vp_sde(), "score", {"timesteps": [1.0, 0.6, 0.3, 0.1, 0.01]}),
    "ve_sde": (df.Schedule.ve_sde(), "epsilon", {"timesteps": [1.0, 0.6, 0.3, 0.1, 0.01], "time_convention": "continuous"}),
    "flow": (df.Schedule.flow(), "flow", {"timesteps": [950, 700, 400, 150, 20]}),
}


def optimal(schedule, prediction_type, takes_by_alpha):
    """The best network for data N(0, STD²), of float64, in the input scale that is asked for."""

    def network(x, t):
        t = t.astype(np.float64)
        alpha, sigma = schedule.alpha(t)[:, None], schedule.sigma(t)[:, None]
        state = x * alpha if takes_by_alpha else x
        variance = (alpha * STD) ** 2 + sigma**2
        eps, x0 = sigma * state / variance, alpha * STD**2 * state / variance
        answer = {"epsilon": eps, "score": -eps / sigma, "v_prediction": alpha * eps - sigma * x0, "flow": eps - x0}
        return answer[prediction_type].astype(np.float32)

    return network


@pytest.mark.parametrize("family", FAMILIES)
def test_every_solver_gives_the_samples_of_the_state(family):
    """With the noise of every row, and stages between the points of the grid."""
    schedule, prediction_type, grid = FAMILIES[family]
    tried = 0
    for solver, record in df.solvers().items():
        # ddim_inverse tells the network the time that it goes to: the state's own alpha is another one.
        if schedule.family not in record.families or solver == "ddim_inverse":
            continue
        try:
            plan = df.plan(schedule, solver, prediction_type=prediction_type, **grid)
        except (ArgumentError, PlanError):  # a solver that takes other grids or predictions
            continue
        expected, got = (
            df.Sampler(optimal(schedule, prediction_type, by), plan, shape=(2,), input_scale=scale).sample(4, seed=3)
            for by, scale in ((False, None), (True, "1/alpha"))
        )
        np.testing.assert_allclose(got, expected, rtol=2e-4, atol=2e-4 * max(1.0, np.abs(expected).max()), err_msg=solver)
        tried += 1
    assert tried >= 3


def test_requests_guidance_and_a_learned_variance_follow():
    schedule = df.Schedule.linear()
    plan = df.plan(schedule, "ddpm", 6, prediction_type="epsilon", variance_type="learned")

    def network(takes_by_alpha):
        best = optimal(schedule, "epsilon", takes_by_alpha)

        def both(x, t, shift):
            output = best(x, t) + 0.1 * shift[:, None].astype(np.float32)
            return np.concatenate([output, np.full_like(output, -3.0)], axis=1)

        return both

    requests = [df.Request(seed=i, cond={"shift": i}, negative_cond={"shift": -1}, guidance_scale=1.5) for i in range(3)]
    expected, got = (
        df.Sampler(network(by), plan, shape=(2,), variance="learned", input_scale=scale).sample_requests(requests)
        for by, scale in ((False, "none"), (True, "1/alpha"))
    )
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)


def test_probability_flow_and_likelihood_follow():
    x, _ = df.probability_flow(denoiser, 6, noise=NOISE, input_scale="1/alpha", **KNOWN)
    np.testing.assert_allclose(x, exact(NOISE), atol=1e-3)
    data = STD * NOISE
    stated = {"schedule": EDM, "prediction_type": "denoised", "input_scale": "1/alpha"}
    found = df.likelihood(denoiser, data, "ode", trace="exact", rtol=1e-4, atol=1e-4, **stated)
    density = -0.5 * (data.astype(np.float64) ** 2 / STD**2 + np.log(2 * np.pi * STD**2))
    np.testing.assert_allclose(found.bits_per_dim, -density.mean(1) / np.log(2), atol=5e-3)

    def on_the_state(x, t):
        return denoiser(x / EDM.c_in(np.exp(4.0 * t.astype(np.float64)))[:, None], t)

    bounds = [
        df.likelihood(f, data, seed=0, steps=20, **{**stated, "input_scale": scale}).bits_per_dim
        for f, scale in ((on_the_state, "none"), (denoiser, "1/alpha"))
    ]
    np.testing.assert_allclose(bounds[0], bounds[1], rtol=1e-4)


def test_a_mapping_says_it_and_a_contradiction_is_refused(small):
    stated = {"sample": "x", "time": "t", "conditioning": {"label": {"null": 4}}}
    schedule, path = df.Schedule.linear(), small(None)
    model = df.load(path, {**stated, "schedule": schedule, "prediction_type": "epsilon", "input_scale": "1/alpha"})
    assert model.input_scale == "1/alpha"
    assert df.load(path, {**stated, "schedule": schedule, "prediction_type": "epsilon"}).input_scale == "none"
    plan = df.plan(schedule, "ddim", 4, prediction_type="epsilon")
    sampler = df.Sampler(model, plan)
    assert sampler.plan == plan.with_input_scale("1/alpha")
    with pytest.raises(ArgumentError, match=r"input_scale is 'none', but this model says '1/alpha'"):
        df.sample(model, 1, 2, input_scale="none")
    with pytest.raises(ArgumentError, match="input_scale"):
        df.load(path, {**stated, "input_scale": "sigma"})
    # Where the mapping leaves it open, the call says it.
    open_ = df.load(path, stated)
    assert open_.input_scale is None
    by = df.sample(open_, 2, 4, seed=0, schedule=schedule, prediction_type="epsilon", input_scale="1/alpha")
    np.testing.assert_array_equal(by, df.sample(model, 2, 4, seed=0))


def test_a_document_says_it(small, document):
    document["input_scale"] = "1/alpha"
    assert df.load(small(document)).input_scale == "1/alpha"
    document["input_scale"] = "sigma"
    with pytest.raises(ArtifactError, match="input_scale"):
        df.load(small(document))


def test_it_is_refused_where_nothing_is_left_of_the_data():
    with pytest.raises(PlanError, match="without any signal"):
        df.sample(
            lambda x, t: x,
            1,
            4,
            shape=(2,),
            schedule=df.Schedule.flow(),
            prediction_type="flow",
            solver="flow_euler",
            input_scale="1/alpha",
        )


def test_plans_that_begin_in_the_middle_and_end_before_the_data_are_the_same():
    schedule = df.Schedule.linear()
    data, noise = 0.4 * NOISE, NOISE[::-1].copy()
    for ends, start in (
        ({"timesteps": [500, 300, 100], "begin": 500}, {"data": data}),
        ({"timesteps": [500, 300, 100], "begin": 500}, {"noise": noise}),
        ({"timesteps": [999, 700], "end": 400}, {"noise": noise}),
    ):
        plan = df.plan(schedule, "ddim", prediction_type="epsilon", **ends)
        expected, got = (
            df.Sampler(optimal(schedule, "epsilon", by), plan, shape=(2,), input_scale=scale).sample(6, seed=3, **start)
            for by, scale in ((False, None), (True, "1/alpha"))
        )
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)
