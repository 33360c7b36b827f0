"""Plans that begin in the middle of the schedule, and plans that end before the data."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest

import diffuse_fast as df
from diffuse_fast.errors import ArgumentError, ArgumentTypeError

LINEAR, EDM, FLOW, VP = df.Schedule.linear(), df.Schedule.edm(), df.Schedule.flow(), df.Schedule.vp_sde()
PREDICTION = {"edm": "edm", "flow": "flow"}
SOLVERS = [name for name in df.solvers() if name != "ddim_inverse"]
ODES = [name for name in SOLVERS if not df.solvers()[name].stochastic and not name.startswith("flow_") and name != "ddpm"]
TWO_STAGES = ("dpm_2", "heun", "dpmsolver_1s", "dpmsolver_2s", "dpmsolver_3s", "dpmpp_2s", "dpmpp_3s")


NEED_SIGNAL = ("lms", "deis", "dpmsolver_2m", "dpmsolver_3m", "euler_maruyama", "pndm")


def plan_of(schedule, solver, steps=None, **options):
    if schedule is FLOW and solver in NEED_SIGNAL:
        options.setdefault("begin", 990.0)
    return df.plan(schedule, solver, steps, prediction_type=PREDICTION.get(schedule.family, "epsilon"), **options)


@pytest.mark.parametrize("solver", SOLVERS)
def test_every_solver_ends_at_the_given_end(solver, assert_declared_marginals):
    """A perfect prediction lands on the marginal at the end, or deviates from it as the plan declares."""
    ends = {LINEAR: 30.0, EDM: 0.05, FLOW: 40.0, VP: 0.02}
    for schedule, end in ends.items():
        if schedule.family not in df.solvers()[solver].families or (solver in ("lcm", "tcd") and schedule is not LINEAR):
            continue
        if solver == "langevin_pc" and schedule in (EDM, FLOW):
            continue  # it samples from a score
        plan = plan_of(schedule, solver, 20, end=end)
        alpha, sigma = schedule.alpha(end), schedule.sigma(end)
        if schedule is EDM:  # as its users know it: x0 + σ·ε
            alpha, sigma = 1.0, end
        np.testing.assert_allclose(plan.marginals[-1], (alpha, sigma), rtol=1e-12)
        assert dict(plan.options)["end"] == end and df.Plan.from_json(plan.to_json()) == plan
        assert_declared_marginals(plan, sigma_data=schedule.sigma_data)


@pytest.mark.parametrize("solver", ODES)
def test_an_early_end_is_on_the_exact_path(solver, gaussian, run):
    """The ODE's exact solution for Gaussian data, from the noisiest time to a sigma/alpha of about 0.5, where the data is far."""
    network, end = gaussian.network(LINEAR), 150.0
    x = np.random.default_rng(0).standard_normal((64, 4))
    errors = []
    for steps in (30, 120):
        plan = plan_of(LINEAR, solver, steps, end=end, timestep_spacing="trailing")
        exact = gaussian.flow(x, *plan.marginals[0], LINEAR.alpha(end), LINEAR.sigma(end))
        errors.append(np.sqrt(np.mean((run(plan, network, x)[-1] - exact) ** 2)))
    assert errors[1] < 0.02
    assert errors[1] < errors[0] / 3  # of first order it is a quarter


@pytest.mark.parametrize("solver", [*TWO_STAGES, "ddim", "euler", "consistency"])
def test_two_partial_plans_make_the_full_plan(solver):
    """Solvers without a memory: the rows of a run that ends at 500, and of one that begins there."""
    whole, first, second = (
        plan_of(LINEAR, solver, 10, timestep_spacing="linspace", **ends) for ends in ({}, {"end": 555.0}, {"begin": 555.0})
    )
    if df.solvers()[solver].grid == "open":
        whole, first, second = (
            plan_of(LINEAR, solver, timesteps=np.linspace(999, 0, 10), **ends) for ends in ({}, {"end": 555.0}, {"begin": 555.0})
        )
    assert first.rows + second.rows == whole.rows
    assert first.marginals[:-1] + second.marginals == whole.marginals
    assert second.initial_scale == 1.0


