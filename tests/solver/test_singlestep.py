"""The singlestep DPM-Solvers (1S, 2S, 3S, ++ 2S and ++ 3S) against the papers' formulas, diffusers' logic, and exact solutions."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

import diffuse_fast as df
from tests.solver.unguarded import unguarded_plan

PREDICTIONS = ("epsilon", "sample", "v_prediction")
LINEAR, COSINE = df.Schedule.linear(), df.Schedule.cosine()
SOLVERS = {"dpmsolver_1s": 1, "dpmsolver_2s": 2, "dpmsolver_3s": 3, "dpmpp_2s": 2, "dpmpp_3s": 3}
OPTIONS = [("dpmsolver_1s", {}), ("dpmsolver_2s", {}), ("dpmsolver_2s", {"solver_type": "heun"}), ("dpmsolver_3s", {}),
           ("dpmpp_2s", {}), ("dpmpp_2s", {"solver_type": "heun"}), ("dpmpp_3s", {})]  # fmt: skip


class Paper:
    """The papers' variables: α_t, σ_t at a half log-SNR λ, ε_θ and x_θ of the state there."""

    def __init__(self, schedule, network, prediction_type, clip):
        self.schedule, self.network, self.prediction_type, self.clip = schedule, network, prediction_type, clip

    def coefficients(self, lam):
        return np.sqrt(1 / (1 + np.exp(-2 * lam))), np.sqrt(1 / (1 + np.exp(2 * lam)))

    def x_theta(self, x, lam):
        alpha, sigma = self.coefficients(lam)
        output = self.network(x, self.schedule.timestep_at_log_snr(2 * lam))
        if self.prediction_type == "epsilon":
            output = (x - sigma * output) / alpha
        elif self.prediction_type == "v_prediction":
            output = alpha * x - sigma * output
        return output if self.clip is None else np.clip(output, *self.clip)

    def eps_theta(self, x, lam):
        alpha, sigma = self.coefficients(lam)
        return (x - alpha * self.x_theta(x, lam)) / sigma


def naive_step(name, paper, x, lam, lam_next, solver_type="midpoint"):
    """DPM-Solver eq. (3.7), Algorithms 1 and 2; DPM-Solver++ Algorithm 1; the "heun" forms from diffusers; the third order of
    DPM-Solver++ as the authors' code has it."""
    h = lam_next - lam
    (alpha, sigma), (alpha_next, sigma_next) = paper.coefficients(lam), paper.coefficients(lam_next)
    if name == "dpmpp_2s":
        alpha_s, sigma_s = paper.coefficients(lam + h / 2)
        x_t = paper.x_theta(x, lam)
        u = sigma_s / sigma * x - alpha_s * (np.exp(-h / 2) - 1) * x_t
        d_1 = (paper.x_theta(u, lam + h / 2) - x_t) / 0.5
        x_next = sigma_next / sigma * x - alpha_next * (np.exp(-h) - 1) * x_t
        if solver_type == "midpoint":
            return x_next - alpha_next * (np.exp(-h) - 1) * d_1 / 2
        return x_next + alpha_next * ((np.exp(-h) - 1) / h + 1) * d_1
    if name == "dpmpp_3s":
        r1, r2 = 1 / 3, 2 / 3
        (alpha_1, sigma_1), (alpha_2, sigma_2) = paper.coefficients(lam + r1 * h), paper.coefficients(lam + r2 * h)
        phi_11, phi_12, phi_1 = np.expm1(-r1 * h), np.expm1(-r2 * h), np.expm1(-h)
        phi_22, phi_2 = phi_12 / (r2 * h) + 1, phi_1 / h + 1
        x_t = paper.x_theta(x, lam)
        u_1 = sigma_1 / sigma * x - alpha_1 * phi_11 * x_t
        d_1 = paper.x_theta(u_1, lam + r1 * h) - x_t
        u_2 = sigma_2 / sigma * x - alpha_2 * phi_12 * x_t + r2 / r1 * alpha_2 * phi_22 * d_1
        d_2 = paper.x_theta(u_2, lam + r2 * h) - x_t
        return sigma_next / sigma * x - alpha_next * phi_1 * x_t + alpha_next * phi_2 / r2 * d_2
    eps = paper.eps_theta(x, lam)
    x_next = alpha_next / alpha * x - sigma_next * (np.exp(h) - 1) * eps
    if name == "dpmsolver_1s":
        return x_next
    if name == "dpmsolver_2s":
        alpha_s, sigma_s = paper.coefficients(lam + h / 2)
        u = alpha_s / alpha * x - sigma_s * (np.exp(h / 2) - 1) * eps
        d_1 = (paper.eps_theta(u, lam + h / 2) - eps) / 0.5
        if solver_type == "midpoint":
            return x_next - sigma_next * (np.exp(h) - 1) * d_1 / 2
        return x_next - sigma_next * ((np.exp(h) - 1) / h - 1) * d_1
    r1, r2 = 1 / 3, 2 / 3
    (alpha_1, sigma_1), (alpha_2, sigma_2) = paper.coefficients(lam + r1 * h), paper.coefficients(lam + r2 * h)
    u_1 = alpha_1 / alpha * x - sigma_1 * (np.exp(r1 * h) - 1) * eps
    d_1 = paper.eps_theta(u_1, lam + r1 * h) - eps
    u_2 = alpha_2 / alpha * x - sigma_2 * (np.exp(r2 * h) - 1) * eps
    u_2 = u_2 - sigma_2 * r2 / r1 * ((np.exp(r2 * h) - 1) / (r2 * h) - 1) * d_1
    d_2 = paper.eps_theta(u_2, lam + r2 * h) - eps
    return x_next - sigma_next / r2 * ((np.exp(h) - 1) / h - 1) * d_2


