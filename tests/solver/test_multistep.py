"""The multistep solvers: against the papers' integrals, against diffusers, and their order on a path known in closed form."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from numpy.polynomial import Polynomial
from scipy.integrate import quad, solve_ivp

import diffuse_fast as df
from diffuse_fast.errors import ArgumentError, PlanError
from diffuse_fast.kernels.reference import apply_row
from diffuse_fast.solver import multistep
from diffuse_fast.solver.solver import Point
from tests.solver.unguarded import unguarded_plan

LINEAR = df.Schedule.linear()
SCHEDULES = {"linear": LINEAR, "scaled_linear": df.Schedule.quadratic(), "squaredcos_cap_v2": df.Schedule.cosine()}
SOLVERS = (
    "deis", "dpmpp_2m", "dpmpp_2m_sde", "dpmpp_3m", "dpmpp_3m_sde", "dpmsolver_2m", "dpmsolver_3m", "euler", "ipndm", "lms", "pndm",
    "unipc",
)  # fmt: skip
PREDICTIONS = ("epsilon", "sample", "v_prediction")


def make(schedule, solver, steps, prediction_type="epsilon", **options):
    return df.plan(schedule, solver, steps, prediction_type=prediction_type, **options)


# ---- the integrals ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("h", [1e-9, 1e-4, 0.02, 0.3, 0.999, 1.0, 2.5, 30.0])
def test_integrals_are_those_of_quadrature(h):
    for k, (data, noise) in enumerate(zip(multistep.data_integrals(h, 4), multistep.noise_integrals(h, 4), strict=True)):
        # in u = τ/h, so that quadrature sees a unit interval
        for value, sign in ((data, -1), (noise, 1)):
            integral = quad(lambda u, k=k, z=sign * h: h * math.exp(z * (1 - u)) * u**k, 0, 1, epsabs=0, epsrel=1e-13)[0]
            assert value == pytest.approx(integral, rel=1e-12)


def test_data_integrals_over_an_infinite_step_are_one():
    assert multistep.data_integrals(math.inf, 3) == [1.0, 1.0, 1.0]


@pytest.mark.parametrize("order", [1, 2, 3])
def test_the_polynomial_is_integrated_exactly(order):
    """Against Lagrange's polynomials by quadrature: weights of DPM-Solver++ (data form) for uneven steps."""
    h, back = 0.7, [0.4, 0.9][: order - 1]
    nodes = [0.0, *(-sum(back[: j + 1]) for j in range(order - 1))]
    weights = multistep.polynomial(multistep.data_integrals(h, order), h, back)
    for j, node in enumerate(nodes):
        others = [other for k, other in enumerate(nodes) if k != j]
        basis = Polynomial.fromroots(others) / np.prod([node - other for other in others]) if others else Polynomial([1.0])
        assert weights[j] == pytest.approx(quad(lambda u, b=basis: math.exp(-(h - u)) * b(u), 0, h)[0], rel=1e-11)


def test_lms_integrates_lagrange_in_sigma():
    plan = unguarded_plan(LINEAR, "lms", None, timesteps=[900, 700, 650, 300, 20])
    sigma = [s / a for a, s in plan.marginals]
    # Row 4: x'/alpha' = x/alpha + Σ ε_j ∫ ℓ_j; the registers hold ε, ε itself has weight b.
    alpha_next = plan.marginals[4][0]
    row, nodes = plan.rows[3], [sigma[3], sigma[2], sigma[1], sigma[0]]
    held = [row.b, *(row.c[(3 - j) % 3] for j in (1, 2, 3))]
    for j, node in enumerate(nodes):
        others = [other for k, other in enumerate(nodes) if k != j]
        basis = lambda s, o=others, n=node: np.prod([(s - q) / (n - q) for q in o])  # noqa: E731
        assert held[j] == pytest.approx(alpha_next * quad(basis, sigma[3], sigma[4], epsabs=0, epsrel=1e-12)[0], rel=1e-9)


# ---- diffusers --------------------------------------------------------------------------------------------