def test_two_parts_of_edm_meet_in_its_own_scale(run):
    """The result of the first part is x0 + σ·ε, and so is what the second starts from."""
    levels = [80.0, 20.0, 4.0, 0.7, 0.1, 0.0]

    def network(x, t):  # of data N(0, 1): F for the prediction D = x/(1 + σ²)
        sigma = math.exp(4.0 * t)
        x = x * math.hypot(sigma, 0.5)
        return (x / (1.0 + sigma**2) - EDM.c_skip(sigma) * x) / EDM.c_out(sigma)

    for solver in ("heun", "dpm_2", "dpmpp_2s", "dpmpp_3s", "euler"):
        whole = plan_of(EDM, solver, sigmas=levels)
        first = plan_of(EDM, solver, sigmas=levels[:4], end="last")
        second = plan_of(EDM, solver, sigmas=levels, begin=0.7)
        assert first.marginals[-1] == pytest.approx((1.0, 0.7), rel=1e-12)
        assert first.nfe + second.nfe == whole.nfe
        x = np.random.default_rng(0).standard_normal((3, 4))
        middle = run(first, network, x * first.initial_scale)[-1]
        again = run(second, network, middle * second.initial_scale)[-1]
        np.testing.assert_allclose(again, run(whole, network, x * whole.initial_scale)[-1], rtol=1e-11, atol=1e-12)


def test_stopping_at_the_last_sigma_is_k_diffusions(run):
    """``sample_euler`` of k-diffusion on a list that does not end in 0, in its own variables: x0 + σ·ε and the denoiser."""
    sigmas = [14.0, 6.0, 2.5, 0.8]

    def denoised(x, sigma):  # of data N(0.3, 0.25)
        return (x * 0.25 + 0.3 * sigma**2) / (0.25 + sigma**2)

    x = x_k = 14.0 * np.random.default_rng(0).standard_normal((3, 4))
    for sigma, after in pairwise(sigmas):
        x_k = x_k + (after - sigma) * (x_k - denoised(x_k, sigma)) / sigma

    def network(x, t):
        alpha, sigma = LINEAR.alpha(t), LINEAR.sigma(t)
        return (x - alpha * denoised(x / alpha, sigma / alpha)) / sigma

    plan = plan_of(LINEAR, "euler", sigmas=sigmas, end="last")
    assert plan.nfe == plan.steps == 3
    alpha, sigma = plan.marginals[-1]
    assert sigma / alpha == pytest.approx(0.8, rel=1e-12)
    np.testing.assert_allclose(run(plan, network, x * plan.marginals[0][0])[-1] / alpha, x_k, rtol=1e-11)
    assert plan_of(LINEAR, "euler", 4, sigmas=sigmas, end="data").rows == plan_of(LINEAR, "euler", sigmas=[*sigmas, 0]).rows
    # A last 0 is the data also with a solver that ends at timestep 0 by default.
    assert plan_of(LINEAR, "pndm", sigmas=[*sigmas, 0], skip_prk_steps=True).marginals[-1] == (1.0, 0.0)
    assert plan_of(LINEAR, "ddim", 20, end="data") != plan_of(LINEAR, "ddim", 20, end=0)
    # At timestep 0, without the call there: the step from it would have no width.
    assert plan_of(LINEAR, "ddim", 20, end=0).rows == plan_of(LINEAR, "ddim", 20, set_alpha_to_one=False).rows[:-1]


@pytest.mark.parametrize("solver", ["euler", "dpmpp_2m", "dpmpp_2m_sde", "unipc", "ipndm", "dpmsolver_singlestep"])
@pytest.mark.parametrize("schedule", [EDM, FLOW, VP], ids=lambda s: s.family)
def test_sigma_min_is_an_end_of_every_family(solver, schedule, assert_declared_marginals):
    plan = plan_of(schedule, solver, 12, final_sigmas_type="sigma_min")
    end = (1.0, schedule.sigma_min) if schedule is EDM else (schedule.alpha(schedule.t_min), schedule.sigma(schedule.t_min))
    np.testing.assert_allclose(plan.marginals[-1], end, rtol=1e-12)
    assert_declared_marginals(plan, sigma_data=schedule.sigma_data)


