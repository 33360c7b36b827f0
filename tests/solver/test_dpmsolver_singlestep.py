"""The singlestep DPM-Solvers on the grid's own stages, against diffusers' logic in float64, the integrals they stand for, and exact
solutions."""

from __future__ import annotations

import numpy as np
import pytest

import diffuse_fast as df
from diffuse_fast.errors import PlanError
from tests.solver.unguarded import unguarded_plan

LINEAR = df.Schedule.linear()
ALGORITHMS = ("dpmsolver++", "dpmsolver", "sde-dpmsolver++")
pytestmark = [
    pytest.mark.filterwarnings("ignore:__array:DeprecationWarning"),  # NumPy on torch tensors, in diffusers
    pytest.mark.filterwarnings("ignore:.*algorithm_type.*dpmsolver:FutureWarning"),
]


@pytest.mark.parametrize("lower_order_final", [False, True])
@pytest.mark.parametrize("solver_type", ["midpoint", "heun"])
@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("algorithm_type", ALGORITHMS)
def test_diffusers_logic_in_float64(gaussian, run, peer_loop, algorithm_type, order, solver_type, lower_order_final):
    import torch
    from diffusers import DPMSolverSinglestepScheduler

    if (algorithm_type, order, solver_type) == ("sde-dpmsolver++", 3, "heun"):
        return  # its parabola has a sign wrong: test_the_parabola_with_noise
    options = {"algorithm_type": algorithm_type, "solver_order": order, "solver_type": solver_type,
               "lower_order_final": lower_order_final, "final_sigmas_type": "sigma_min"}  # fmt: skip
    network = gaussian.network(LINEAR)
    for steps in (1, 2, 3, 4, 5, 6, 10, 50):
        plan = unguarded_plan(LINEAR, "dpmsolver_singlestep", steps, prediction_type="epsilon", **options)
        rng = np.random.default_rng(steps)
        x, noises = rng.standard_normal((6, 4)), rng.standard_normal((steps, 6, 4))
        scheduler = DPMSolverSinglestepScheduler(**options)
        scheduler.set_timesteps(steps)
        scheduler.sigmas = torch.tensor([LINEAR.noise_level(t) for t in (*plan.timesteps, 0.0)], dtype=torch.float64)
        scheduler.timesteps = torch.tensor(plan.timesteps)
        theirs = peer_loop(scheduler, network, x, noises, torch.float64)
        of_rows = iter(noises)
        ours = run(plan, network, x, [next(of_rows) if row.calls_network else None for row in plan.rows])
        ours = [state for state, row in zip(ours, plan.rows, strict=False) if row.calls_network] + ours[-1:]
        for one, other in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(one, other, rtol=0, atol=1e-9 * max(1.0, np.abs(one).max()))


def test_the_parabola_with_noise(run):
    """E[x'] of the third step, by quadrature: alpha'·∫ 2·e^(−2(h−τ))·x0(τ) dτ, with the parabola through the three predictions."""
    from scipy.integrate import quad
    from scipy.interpolate import lagrange

    times = [900.0, 700.0, 400.0, 100.0]
    plan = unguarded_plan(
        LINEAR,
        "dpmsolver_singlestep",
        prediction_type="sample",
        timesteps=times,
        solver_order=3,
        solver_type="heun",
        algorithm_type="sde-dpmsolver++",
    )
    lam = 0.5 * LINEAR.log_snr(np.array(times))
    data = dict(zip(times, (0.3, -0.7, 1.1, 0.0), strict=True))
    states = run(plan, lambda x, t: np.full(1, data[t]), np.array([0.4]), [np.zeros(1)] * 5)
    parabola, h = lagrange(lam[:3] - lam[0], [data[t] for t in times[:3]]), lam[3] - lam[0]
    integral, _ = quad(lambda tau: 2.0 * np.exp(-2.0 * (h - tau)) * parabola(tau), 0.0, h, epsabs=1e-13, epsrel=1e-13)
    alpha, sigma = LINEAR.alpha(100), LINEAR.sigma(100)
    expected = sigma / LINEAR.sigma(900) * np.exp(-h) * 0.4 + alpha * integral
    assert states[4][0] == pytest.approx(expected, abs=1e-10)


@pytest.mark.parametrize("data", ["gaussian", "mixture"])
@pytest.mark.parametrize("solver_type", ["midpoint", "heun"])
@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("algorithm_type", ALGORITHMS[:2])
def test_order(request, measured_order, algorithm_type, order, solver_type, data):
    options = {"algorithm_type": algorithm_type, "solver_order": order, "solver_type": solver_type}
    slope, errors = measured_order(
        request.getfixturevalue(data), "dpmsolver_singlestep", [72, 144, 288, 576], "epsilon", **options
    )  # whole runs, and the step to the data
    assert slope == pytest.approx(order, abs=0.2), errors


@pytest.mark.parametrize("order", [2, 3])
def test_from_no_signal(run, order):
    """The first step has no width in λ: it and the one behind it are of first order, and a perfect prediction stays perfect."""
    schedule = df.Schedule.scaled_linear().rescale_zero_terminal_snr()
    plan = df.plan(schedule, "dpmsolver_singlestep", 6, prediction_type="sample", timestep_spacing="trailing", solver_order=order)
    states = run(plan, lambda x, t: np.full(3, 0.25), np.ones(3))
    for state, (alpha, sigma) in zip(states, plan.marginals, strict=True):
        np.testing.assert_allclose(state, 0.25 * alpha + sigma, atol=1e-12)


@pytest.mark.parametrize("order", [2, 3])
def test_noise_form_needs_signal(order):
    schedule = df.Schedule.scaled_linear().rescale_zero_terminal_snr()
    with pytest.raises(PlanError, match="zero signal-to-noise"):
        df.plan(
            schedule,
            "dpmsolver_singlestep",
            6,
            prediction_type="v_prediction",
            timestep_spacing="trailing",
            algorithm_type="dpmsolver",
            solver_order=order,
        )
