"""Long steps: no deterministic solver is far worse than DDIM at the same cost, on any schedule and spacing; and what decides it."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest

import diffuse_fast as df
from diffuse_fast.errors import LongStepWarning
from tests.solver import ode_error

FEW = ("linear", "cosine", "EDM", "sub-VP", "VE 1348", "flow shift 3")


def missed(solver, schedules, counts):
    for schedule in schedules:
        for spacing in ode_error.SPACINGS:
            for steps, calls, error, bound in ode_error.measured(solver, schedule, spacing, counts):
                if not error <= bound:
                    yield f"{schedule}, {spacing}, {steps} steps, {calls} calls: {error:.3g}, bound {bound:.3g}"


@pytest.mark.parametrize("solver", ode_error.SOLVERS)
def test_no_solver_is_far_worse_than_ddim(solver):
    assert list(missed(solver, FEW, (2, 3, 4, 7, 10, 25))) == []


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("schedule", ode_error.SCHEDULES)
@pytest.mark.parametrize("solver", ode_error.SOLVERS)
def test_no_solver_is_far_worse_than_ddim_in_full(solver, schedule):
    assert list(missed(solver, [schedule], range(1, 51))) == []


@pytest.mark.parametrize(
    ("solver", "schedule", "spacing", "counts", "times"),
    [
        ("dpmpp_3m", "sub-VP", "beta", range(9, 21), 3.0),
        ("dpmpp_3m", "linear", "karras", [10], 1.0),
        ("dpmpp_3m", "VP", "beta", [20], 1.0),
        ("unipc bh1", "sub-VP", "linspace", range(24, 31), 3.0),
    ],
)
def test_errors_of_past_steps_do_not_grow(solver, schedule, spacing, counts, times):
    """From exact states every step here is short enough. But each is wider than the one before it, the past predictions have
    weights of up to 8, and they are as wrong as the states in which they were made: that gave up to 7 times DDIM's error."""
    for steps, _, error, bound in ode_error.measured(solver, schedule, spacing, counts):
        assert error <= times * (bound - ode_error.FLOOR) / ode_error.FACTOR, steps


def test_the_third_order_with_noise_takes_the_same_steps():
    """The SDE's step extends the same parabola as the ODE's: mean and deviation of its samples, beside those of second order."""

    def off(schedule, solver, steps):
        plan = ode_error.make(schedule, solver, steps, "karras" if schedule == "EDM" else "linspace")
        mean, *moved = ode_error.responses(plan, ode_error.SCHEDULES[schedule])
        deviation = math.hypot(*(x - mean for x in moved))
        return abs(mean - ode_error.MEAN) + abs(deviation - ode_error.DEVIATION)

    for schedule, steps in (("EDM", 6), ("EDM", 10), ("VP", 10), ("VP", 20), ("VP", 50), ("sub-VP", 6), ("sub-VP", 10)):
        third, second = (off(schedule, f"dpmpp_{order}m_sde", steps) for order in (3, 2))
        assert third <= 5.0 * second + 1e-3, (schedule, steps)


def test_the_measure_is_that_of_a_sampled_plan(run):
    """The affine shortcut against all the points run through the rows, and against the exact flow by an integrator."""
    from scipy.integrate import solve_ivp

    schedule, mean, s = df.Schedule.edm(), ode_error.MEAN, ode_error.DEVIATION
    plan = ode_error.make("EDM", "heun", 6, "karras")
    x = plan.initial_scale * ode_error.NOISE

    def network(x, log_snr):
        _, alpha, sigma = schedule.marginal_at_log_snr(log_snr)
        epsilon = sigma * (x - alpha * mean) / (alpha**2 * s**2 + sigma**2)
        kinds = {"from_": "epsilon", "to": "edm", "sigma_data": schedule.sigma_data}
        return df.convert_prediction(epsilon, x, alpha=alpha, sigma=sigma, **kinds)

    def slope(level, y):  # of x/alpha in σ
        return level * (y - mean) / (s**2 + level**2)

    (alpha, sigma), few = plan.marginals[0], slice(0, 64)
    exact = solve_ivp(slope, (sigma / alpha, 0.0), x[few] / alpha, rtol=1e-10, atol=1e-12).y[:, -1]
    sample = run(plan, network, x)[-1]
    flow = mean + s / math.hypot(alpha * s, sigma) * (x - alpha * mean)
    np.testing.assert_allclose(flow[few], exact, rtol=0, atol=1e-7)
    assert ode_error.error(plan, schedule) == pytest.approx(np.sqrt(np.mean((sample - flow) ** 2)), rel=1e-9)