@pytest.mark.parametrize("clip", [None, (-0.3, 1.0)])
@pytest.mark.parametrize("prediction_type", PREDICTIONS)
@pytest.mark.parametrize(("name", "options"), OPTIONS)
def test_paper(gaussian, run, laid, name, options, prediction_type, clip):
    rng = np.random.default_rng(0)
    for schedule in (LINEAR, df.Schedule.scaled_linear(), COSINE):
        network = gaussian.network(schedule, prediction_type)
        paper = Paper(schedule, network, prediction_type, clip)
        for steps, spacing in ((1, "trailing"), (2, "linspace"), (5, "leading"), (23, "trailing")):
            if schedule is COSINE and spacing != "leading":
                continue  # it begins with sigma/alpha = 2e4, which the formulas multiply rounding errors with
            grid = laid(schedule, name, spacing, steps)
            plan = unguarded_plan(schedule, name, steps, prediction_type=prediction_type, clip=clip, timesteps=grid, **options)
            lambdas = 0.5 * schedule.log_snr(plan.timesteps[:: SOLVERS[name]])
            x = y = rng.standard_normal((6, 4))
            for lam, lam_next in pairwise(lambdas):
                y = naive_step(name, paper, y, lam, lam_next, **options)
            y = paper.x_theta(y, lambdas[-1])
            np.testing.assert_allclose(run(plan, network, x)[-1], y, rtol=0, atol=1e-9 * max(1, np.abs(y).max()))


@pytest.mark.filterwarnings("ignore:__array:DeprecationWarning")  # NumPy on torch tensors, in diffusers
@pytest.mark.filterwarnings("ignore:.*algorithm_type.*dpmsolver:FutureWarning")
@pytest.mark.parametrize("prediction_type", PREDICTIONS)
@pytest.mark.parametrize("steps", [2, 5, 10, 50])
@pytest.mark.parametrize(("name", "options"), [(name, options) for name, options in OPTIONS if not name.endswith("3s")])
def test_diffusers(gaussian, run, peer_loop, name, options, steps, prediction_type):
    # The peer's logic on our times: its grid is every point at which the network is called, stages included. (Its third order
    # is not the paper's, see the solver's page.)
    import torch
    from diffusers import DPMSolverSinglestepScheduler

    schedule = LINEAR
    plan = unguarded_plan(schedule, name, steps, prediction_type=prediction_type, **options)
    order = SOLVERS[name]
    scheduler = DPMSolverSinglestepScheduler(
        beta_schedule="linear",
        prediction_type=prediction_type,
        solver_order=order,
        lower_order_final=True,
        algorithm_type="dpmsolver++" if name == "dpmpp_2s" else "dpmsolver",
        final_sigmas_type="sigma_min",
        **options,
    )
    scheduler.set_timesteps(plan.nfe)
    sigmas = [schedule.sigma(t) / schedule.alpha(t) for t in plan.timesteps]
    scheduler.sigmas = torch.tensor([*sigmas, 0.0], dtype=torch.float64)
    scheduler.timesteps = torch.tensor(plan.timesteps)
    scheduler.order_list = ([1, 2] if order == 2 else [1]) * ((plan.nfe - 1) // order) + [1]
    scheduler.set_begin_index(0)
    network = gaussian.network(schedule, prediction_type)
    x = np.random.default_rng(1).standard_normal((6, 4))
    ours = run(plan, network, x)
    # without the last step: the ε form of the peer cannot go to σ = 0
    scheduler.timesteps = scheduler.timesteps[:-1]
    theirs = peer_loop(scheduler, network, x, [], torch.float64)
    for one, other in zip(ours[:-1], theirs, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-9 * max(1.0, np.abs(one).max()))


@pytest.mark.parametrize("data", ["gaussian", "mixture"])
@pytest.mark.parametrize(("name", "options"), OPTIONS)
def test_order(request, measured_order, name, options, data):
    counts = [16, 32, 64, 128] if name != "dpmpp_3s" else [32, 64, 128, 256]  # its order is reached later
    order, errors = measured_order(request.getfixturevalue(data), name, counts, "epsilon", **options)
    assert order == pytest.approx(SOLVERS[name], abs=0.2), errors


def test_dpm_solver_1_is_ddim():
    arguments = {"prediction_type": "epsilon", "timestep_spacing": "trailing"}
    one, other = (df.plan(LINEAR, name, 9, **arguments) for name in ("dpmsolver_1s", "ddim"))
    for mine, theirs in zip(one.rows, other.rows, strict=True):
        np.testing.assert_allclose((mine.a, mine.b), (theirs.a, theirs.b), rtol=1e-11, atol=0)


def test_no_state_is_kept_where_one_stage_is_all_there_is():
    for name in SOLVERS:
        assert df.plan(LINEAR, name, 1, prediction_type="epsilon").registers == 0
    schedule = df.Schedule.cosine().rescale_zero_terminal_snr()
    plan = df.plan(schedule, "dpmpp_2s", 3, prediction_type="v_prediction")
    assert [row.write for row in plan.rows] == [None, 0, None, None]


def test_bad_options_are_named():
    with pytest.raises(df.errors.ArgumentError, match=r"solver_type is 'taylor'.*midpoint, heun"):
        df.plan(LINEAR, "dpmpp_2s", 5, prediction_type="epsilon", solver_type="taylor")