def peer_trajectory(scheduler, schedule, network, x, noises=None, ve=False):
    """Its states in the scale of the schedule's marginals, called with its own timesteps."""
    import torch

    state = torch.tensor(x, dtype=torch.float64)
    times = scheduler.timesteps.tolist()
    if ve:
        state = state / schedule.alpha(times[0])
    states = []
    for i, t in enumerate(times):
        seen = scheduler.scale_model_input(state, scheduler.timesteps[i]) if ve else state
        output = torch.tensor(network(seen.double().numpy(), t), dtype=torch.float64)
        options = {} if noises is None else {"variance_noise": torch.tensor(noises[i])}
        state = scheduler.step(output, scheduler.timesteps[i], state, return_dict=False, **options)[0]
        states.append(state.double().numpy())
    if ve:
        scales = [schedule.alpha(t) for t in times[1:]] + [1.0]
        states = [s * a for s, a in zip(states, scales, strict=True)]
    return states


DPM, UNIPC = "DPMSolverMultistepScheduler", "UniPCMultistepScheduler"
PEERS = [
    *(("dpmpp_2m", {"solver_type": kind}, DPM, {"solver_order": 2, "solver_type": kind}) for kind in ("midpoint", "heun")),
    ("dpmpp_2m", {"lower_order_final": False, "euler_at_final": True}, DPM,
     {"solver_order": 2, "lower_order_final": False, "euler_at_final": True}),
    ("dpmpp_2m", {"final_sigmas_type": "sigma_min"}, DPM, {"solver_order": 2, "final_sigmas_type": "sigma_min"}),
    ("dpmpp_3m", {"halved_curvature": True}, DPM, {"solver_order": 3}),
    ("dpmpp_3m", {"halved_curvature": True, "final_sigmas_type": "sigma_min", "lower_order_final": False}, DPM,
     {"solver_order": 3, "final_sigmas_type": "sigma_min", "lower_order_final": False}),
    *(("dpmsolver_2m", {"solver_type": kind, "final_sigmas_type": "sigma_min"}, DPM,
       {"solver_order": 2, "solver_type": kind, "algorithm_type": "dpmsolver", "final_sigmas_type": "sigma_min"})
      for kind in ("midpoint", "heun")),
    ("dpmsolver_3m", {"halved_curvature": True, "final_sigmas_type": "sigma_min"}, DPM,
     {"solver_order": 3, "algorithm_type": "dpmsolver", "final_sigmas_type": "sigma_min"}),
    *(("dpmpp_2m_sde", {"solver_type": kind}, DPM, {"solver_order": 2, "solver_type": kind, "algorithm_type": "sde-dpmsolver++"})
      for kind in ("midpoint", "heun")),
    *(("unipc", {"solver_order": order, "solver_type": "bh2"}, UNIPC, {"solver_order": order, "solver_type": "bh2"})
      for order in (1, 2, 3)),
    # At sigma 0 it has NaN for bh1 and for the noise form.
    *(("unipc", {"solver_order": order, "solver_type": kind, "predict_x0": x0, "final_sigmas_type": "sigma_min"}, UNIPC,
       {"solver_order": order, "solver_type": kind, "predict_x0": x0, "final_sigmas_type": "sigma_min"})
      for order in (1, 2, 3) for kind in ("bh1", "bh2") for x0 in (True, False)),
    ("unipc", {"solver_order": 3, "disable_corrector": range(50)}, UNIPC,
     {"solver_order": 3, "disable_corrector": list(range(50))}),
    *(("deis", {"solver_order": order}, "DEISMultistepScheduler", {"solver_order": order}) for order in (1, 2, 3)),
    ("euler", {}, "EulerDiscreteScheduler", {}),
    ("lms", {}, "LMSDiscreteScheduler", {}),
    ("pndm", {"skip_prk_steps": True}, "PNDMScheduler", {"skip_prk_steps": True}),
    ("pndm", {"skip_prk_steps": True, "set_alpha_to_one": True}, "PNDMScheduler",
     {"skip_prk_steps": True, "set_alpha_to_one": True}),
    ("pndm", {"skip_prk_steps": False}, "PNDMScheduler", {"skip_prk_steps": False}),
]  # fmt: skip