@pytest.mark.parametrize("solver", ["heun", "dpm_2", "dpmsolver_2s", "dpmsolver_3s"])
@pytest.mark.parametrize("steps", [10, 20, 50])
def test_ordinary_plans_keep_every_stage(solver, steps):
    stages = df.solvers()[solver].nfe_per_step
    plan = df.plan(df.Schedule.linear(), solver, steps, prediction_type="epsilon")
    assert plan.nfe == stages * (steps - 1) + 1


def test_the_guard_follows_the_leap_and_not_the_level():
    edm = df.Schedule.edm(0.002, 5000.0)
    kept = lambda *sigmas: [row.write for row in df.plan(edm, "heun", prediction_type="edm", sigmas=[*sigmas, 0.0]).rows]  # noqa: E731
    assert kept(4000.0, 3000.0, 2200.0)[:2] == [0, None]  # far up, short steps
    assert kept(20.0, 0.01)[0] is None  # far below the old limit of 1000, a leap over all that matters
    assert kept(0.3, 0.01)[0] == 0  # the same ratio and more, where the data is nearly seen


@pytest.mark.parametrize(("sigma", "then"), [(80.0, 3.0), (1000.0, 10.0), (4e4, 30.0), (80.0, 10.0), (1000.0, 30.0)])
def test_a_second_stage_may_not_magnify_what_is_unknown_of_the_data(sigma, then):
    """Heun's second prediction has the weight (σ/σ' − 1)/2. It is wrong by s·σ'/n where the state tells nothing more of the data,
    n² = s² + σ'², and that must not move the state by more than n."""
    schedule = df.Schedule.edm(0.002, 1e5)
    n = math.hypot(schedule.sigma_data, then)
    moved = 0.5 * (sigma / then - 1.0) * schedule.sigma_data * then / n
    first = df.plan(schedule, "heun", prediction_type="edm", sigmas=[sigma, then, 0.0]).rows[0]
    assert (first.write is None) == (moved > n)


def test_a_scheduler_keeps_its_rows_with_a_warning():
    config = {"_class_name": "HeunDiscreteScheduler", "beta_schedule": "squaredcos_cap_v2"}
    with pytest.warns(LongStepWarning, match="too long for heun.*df.plan") as told:
        plan = df.Plan.from_diffusers(config, 5)
    assert len(told) == 1
    assert told[0].filename == __file__
    assert plan.nfe == 9  # both stages of every step
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        df.Plan.from_diffusers({**config, "beta_schedule": "linear"}, 20)


@pytest.mark.parametrize(("name", "solver"), [("HeunDiscreteScheduler", "heun"), ("KDPM2DiscreteScheduler", "dpm_2")])
@pytest.mark.filterwarnings("ignore::diffuse_fast.errors.LongStepWarning", "ignore:__array:DeprecationWarning")
def test_long_steps_of_a_scheduler_are_diffusers_own(run, peer_loop, name, solver):
    """Its trajectory from sigma/alpha = 2e4, on our noise levels in float64: every stage of every step."""
    diffusers, torch = pytest.importorskip("diffusers"), pytest.importorskip("torch")
    scheduler = getattr(diffusers, name)(beta_schedule="squaredcos_cap_v2", timestep_spacing="trailing")
    scheduler.set_timesteps(4)
    plan = df.Plan.from_diffusers(scheduler, 4)
    assert plan.nfe == len(scheduler.timesteps) == 7
    levels = [sigma / alpha for alpha, sigma in plan.marginals[:-1]]
    if solver == "heun":
        scheduler.sigmas = torch.tensor([*levels, 0.0], dtype=torch.float64)
    else:
        ends, middles = levels[::2], levels[1::2]
        double = lambda values: [values[0], *np.repeat(values[1:], 2)]  # noqa: E731
        scheduler.sigmas = torch.tensor([*double(ends), 0.0], dtype=torch.float64)
        scheduler.sigmas_interpol = torch.tensor([*double([math.nan, *middles]), 0.0, 0.0], dtype=torch.float64)
    scheduler.timesteps = torch.tensor(plan.timesteps)
    scheduler.set_begin_index(0)

    def network(x, t):
        return np.sin(1.7 * x) * 0.6 + 0.3 * x + 1e-4 * t

    x = np.random.default_rng(0).standard_normal((3, 4))
    ours = run(plan, network, x)
    theirs = peer_loop(scheduler, network, x / plan.marginals[0][0], [], torch.float64)
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-9 * max(1.0, np.abs(one).max()))
