"""Every solver on every family of schedules, prediction type and step count: the plan is finite and keeps the marginal that it
declares, or the pair makes no sense and is refused."""

from __future__ import annotations

import itertools

import pytest

import diffuse_fast as df
from diffuse_fast.errors import ArgumentError, PlanError

SCHEDULES = {
    "linear": df.Schedule.linear(),
    "cosine": df.Schedule.cosine(),
    "short": df.Schedule.linear(60, 0.001, 0.2),
    "zero SNR": df.Schedule.scaled_linear().rescale_zero_terminal_snr(),
    "edm": df.Schedule.edm(sigma_data=0.7),
    "flow": df.Schedule.flow(shift=2.0),
    "vp_sde": df.Schedule.vp_sde(),
    "sub_vp_sde": df.Schedule.sub_vp_sde(),
    "ve_sde": df.Schedule.ve_sde(),
}
# What changes a table besides the defaults.
OPTIONS = {
    "consistency": [{"s_noise": 1.01}],
    "ddim": [{"eta": 1.0}, {"eta": 0.4, "rederive_epsilon": True}],
    "ddpm": [{"variance_type": "fixed_large"}, {"variance_type": "learned_range"}],
    "deis": [{"solver_order": 3, "final_sigmas_type": "zero"}, {"final_sigmas_type": "sigma_min"}],
    "dpm_2": [{"eta": 1.0}, {"eta": 2.0}],
    "dpmpp_2m": [{"solver_type": "heun"}],
    "dpmpp_2m_sde": [{"eta": 0.5}],
    "dpmpp_2s": [{"solver_type": "heun"}],
    "dpmpp_3m": [{"halved_curvature": True, "lower_order_final": False}],
    "dpmpp_3m_sde": [{"eta": 0.5}],
    "dpmsolver_2s": [{"solver_type": "heun"}],
    "dpmsolver_singlestep": [
        {"solver_order": 3}, {"solver_order": 3, "algorithm_type": "dpmsolver", "solver_type": "heun"},
        {"solver_order": 3, "algorithm_type": "sde-dpmsolver++"}, {"solver_order": 2, "algorithm_type": "sde-dpmsolver++"},
    ],
    "euler": [{"s_churn": 5.0, "s_tmax": 10.0, "s_noise": 1.007}],
    "euler_ancestral": [{"eta": 0.5}, {"eta": 3.0}],
    "flow_euler": [{"stochastic_sampling": True}],
    "ipndm": [{"zero_initial_data": True, "solver_order": 2}],
    "heun": [{"s_churn": 5.0, "s_tmax": 10.0, "s_noise": 1.0}, {"s_churn": 5.0, "s_tmax": 10.0, "s_noise": 1.007}],
    "langevin_pc": [{"correct_steps": 0}, {"correct_steps": 3}],
    "lcm": [{"timestep_scaling": 0.003}],
    "lms": [{"solver_order": 2}],
    "pndm": [{"skip_prk_steps": True}, {"set_alpha_to_one": True}, {"set_alpha_to_one": False}],
    "tcd": [{"eta": 0.0, "set_alpha_to_one": True}, {"eta": 1.0}],
    "unipc": [
        {"solver_order": 3, "solver_type": "bh1"}, {"predict_x0": False}, {"disable_corrector": range(50)},
        {"disable_corrector": [0, 2]},
    ],
}  # fmt: skip
# Of which the first step needs signal: they step in ε, in sigma/alpha, or along log(alpha).
NEED_SIGNAL = {"deis", "dpmsolver_2m", "dpmsolver_3m", "euler_maruyama", "langevin_pc", "lms", "pndm"}
DEVIATE = {"consistency", "euler_maruyama", "langevin_pc", "lcm"}
STEPS = (1, 2, 3, 5, 10, 50)
# A clamp that does nothing keeps the rows unfolded.
CLIPS = (None, (-1e300, 1e300))


def refusal(solver, options, schedule, prediction_type, steps):
    """What a senseless pair is told; None where it makes sense."""
    if schedule.family not in df.solvers()[solver].families:
        return "is for schedules of the families"
    if solver == "langevin_pc" and prediction_type not in ("epsilon", "score"):
        return "proportional to"
    if solver == "ddim_inverse" and prediction_type in ("sample", "denoised", "score"):
        return "carries no information about the noise"
    silent = schedule.alpha(schedule.t_max) == 0.0
    if silent and prediction_type in ("epsilon", "score"):
        return "zero signal"
    if schedule.family != "discrete" and options.get("set_alpha_to_one") is False:
        return "ends at timestep 0, which the family"
    if solver == "pndm" and not options.get("skip_prk_steps") and steps < 4:
        return "Runge-Kutta start takes 3 steps"
    in_noise = not options.get("predict_x0", True) or options.get("algorithm_type") == "dpmsolver"
    if silent and (solver in NEED_SIGNAL or in_noise):
        return "signal"
    if solver == "pndm" and not options.get("skip_prk_steps") and schedule.family == "discrete":
        count = schedule.num_train_timesteps
        start = [round(count - i * (count / steps)) for i in range(4)]
        if any(now - then < 2 for now, then in itertools.pairwise(start)):
            return "Runge-Kutta start calls the network halfway"
    return None


def deviates(plan, options):
    """Whether a perfect prediction does not land on the next marginal."""
    noisier = plan.stochastic and options.get("s_noise", 1.0) != 1.0
    if options.get("zero_initial_data"):
        return plan.marginals[0][0] == 0.0
    return plan.solver in DEVIATE or options.get("variance_type") == "fixed_large" or noisier


def check(solver, options, schedule, steps, assert_declared_marginals):
    # From the noisiest timestep on, so that all of the schedule is there.
    spacing = {"timestep_spacing": "trailing"} if schedule.family == "discrete" else {}
    for prediction_type, count in itertools.product(schedule.prediction_types, steps):
        reason = refusal(solver, options, schedule, prediction_type, count)
        for clip in CLIPS if count % 5 else CLIPS[:1]:
            arguments = {"prediction_type": prediction_type, "clip": clip, **spacing, **options}
            if reason is not None:
                with pytest.raises((ArgumentError, PlanError), match=reason):
                    df.plan(schedule, solver, count, **arguments)
                continue
            plan = df.plan(schedule, solver, count, **arguments)  # which refuses what is not finite
            assert plan.steps == count
            assert plan.exact_marginal != deviates(plan, options)
            assert_declared_marginals(plan, schedule.sigma_data)
            if count == 5:
                assert df.Plan.from_json(plan.to_json()) == plan


@pytest.mark.parametrize("family", SCHEDULES)
@pytest.mark.parametrize("solver", df.solvers())
def test_plans_keep_the_marginals_they_declare(solver, family, assert_declared_marginals):
    for options in ({}, *OPTIONS.get(solver, [])):
        check(solver, options, SCHEDULES[family], STEPS, assert_declared_marginals)


@pytest.mark.slow
@pytest.mark.parametrize("family", SCHEDULES)
@pytest.mark.parametrize("solver", df.solvers())
def test_plans_of_every_step_count(solver, family, assert_declared_marginals):
    for options in ({}, *OPTIONS.get(solver, [])):
        check(solver, options, SCHEDULES[family], range(1, 51), assert_declared_marginals)