def against_peer(gaussian, run, solver, options, name, peer_options, steps, betas, prediction_type, spacing, *, float64):
    """Largest difference along the trajectories, relative to their size, and the tolerance: with the peer's float32 tables, or its
    logic on float64 ones."""
    import diffusers

    schedule = SCHEDULES[betas]
    if reason := known_difference(name, peer_options, prediction_type, spacing):
        pytest.skip(reason)
    if options.get("skip_prk_steps") is False and steps < 5:
        pytest.skip("the Runge-Kutta start takes three steps")
    import torch

    peer = getattr(diffusers, name)(beta_schedule=betas, prediction_type=prediction_type, timestep_spacing=spacing, **peer_options)
    peer.set_timesteps(steps)
    if float64:
        peer.alphas_cumprod = torch.tensor(schedule.alphas_cumprod)
        if name == "PNDMScheduler":
            peer.final_alpha_cumprod = torch.tensor(1.0) if peer.config.set_alpha_to_one else peer.alphas_cumprod[0]
        else:
            levels = [schedule.sigma(t) / schedule.alpha(t) for t in peer.timesteps.tolist()]
            cleanest = schedule.sigma(0) / schedule.alpha(0)
            peer.sigmas = torch.tensor([*levels, 0.0 if float(peer.sigmas[-1]) == 0.0 else cleanest], dtype=torch.float64)
    times = list(dict.fromkeys(peer.timesteps.tolist()))
    if options.get("skip_prk_steps") is False:
        times = [t for t in times if t in set(peer._timesteps.tolist())]
    plan = unguarded_plan(schedule, solver, None, prediction_type, timesteps=times, **options)
    rng = np.random.default_rng(steps)
    x = rng.standard_normal((3, 4))
    noises = rng.standard_normal((len(plan.rows), 3, 4))
    network = gaussian.network(schedule, prediction_type)
    ours = run(plan, network, x, noises)[1:]
    theirs = peer_trajectory(peer, schedule, network, x, noises if plan.stochastic else None, ve=solver in ("euler", "lms"))
    assert len(ours) == len(theirs)
    if solver == "unipc":  # it hands out predicted states as well, but corrects them in place later: the last is what counts
        ours, theirs = ours[-1:], theirs[-1:]
    size = max(1.0, *(np.abs(s).max() for s in ours))
    error = max(np.abs(a - b).max() for a, b in zip(ours, theirs, strict=True)) / size
    # These step in float32 whatever they are given. From epsilon they take x0 = (x - sigma*m)/alpha, and alpha is 5e-5 at the
    # noisy end of the cosine table.
    if name in ("EulerDiscreteScheduler", "LMSDiscreteScheduler", DPM) and float64:
        return error, max(1e-5, 2**-22 / plan.marginals[0][0])
    # Short runs that stay of high order to the end magnify what float32 loses of λ.
    return error, 1e-9 if float64 else 1e-5 if options.get("lower_order_final", True) else 2e-5


def known_difference(name, options, prediction_type, spacing):
    """Why the peer's numbers are not those of the paper, where they are not."""
    if name == "LMSDiscreteScheduler" and prediction_type == "sample":
        return "it takes a sample prediction for one already divided by its scale"
    if name == "PNDMScheduler":
        if prediction_type == "sample":
            return "it has no sample prediction"
        if prediction_type == "v_prediction":
            return "it combines raw v of several timesteps and converts the combination at the last; the paper combines epsilon"
        if spacing == "linspace":
            return "it takes T // steps for the distance of timesteps that are farther apart"
    return None