def test_edm_with_sigma_min_is_that_of_diffusers(run):
    import torch
    from diffusers import EDMEulerScheduler

    scheduler = EDMEulerScheduler(final_sigmas_type="sigma_min")
    scheduler.set_timesteps(8)
    plan = df.Plan.from_diffusers(scheduler, 8)
    x = np.random.default_rng(0).standard_normal((2, 5))
    theirs = torch.tensor(x * math.hypot(80.0, 1.0))
    for t in scheduler.timesteps:
        output = torch.tanh(scheduler.scale_model_input(theirs, t)) * 0.5
        theirs = scheduler.step(output, t, theirs).prev_sample
    ours = run(plan, lambda x, t: np.tanh(x) * 0.5, x * plan.initial_scale)[-1]
    np.testing.assert_allclose(ours, theirs.numpy(), rtol=1e-4, atol=1e-4)


def test_begin_keeps_the_grid():
    whole = plan_of(LINEAR, "ddim", 50)
    plan = plan_of(LINEAR, "ddim", 50, begin=600)
    assert plan.timesteps.tolist() == whole.timesteps[whole.timesteps <= 600].tolist()
    assert plan.starts_from_data and not whole.starts_from_data and plan.steps == plan.nfe == 31
    assert plan_of(LINEAR, "ddim", 50, begin=610.5).timesteps[:2].tolist() == [610.5, 600.0]
    # Leading spacing may start there, as the state is no noise.
    assert plan_of(LINEAR, "ddim", 4, begin=750, timestep_spacing="leading").timesteps.tolist() == [750.0, 500.0, 250.0, 0.0]
    assert plan_of(LINEAR, "ddim", 4, begin=750).timesteps.tolist() == [750.0, 500.0, 250.0, 0.0]
    level = EDM.timestep_at_noise_level(3.0)
    assert plan_of(EDM, "heun", 18, begin=level).marginals[0] == (EDM.alpha(3.0), EDM.sigma(3.0))


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        ({"sigmas": [3.0, 1.0]}, ArgumentError, r"ends in 1\.0.*end='data'.*end='last'"),
        ({"sigmas": [3.0, 1.0, 0.0], "end": 5.0}, ArgumentError, "ends in 0, which is the data, but end is 5.0"),
        ({"sigmas": [3.0], "end": "last"}, ArgumentError, "at least one noise level must come before"),
        ({"sigmas": [3.0, 2.0, 1.0], "steps": 3, "end": "last"}, ArgumentError, "steps is 3, but sigmas has 2"),
        ({"timesteps": [30, 10], "end": "last"}, ArgumentError, "the last of sigmas"),
        ({"steps": 10, "end": "last"}, ArgumentError, "the last of sigmas"),
        ({"steps": 10, "end": "zero"}, ArgumentError, "end is 'zero'; it must be 'data', 'last'.*or a time"),
        ({"steps": 10, "end": True}, ArgumentTypeError, "end is True; it must be a time"),
        ({"steps": 10, "begin": [600]}, ArgumentTypeError, r"begin is \[600\]; it must be a time"),
        ({"steps": 10, "begin": 1000}, ArgumentError, "begin is 1000: .*from 0 to 999"),
        ({"steps": 10, "end": -1}, ArgumentError, "end is -1: .*from 0 to 999"),
        ({"steps": 10, "end": 950}, ArgumentError, "first call is at time 900, but end is 950; it must be below"),
        ({"steps": 10, "begin": 200, "end": 200}, ArgumentError, "first call is at time 200, but end is 200"),
        ({"steps": 10, "end": 50, "set_alpha_to_one": False}, ArgumentError, "end and set_alpha_to_one both determine"),
        ({"steps": 10, "end": "data", "solver": "unipc", "final_sigmas_type": "zero"}, ArgumentError, "end and final_sigmas_type"),
        ({"steps": 10, "end": 50, "solver": "ddim_inverse"}, ArgumentError, "from data to noise"),
        ({"schedule": FLOW, "sigmas": [0.9, 1e-6], "prediction_type": "flow", "solver": "euler", "final_sigmas_type": "sigma_min"},
         ArgumentError, "less noise than time 1, the end of the plan"),
    ],
)  # fmt: skip
def test_bad_ends_are_named(arguments, error, says):
    with pytest.raises(error, match=says):
        df.plan(**{"schedule": LINEAR, "solver": "ddim", "prediction_type": "epsilon", **arguments})