# The peers hand NumPy tensors, in a way that it warns of; and one of their algorithms will go.
@pytest.mark.filterwarnings("ignore:__array_:DeprecationWarning", "ignore:.*algorithm_type:FutureWarning")
@pytest.mark.parametrize("steps", [1, 2, 5, 10])
@pytest.mark.parametrize(("solver", "options", "name", "peer_options"), PEERS, ids=lambda v: v if isinstance(v, str) else "")
def test_diffusers(gaussian, run, solver, options, name, peer_options, steps):
    case = (gaussian, run, solver, options, name, peer_options, steps, "scaled_linear")
    for prediction_type, spacing, float64 in (
        ("epsilon", "leading", True),
        ("epsilon", "leading", False),
        ("v_prediction", "trailing", True),
    ):
        if known_difference(name, peer_options, prediction_type, spacing) is None:
            error, tolerance = against_peer(*case, prediction_type, spacing, float64=float64)
            assert error < tolerance


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:__array_:DeprecationWarning", "ignore:.*algorithm_type:FutureWarning")
@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
@pytest.mark.parametrize("betas", ["linear", "scaled_linear", "squaredcos_cap_v2"])
@pytest.mark.parametrize("prediction_type", PREDICTIONS)
@pytest.mark.parametrize("steps", [1, 2, 5, 10, 50])
@pytest.mark.parametrize(("solver", "options", "name", "peer_options"), PEERS, ids=lambda v: v if isinstance(v, str) else "")
def test_diffusers_in_full(gaussian, run, solver, options, name, peer_options, steps, prediction_type, betas, spacing):
    case = (gaussian, run, solver, options, name, peer_options, steps, betas, prediction_type, spacing)
    error, tolerance = against_peer(*case, float64=True)
    assert error < tolerance


def test_dpmpp_3m_sde_is_k_diffusions():
    """k-diffusion's ``sample_dpmpp_3m_sde``, written in its own variables: x/alpha, σ and D. (diffusers' third-order SDE step has
    −φ₃ − 1 in place of −φ₃, which is not of any order above 1.)"""
    eta, times = 0.8, [950, 800, 640, 500, 330, 100]
    plan = make(LINEAR, "dpmpp_3m_sde", None, "sample", timesteps=times, eta=eta, halved_curvature=True, lower_order_final=False)
    rng = np.random.default_rng(4)
    x, d, z = rng.standard_normal(5), rng.standard_normal((6, 5)), rng.standard_normal((6, 5))
    state, registers = x * plan.marginals[0][0], [None] * plan.registers
    sigmas = [s / a for a, s in plan.marginals]
    h_1 = h_2 = None
    for i, row in enumerate(plan.rows):
        state = apply_row(row, state, [d[i]], registers, z=z[i])
        if sigmas[i + 1] == 0:
            x = d[i]
        else:
            h = math.log(sigmas[i] / sigmas[i + 1])
            h_eta = h * (eta + 1)
            x = math.exp(-h_eta) * x - math.expm1(-h_eta) * d[i]
            if i >= 2:
                r0, r1 = h_1 / h, h_2 / h
                d1_0, d1_1 = (d[i] - d[i - 1]) / r0, (d[i - 1] - d[i - 2]) / r1
                d1 = d1_0 + (d1_0 - d1_1) * r0 / (r0 + r1)
                d2 = (d1_0 - d1_1) / (r0 + r1)
                phi_2 = math.expm1(-h_eta) / h_eta + 1
                phi_3 = phi_2 / h_eta - 0.5
                x = x + phi_2 * d1 - phi_3 * d2
            elif i == 1:
                phi_2 = math.expm1(-h_eta) / h_eta + 1
                x = x + phi_2 * (d[i] - d[i - 1]) / (h_1 / h)
            x = x + z[i] * sigmas[i + 1] * math.sqrt(-math.expm1(-2 * h * eta))
            h_1, h_2 = h, h_1
        np.testing.assert_allclose(state, x * plan.marginals[i + 1][0], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(("steps", "last"), [(14, [3, 2, 1]), (15, [3, 3, 3])])
def test_lower_order_final_acts_in_runs_of_fewer_than_15_steps(steps, last):
    # As in diffusers: lower_order_final and len(timesteps) < 15.
    times = np.linspace(900.0, 10.0, steps + 1)
    points = [Point(t, LINEAR.log_alpha(t), LINEAR.alpha(t), LINEAR.sigma(t)) for t in times]
    assert multistep.orders(points, 3, lower_order_final=True, euler_at_final=False)[-3:] == last


@pytest.mark.parametrize("steps", [6, 20])
def test_unipc_lowers_its_last_steps_in_runs_of_any_length(steps):
    # As in diffusers: min(solver_order, len(timesteps) - step_index), and no more than there are predictions.
    plan = unguarded_plan(LINEAR, "unipc", steps, solver_order=3, disable_corrector=range(steps))
    earlier = [sum(c != 0.0 for c in row.c) for row in plan.rows]
    assert earlier == [min(3, i + 1, steps - i) - 1 for i in range(steps)]


# ---- marginals --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("solver", [s for s in SOLVERS if s not in ("lms", "pndm")])
def test_zero_terminal_snr(solver, assert_declared_marginals):
    schedule = df.Schedule.scaled_linear().rescale_zero_terminal_snr()
    options = {"predict_x0": True} if solver == "unipc" else {}
    if solver in ("deis", "dpmsolver_2m", "dpmsolver_3m"):
        with pytest.raises(PlanError, match="signal"):
            make(schedule, solver, 8, "v_prediction", timestep_spacing="trailing")
        return
    plan = make(schedule, solver, 8, "v_prediction", timestep_spacing="trailing", **options)
    assert plan.exact_marginal
    assert_declared_marginals(plan)


def test_euler_is_ddim_without_noise(run, gaussian):
    network = gaussian.network(LINEAR)
    x = np.random.default_rng(0).standard_normal((2, 4))
    euler, ddim = (make(LINEAR, s, 7, timestep_spacing="trailing") for s in ("euler", "ddim"))
    for a, b in zip(run(euler, network, x), run(ddim, network, x), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12)


def test_an_sde_solver_without_noise_is_the_ode_solver(run, gaussian):
    network = gaussian.network(LINEAR)
    x = np.random.default_rng(0).standard_normal((2, 4))
    for order in (2, 3):
        sde = make(LINEAR, f"dpmpp_{order}m_sde", 9, timestep_spacing="trailing", eta=0.0, solver_type="midpoint")
        ode = make(LINEAR, f"dpmpp_{order}m", 9, timestep_spacing="trailing")
        assert not sde.stochastic
        np.testing.assert_allclose(run(sde, network, x)[-1], run(ode, network, x)[-1], rtol=1e-12)


# ---- order of convergence ---------------------------------------------------------------------------------


class Mixture:
    """Two Gaussians in the plane: the optimal ε is known in closed form, the path by a fine integrator."""

    weights, means, variances = np.array([0.4, 0.6]), np.array([[-1.0, 0.5], [1.2, -0.3]]), np.array([0.15, 0.3])

    def epsilon(self, x, alpha, sigma):
        variance = alpha**2 * self.variances + sigma**2
        away = x[:, None, :] - alpha * self.means
        log = np.log(self.weights) - np.log(variance) - 0.5 * (away**2).sum(-1) / variance
        share = np.exp(log - log.max(1, keepdims=True))
        share /= share.sum(1, keepdims=True)
        return sigma * ((share / variance)[..., None] * away).sum(1)

    def exact(self, x, lam, lams):
        """The probability-flow ODE in λ at the given points: d(x/alpha)/dλ = −(sigma/alpha)·ε."""

        def change(at, y):
            alpha, sigma = vp(at)
            return -(sigma / alpha) * self.epsilon(y.reshape(x.shape) * alpha, alpha, sigma).ravel()

        solved = solve_ivp(change, (lam, lams[-1]), (x / vp(lam)[0]).ravel(), "DOP853", t_eval=lams, rtol=1e-12, atol=1e-13)
        return [y.reshape(x.shape) * vp(at)[0] for at, y in zip(lams, solved.y.T, strict=True)]


def vp(lam):
    return math.sqrt(1 / (1 + math.exp(-2 * lam))), math.sqrt(1 / (1 + math.exp(2 * lam)))


START, END = -1.5, 2.0  # of λ; the schedule reaches both


def error(solver, steps, exact_start, **options):
    """Of the state at END, by a solver of ``steps`` even steps in λ; the first predictions along the exact path, if asked."""
    mixture = Mixture()
    lams = np.linspace(START, END, steps + 1)
    # The last point of the grid is called too; its row is not run: the state before it is the result.
    times = LINEAR.timestep_at_log_snr(2 * lams)
    plan = make(LINEAR, solver, None, timesteps=times, **options)
    x = np.random.default_rng(1).standard_normal((16, 2))
    path = mixture.exact(x, START, lams)
    # What is exact needs no correction: UniPC's first states come from its predictor alone.
    alone = {"disable_corrector": range(steps)} if solver == "unipc" else {}
    start = make(LINEAR, solver, None, timesteps=times, **{**options, **alone})
    registers, registers_of_start, state = [None] * plan.registers, [None] * start.registers, path[0]
    for i, row in enumerate(plan.rows[:-1]):
        if i < exact_start:
            state = path[i]
        output = mixture.epsilon(state, *plan.marginals[i])
        of_start = apply_row(start.rows[i], state, [output], registers_of_start)
        state = apply_row(row, state, [output], registers)
        if i < exact_start:
            state = of_start
    return np.abs(state - path[-1]).max()


ORDERS = [
    ("euler", 1, 0, {}),
    ("ddim", 1, 0, {}),
    ("dpmpp_2m", 2, 1, {}), ("dpmpp_2m", 2, 1, {"solver_type": "heun"}),
    ("dpmsolver_2m", 2, 1, {}),
    ("dpmpp_2m_sde", 2, 1, {"eta": 0.0}),
    ("dpmpp_3m", 3, 2, {}), ("dpmsolver_3m", 3, 2, {}), ("dpmpp_3m_sde", 3, 2, {"eta": 0.0}),
    ("dpmpp_3m", 2, 2, {"halved_curvature": True}),
    ("deis", 2, 1, {"solver_order": 2}), ("deis", 3, 2, {"solver_order": 3}),
    ("unipc", 2, 1, {"solver_order": 1}), ("unipc", 3, 2, {"solver_order": 2}), ("unipc", 4, 3, {"solver_order": 3}),
    ("ipndm", 2, 3, {}), ("unipc", 3, 2, {"solver_order": 3, "disable_corrector": range(160)}),
    ("unipc", 3, 2, {"solver_order": 2, "solver_type": "bh1"}),
    ("lms", 2, 1, {"solver_order": 2}), ("lms", 3, 2, {"solver_order": 3}), ("lms", 4, 3, {"solver_order": 4}),
]  # fmt: skip


@pytest.mark.parametrize(("solver", "order", "exact_start", "options"), ORDERS, ids=lambda v: v if isinstance(v, str) else "")
def test_order_of_convergence(solver, order, exact_start, options):
    if "lower_order_final" in df.solvers()[solver].options:
        options = {**options, "lower_order_final": False}
    errors = [error(solver, steps, exact_start, **options) for steps in (40, 80, 160)]
    measured = [math.log2(a / b) for a, b in pairwise(errors)]
    assert measured[-1] == pytest.approx(order, abs=0.2), measured


# ---- bad input --------------------------------------------------------------------------------------------


def test_senseless_arguments_are_refused():
    with pytest.raises(ArgumentError, match="solver_order"):
        make(LINEAR, "unipc", 10, solver_order=4)
    with pytest.raises(ArgumentError, match="solver_order"):
        make(LINEAR, "deis", 10, solver_order=0)
    with pytest.raises(ArgumentError, match="solver_type"):
        make(LINEAR, "dpmpp_2m", 10, solver_type="bh2")
    with pytest.raises(PlanError, match="skip_prk_steps"):
        make(LINEAR, "pndm", 3)


@pytest.mark.parametrize("solver", SOLVERS)
def test_orders_that_the_steps_cannot_support_are_lowered(solver, run, gaussian):
    options = {"skip_prk_steps": True} if solver == "pndm" else {}
    plan = make(LINEAR, solver, 1, timestep_spacing="trailing", **options)
    assert plan.nfe == 1
    one = run(plan, gaussian.network(LINEAR), np.ones((1, 4)), np.zeros((1, 1, 4)))[-1]
    euler = run(make(LINEAR, "euler", 1, timestep_spacing="trailing"), gaussian.network(LINEAR), np.ones((1, 4)))[-1]
    if not plan.stochastic and solver not in ("deis", "pndm"):  # these end at the cleanest timestep
        np.testing.assert_allclose(one, euler, rtol=1e-9)
