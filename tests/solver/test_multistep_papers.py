"""The multistep solvers as whole methods: the papers' algorithms in their own variables, with integrals by quadrature; what the
stochastic ones do to data whose distribution is known; and what they do in another scale of the state."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

import diffuse_fast as df
from diffuse_fast.errors import ArgumentError, PlanError
from diffuse_fast.kernels.reference import apply_row
from diffuse_fast.solver.solver import Grid, Point
from tests.solver.unguarded import unguarded_plan

LINEAR = df.Schedule.linear()
PREDICTIONS = ("epsilon", "sample", "v_prediction")
GAUSS = np.polynomial.legendre.leggauss(32)


def network(x, t):
    """Some smooth function of both: a table must be right for any network."""
    return np.tanh(0.7 * x[..., ::-1] + 0.3 * np.sin(0.01 * t)) - 0.2 * x


def integral(f, begin, end):
    """By Gauss-Legendre quadrature."""
    at, weights = GAUSS
    middle, half = 0.5 * (begin + end), 0.5 * (end - begin)
    return half * sum(w * f(middle + half * u) for u, w in zip(at, weights, strict=True))


def lagrange(nodes, values, t):
    """The polynomial through the values at the nodes, at t."""
    return sum(
        value * math.prod((t - other) / (node - other) for k, other in enumerate(nodes) if k != j)
        for j, (node, value) in enumerate(zip(nodes, values, strict=True))
    )


class Paper:
    """A grid of the linear schedule down to the data, in the papers' variables."""

    def __init__(self, times, prediction_type, clip):
        self.times, self.prediction_type, self.clip = times, prediction_type, clip
        self.alpha = [*(LINEAR.alpha(t) for t in times), 1.0]
        self.sigma = [*(LINEAR.sigma(t) for t in times), 0.0]
        self.lam = [*(0.5 * LINEAR.log_snr(t) for t in times), math.inf]

    def __len__(self):
        return len(self.times)

    def predict(self, x, i):
        """(x0, ε) of the state at point i, ε the one that fits x0 where that is clipped."""
        alpha, sigma, output = self.alpha[i], self.sigma[i], network(x, self.times[i])
        x0 = {"epsilon": (x - sigma * output) / alpha, "sample": output, "v_prediction": alpha * x - sigma * output}
        x0 = x0[self.prediction_type]
        if self.clip is not None:
            x0 = np.clip(x0, *self.clip)
        return x0, (x - alpha * x0) / sigma

    def integrate(self, x, i, form, values, points, eta=0.0):
        """The exponential integrator of the polynomial through ``values`` at ``points`` over step i: DPM-Solver eq. (3.4),
        DPM-Solver++ eq. (8); with eta the mean of its appendix A."""
        alpha, sigma, lam = ((a[i], a[i + 1]) for a in (self.alpha, self.sigma, self.lam))
        if sigma[1] == 0.0:
            return values[0] if form == "data" else x / alpha[0] - sigma[0] / alpha[0] * values[0]
        nodes = [self.lam[k] for k in points]
        if form == "data":
            grown = integral(lambda t: math.exp((1 + eta) * (t - lam[1])) * lagrange(nodes, values, t), *lam)
            return sigma[1] / sigma[0] * math.exp(-eta * (lam[1] - lam[0])) * x + alpha[1] * (1 + eta) * grown
        return alpha[1] / alpha[0] * x - sigma[1] * integral(lambda t: math.exp(lam[1] - t) * lagrange(nodes, values, t), *lam)


def multistep(paper, x, noises, form, order, eta=0.0):
    history, states = [], []
    for i in range(len(paper)):
        history.append(paper.predict(x, i)[0 if form == "data" else 1])
        last = paper.sigma[i + 1] == 0.0
        points = range(i, i - min(order, i + 1, 1 if last else order), -1)
        x = paper.integrate(x, i, form, [history[k] for k in points], points, eta)
        if eta and not last:
            x = x + paper.sigma[i + 1] * math.sqrt(1 - math.exp(2 * eta * (paper.lam[i] - paper.lam[i + 1]))) * noises[i]
        states.append(x)
    return states


def midpoint(paper, x, form):
    """The second-order multistep methods, DPM-Solver++ Algorithm 2 and its counterpart for ε."""
    states, before = [], None
    for i in range(len(paper)):
        value = paper.predict(x, i)[0 if form == "data" else 1]
        best = value
        if 0 < i < len(paper) - 1:
            r = (paper.lam[i] - paper.lam[i - 1]) / (paper.lam[i + 1] - paper.lam[i])
            best = (1 + 1 / (2 * r)) * value - 1 / (2 * r) * before
        x = paper.integrate(x, i, form, [best], [i])
        before = value
        states.append(x)
    return states


def unipc(paper, x, form, order, kind, corrector):
    """Zhao et al. 2023, Algorithms 5 to 8: predict, call the network there, correct from the state before, predict again."""
    which = 0 if form == "data" else 1

    def step(x, i, values, points):
        """UniP or UniC (eq. 11), the first value at point i and the others around it."""
        if paper.sigma[i + 1] == 0.0 or len(points) == 1:
            return paper.integrate(x, i, form, values[:1], points[:1])
        begin, h = paper.lam[i], paper.lam[i + 1] - paper.lam[i]
        r = np.array([(paper.lam[k] - begin) / h for k in points[1:]])
        sign = -1 if form == "data" else 1
        phi = [integral(lambda t, k=k: math.exp(sign * (h - t)) * (t / h) ** k, 0.0, h) for k in range(len(r) + 1)]
        b_of_h = h if kind == "bh1" else abs(math.expm1(sign * h))
        a = np.array([0.5]) if len(r) == 1 else np.linalg.solve([r**k for k in range(len(r))], np.array(phi[1:]) / b_of_h)
        total = phi[0] * values[0] + b_of_h * sum(w * (v - values[0]) / d for w, v, d in zip(a, values[1:], r, strict=True))
        if form == "data":
            return paper.sigma[i + 1] / paper.sigma[i] * x + paper.alpha[i + 1] * total
        return paper.alpha[i + 1] / paper.alpha[i] * x - paper.sigma[i + 1] * total

    history, states, base = [], [], x
    for i in range(len(paper)):
        history.append(paper.predict(x, i)[which])
        if corrector and i > 0:
            points = [i - 1, *range(i - 2, i - 1 - min(order, i), -1), i]
            x = step(base, i - 1, [history[k] for k in points], points)
        base = x
        points = list(range(i, i - min(order, i + 1), -1))
        x = step(x, i, [history[k] for k in points], points)
        states.append(x)
    return states


def lms(paper, x, order):
    """In x/alpha and σ: dx/dσ = ε, Adams and Bashforth on the grid as it is."""
    levels = [s / a for s, a in zip(paper.sigma, paper.alpha, strict=True)]
    history, states, y = [], [], x / paper.alpha[0]
    for i in range(len(paper)):
        history.append(paper.predict(y * paper.alpha[i], i)[1])
        points = range(i, i - min(order, i + 1), -1)
        nodes, values = [levels[k] for k in points], [history[k] for k in points]
        y = y + integral(lambda s, n=nodes, v=values: lagrange(n, v, s), levels[i], levels[i + 1])
        states.append(y * paper.alpha[i + 1])
    return states


ADAMS = {1: [1], 2: [3 / 2, -1 / 2], 3: [23 / 12, -16 / 12, 5 / 12], 4: [55 / 24, -59 / 24, 37 / 24, -9 / 24]}


def transfer(x, epsilon, a, b):
    """φ of Liu et al. 2022, eq. (11), for ᾱ = a to ᾱ = b, where it is written for alpha² + sigma² = 1."""
    return np.sqrt(b / a) * x - (b - a) / (np.sqrt(a) * (np.sqrt((1 - b) * a) + np.sqrt((1 - a) * b))) * epsilon


def adams(paper, x, order):
    history, states = [], []
    for i in range(len(paper)):
        history.append(paper.predict(x, i)[1])
        weights = ADAMS[min(order, i + 1)]
        best = sum(w * history[i - j] for j, w in enumerate(weights))
        x = transfer(x, best, paper.alpha[i] ** 2, paper.alpha[i + 1] ** 2)
        states.append(x)
    return states


def pndm(paper, x, runge_kutta):
    """Liu et al. 2022, Algorithm 2 (eqs. 12 and 13), or as latent diffusion starts it; one state per step."""
    history, states = [], []
    a = [alpha**2 for alpha in paper.alpha]
    for i in range(len(paper)):
        e1 = paper.predict(x, i)[1]
        history.append(e1)
        if runge_kutta and i < 3:
            t = 0.5 * (paper.times[i] + paper.times[i + 1])
            middle = Paper([t], paper.prediction_type, paper.clip)
            half = middle.alpha[0] ** 2
            e2 = middle.predict(transfer(x, e1, a[i], half), 0)[1]
            e3 = middle.predict(transfer(x, e2, a[i], half), 0)[1]
            e4 = paper.predict(transfer(x, e3, a[i], a[i + 1]), i + 1)[1]
            best = (e1 + 2 * e2 + 2 * e3 + e4) / 6
        elif i == 0 and len(paper) > 1:
            best = 0.5 * (e1 + paper.predict(transfer(x, e1, a[0], a[1]), 1)[1])
        else:
            best = sum(w * history[i - j] for j, w in enumerate(ADAMS[min(4, i + 1)]))
        x = transfer(x, best, a[i], a[i + 1])
        states.append(x)
    return states


FREE = {"lower_order_final": False}
HEUN = {"solver_type": "heun", **FREE}
METHODS = {
    "dpmpp_2m": [(HEUN, lambda p, x, z: multistep(p, x, z, "data", 2)), (FREE, lambda p, x, z: midpoint(p, x, "data"))],
    "dpmpp_3m": [(HEUN, lambda p, x, z: multistep(p, x, z, "data", 3))],
    "dpmsolver_2m": [(HEUN, lambda p, x, z: multistep(p, x, z, "noise", 2)), (FREE, lambda p, x, z: midpoint(p, x, "noise"))],
    "dpmsolver_3m": [(HEUN, lambda p, x, z: multistep(p, x, z, "noise", 3))],
    "deis": [({"solver_order": k, "final_sigmas_type": "zero", **FREE}, lambda p, x, z, k=k: multistep(p, x, z, "noise", k))
             for k in (1, 2, 3)],
    "dpmpp_2m_sde": [({"eta": e, **HEUN}, lambda p, x, z, e=e: multistep(p, x, z, "data", 2, e)) for e in (0.3, 1.0)],
    "dpmpp_3m_sde": [({"eta": e, **HEUN}, lambda p, x, z, e=e: multistep(p, x, z, "data", 3, e)) for e in (0.3, 1.0)],
    "euler": [({}, lambda p, x, z: lms(p, x, 1))],
    "lms": [({"solver_order": k}, lambda p, x, z, k=k: lms(p, x, k)) for k in (1, 2, 3, 4)],
    "ipndm": [({"solver_order": k}, lambda p, x, z, k=k: adams(p, x, k)) for k in (1, 2, 3, 4)],
    "unipc": [
        ({"solver_order": k, "solver_type": kind, "predict_x0": data, "disable_corrector": () if c else range(99), **FREE},
         lambda p, x, z, k=k, kind=kind, data=data, c=c: unipc(p, x, "data" if data else "noise", k, kind, c))
        for k in (1, 2, 3) for kind in ("bh1", "bh2") for data in (True, False) for c in (True, False)
    ],
    "pndm": [({"skip_prk_steps": plms, "set_alpha_to_one": True}, lambda p, x, z, plms=plms: pndm(p, x, not plms))
             for plms in (True, False)],
}  # fmt: skip


def uneven(steps, seed):
    rng = np.random.default_rng(seed)
    return np.sort(1 + 998 * (np.arange(steps) + rng.uniform(0.1, 0.9, steps)) / steps)[::-1].tolist()


@pytest.mark.parametrize("clip", [None, (-0.4, 0.9)])
@pytest.mark.parametrize("prediction_type", PREDICTIONS)
@pytest.mark.parametrize("solver", list(METHODS))
def test_paper(run, solver, prediction_type, clip):
    for options, method in METHODS[solver]:
        for steps in (1, 2, 3, 7, 16):
            if options.get("skip_prk_steps") is False and steps < 4:
                continue
            times = uneven(steps, seed=steps)
            plan = unguarded_plan(LINEAR, solver, prediction_type=prediction_type, timesteps=times, clip=clip, **options)
            rng = np.random.default_rng(0)
            x, noises = rng.standard_normal((3, 4)), rng.standard_normal((steps, 3, 4))
            ours = run(plan, network, x, noises)[1:]
            theirs = method(Paper(times, prediction_type, clip), x, noises)
            if solver == "pndm":  # some of its rows are stages
                ours, theirs = ours[-1:], theirs[-1:]
            for a, b in zip(ours, theirs, strict=True):
                assert np.abs(a - b).max() < 1e-9 * max(1.0, np.abs(b).max())


def test_ipndm_is_diffusers(run):
    """Its scheduler is for v-prediction and has a schedule of its own, but takes sigma ("betas") along any grid."""
    import torch
    from diffusers import IPNDMScheduler

    for steps in (1, 2, 5, 10, 50):
        times = uneven(steps, seed=steps)
        sigma = np.array([*(LINEAR.sigma(t) for t in times), 0.0])
        peer = IPNDMScheduler(trained_betas=sigma.tolist())
        peer.set_timesteps(steps)
        plan = df.plan(LINEAR, "ipndm", prediction_type="v_prediction", timesteps=times)
        x = np.random.default_rng(steps).standard_normal((3, 4))
        state = torch.tensor(x)
        ours = run(plan, network, x)[1:]
        for i, t in enumerate(times):
            state = peer.step(torch.tensor(network(state.numpy(), t)), peer.timesteps[i], state).prev_sample
            assert np.abs(ours[i] - state.numpy()).max() < 1e-5 * max(1.0, np.abs(ours[i]).max())


# ---- another scale of the state ---------------------------------------------------------------------------


@pytest.mark.parametrize("prediction_type", ["epsilon", "sample"])
@pytest.mark.parametrize("solver", list(METHODS))
def test_a_state_in_another_scale_takes_the_same_path(run, solver, prediction_type):
    """alpha and sigma times k at each point is the same problem for k times the state: no formula needs alpha² + sigma² = 1."""
    times = uneven(9, seed=3)
    k = dict(zip(times, np.exp(np.random.default_rng(1).uniform(-2, 2, 9)), strict=True))
    points = Paper(times, prediction_type, None)
    plain = Grid(LINEAR, tuple(_points(points)), prediction_type, -math.inf, math.inf)
    scaled = dataclasses.replace(
        plain,
        points=tuple(
            dataclasses.replace(
                p, log_alpha=p.log_alpha + math.log(k[p.time]), alpha=k[p.time] * p.alpha, sigma=k[p.time] * p.sigma
            )
            for p in plain.points
        ),
    )
    x, noises = np.random.default_rng(2).standard_normal((2, 9, 3))
    for options, _ in METHODS[solver]:
        if options.get("skip_prk_steps") is False:
            continue  # its middle stages are the schedule's own
        record = df.solvers()[solver]
        options = {name: options.get(name, option.default) for name, option in record.options.items()}
        one, other = (record.table(problem, **options) for problem in (plain, scaled))
        ours = run(one, network, x[0], noises)
        theirs = run(other, lambda y, t: network(y / k[t], t), k[times[0]] * x[0], noises)
        called = [row.timestep for row in one.rows[1:]]
        for t, a, b in zip(called, ours[1:], theirs[1:], strict=False):
            np.testing.assert_allclose(b / k[t], a, rtol=0, atol=1e-11 * np.abs(a).max())
        np.testing.assert_allclose(theirs[-1], ours[-1], rtol=0, atol=1e-11 * np.abs(ours[-1]).max())


def _points(paper):
    return (Point(t, math.log(a), a, s) for t, a, s in zip(paper.times, paper.alpha, paper.sigma, strict=False))


# ---- what the whole method does to data -------------------------------------------------------------------


def grid(steps, first=990.0, last=1.0):
    """Even in log-SNR; ends beside the data, where the last step goes."""
    times = LINEAR.timestep_at_log_snr(np.linspace(LINEAR.log_snr(first), LINEAR.log_snr(last), steps))
    times[[0, -1]] = first, last
    return times


def moments(run, gaussian, solver, steps, **options):
    """Largest error of mean and of variance at the last timestep, with no sampling: for Gaussian data the network is affine, so
    every state is an affine function of the first noise and the rows' noises, and its weights can be carried through the rows."""
    plan = df.plan(LINEAR, solver, prediction_type="epsilon", timesteps=grid(steps), **options)
    exact = gaussian.network(LINEAR)
    begin, end = gaussian.marginal(*plan.marginals[0]), gaussian.marginal(*plan.marginals[-2])
    size = len(plan.rows) + 2  # the constant, the first noise, one noise per row

    def of_weights(x, t):
        constant = exact(np.zeros_like(x), t)
        output = exact(x, t) - constant
        output[0] += constant[0]
        return output

    x = np.zeros((size, 4))
    x[0], x[1] = begin[0], np.sqrt(begin[1])
    noises = np.zeros((len(plan.rows), size, 4))
    for i, noise in enumerate(noises):
        noise[i + 2] = 1.0
    weights = run(plan, of_weights, x, noises)[-2]
    return np.abs(weights[0] - end[0]).max(), np.abs((weights[1:] ** 2).sum(0) - end[1]).max()


@pytest.mark.parametrize("eta", [0.5, 1.0])
@pytest.mark.parametrize("solver", ["dpmpp_2m_sde", "dpmpp_3m_sde"])
def test_mean_and_variance_of_a_gaussian(run, gaussian, solver, eta):
    """The mean is kept, as every marginal's is. The variance comes in second order, and third-order predictions only make the
    error smaller: the noise of a step comes at its end, and no prediction within the step knows of it."""
    errors = np.array([moments(run, gaussian, solver, steps, eta=eta) for steps in (50, 100, 200)])
    assert errors[:, 0].max() < 1e-11
    assert np.log2(errors[-2, 1] / errors[-1, 1]) == pytest.approx(2.0, abs=0.2)


# ---- order of convergence on a Gaussian -------------------------------------------------------------------


def order(gaussian, solver, exact_start, **options):
    """Measured on a grid even in log-SNR, the first states from the exact path; with the usual start for 0 of them."""
    if "lower_order_final" in df.solvers()[solver].options:
        options["lower_order_final"] = False
    exact, errors = gaussian.network(LINEAR), []
    for steps in (60, 120, 240):
        times = grid(steps + 1, 700.0, 20.0)
        plan = df.plan(LINEAR, solver, prediction_type="epsilon", timesteps=times, **options)
        # What is exact needs no correction: the first rows are those of the predictor alone.
        start = plan
        if solver == "unipc" and exact_start:
            alone = {**options, "disable_corrector": range(steps)}
            start = df.plan(LINEAR, solver, prediction_type="epsilon", timesteps=times, **alone)
        first = plan.marginals[0]
        state = begin = gaussian.marginal(*first)[0] + np.linspace(-2, 2, 9)[:, None]
        registers, of_start = [None] * plan.registers, [None] * start.registers
        for i, row in enumerate(plan.rows[:-1]):
            if i <= exact_start and exact_start:
                state = gaussian.flow(begin, *first, *plan.marginals[i])
            output = exact(state, row.timestep)
            predicted = apply_row(start.rows[i], state, [output], of_start)
            state = apply_row(row, state, [output], registers)
            if i <= exact_start:
                state = predicted
        errors.append(np.abs(state - gaussian.flow(begin, *first, *plan.marginals[-2])).max())
    return math.log2(errors[-2] / errors[-1])


@pytest.mark.parametrize(
    ("solver", "options", "expected", "exact_start"),
    [
        ("euler", {}, 1, 0),
        ("dpmpp_2m", {}, 2, 1), ("dpmpp_2m", {"solver_type": "heun"}, 2, 1), ("dpmsolver_2m", {}, 2, 1),
        ("dpmpp_3m", {}, 3, 2), ("dpmsolver_3m", {}, 3, 2), ("deis", {"solver_order": 3}, 3, 2),
        ("unipc", {"solver_order": 2}, 3, 2), ("unipc", {"solver_order": 3, "disable_corrector": range(240)}, 3, 2),
        ("lms", {"solver_order": 3}, 3, 2), ("lms", {}, 4, 3), ("ipndm", {}, 2, 3), ("pndm", {}, 2, 0),
        # with their own start, the third-order methods measure 2: their first step is of first order, and its error stays
        ("dpmpp_2m", {}, 2, 0), ("dpmpp_3m", {}, 2, 0), ("dpmsolver_3m", {}, 2, 0), ("deis", {"solver_order": 3}, 2, 0),
    ],
    ids=str,
)  # fmt: skip
def test_order_on_a_gaussian(gaussian, solver, options, expected, exact_start):
    assert order(gaussian, solver, exact_start, **options) == pytest.approx(expected, abs=0.2)


# ---- ends that have no width, or no finite one ------------------------------------------------------------


@pytest.mark.parametrize("solver", [s for s in METHODS if "final_sigmas_type" in df.solvers()[s].options])
def test_a_grid_that_ends_where_the_schedule_does_stays_there(run, solver):
    for options, _ in METHODS[solver]:
        for times in ([0], [600, 0], [950, 700, 640, 200, 90, 0]):
            given = {**options, "final_sigmas_type": "sigma_min"}
            plan = df.plan(LINEAR, solver, prediction_type="epsilon", timesteps=times, **given)
            x = np.random.default_rng(0).standard_normal((2, 3))
            noises = np.random.default_rng(1).standard_normal((len(times), 2, 3))
            states = run(plan, network, x, noises)
            if options.get("disable_corrector") != ():  # which moves the state where it stands
                np.testing.assert_allclose(states[-1], states[-2], rtol=0, atol=1e-12)
            assert np.isfinite(states[-1]).all()


@pytest.mark.parametrize("kind", ["bh1", "bh2"])
def test_unipc_from_a_state_without_signal(run, kind):
    schedule = df.Schedule.scaled_linear().rescale_zero_terminal_snr()
    x0, noise = np.array([0.3, -1.2]), np.array([1.1, 0.4])

    def right(x, t):  # wherever it is asked
        return schedule.alpha(t) * noise - schedule.sigma(t) * x0

    for steps in (1, 2, 5, 20):
        for k in (1, 2, 3):
            options = {"timestep_spacing": "trailing", "solver_order": k, "solver_type": kind}
            plan = df.plan(schedule, "unipc", steps, prediction_type="v_prediction", **options)
            np.testing.assert_allclose(run(plan, right, noise)[-1], x0, rtol=0, atol=1e-12)
            with pytest.raises(PlanError, match="noise form"):
                df.plan(schedule, "unipc", steps, prediction_type="v_prediction", predict_x0=False, **options)


def test_a_runge_kutta_start_between_neighbours_is_refused():
    with pytest.raises(PlanError, match="no integer between 59 and 58"):
        df.plan(df.Schedule.linear(60, 0.001, 0.2), "pndm", 50, prediction_type="epsilon")


def test_a_runge_kutta_start_calls_the_network_at_integer_timesteps():
    """diffusers: half a step of 15 timesteps is 15 // 2 = 7 of them."""
    # Timestep 975, found by its log-SNR, is a rounding error off.
    plan = unguarded_plan(LINEAR, "pndm", timesteps=[975, 960, 945, 930, 915])
    assert plan.timesteps.tolist() == [975, 968, 968, 960, 960, 953, 953, 945, 945, 938, 938, 930, 930, 915]


def test_ipndm_clips_the_data_of_a_start_without_signal(run):
    schedule = df.Schedule.scaled_linear().rescale_zero_terminal_snr()
    options = {"prediction_type": "v_prediction", "timestep_spacing": "trailing", "clip": (-0.5, 0.6)}
    plan = df.plan(schedule, "ipndm", 4, **options)
    x, x0 = np.array([0.3, -1.2, 0.8]), np.array([0.2, -2.0, 3.0])
    alpha, sigma = schedule.alpha(plan.timesteps[1]), schedule.sigma(plan.timesteps[1])
    # v is -x0 where there is no signal.
    np.testing.assert_allclose(run(plan, lambda *_: -x0, x)[1], sigma * x + alpha * np.clip(x0, -0.5, 0.6), rtol=1e-12)


@pytest.mark.parametrize("family", ["linear", "edm", "vp_sde", "sub_vp_sde", "ve_sde"])
@pytest.mark.parametrize("solver", list(METHODS))
def test_the_time_convention_changes_only_the_networks_time(solver, family):
    schedule = getattr(df.Schedule, family)()
    for options, _ in METHODS[solver]:
        given = {"prediction_type": schedule.prediction_types[0], **options}
        plans = [df.plan(schedule, solver, 12, time_convention=c, **given) for c in schedule.time_conventions]
        assert len({plan.timesteps.tobytes() for plan in plans}) > 1
        for one in plans[1:]:
            for a, b in zip(one.rows, plans[0].rows, strict=True):
                assert dataclasses.replace(a, timestep=b.timestep) == b


def test_an_end_that_a_family_does_not_have_is_refused():
    for solver in ("pndm", "ddim"):
        with pytest.raises(ArgumentError, match="set_alpha_to_one=False ends at timestep 0"):
            df.plan(df.Schedule.edm(), solver, 10, prediction_type="denoised", set_alpha_to_one=False)


@pytest.mark.parametrize("schedule", [df.Schedule.edm(), df.Schedule.vp_sde(), df.Schedule.linear()])
def test_deis_ends_where_its_family_can(schedule):
    plan = df.plan(schedule, "deis", 10, prediction_type=schedule.prediction_types[0])
    end = "sigma_min" if schedule.family == "discrete" else "zero"
    assert dict(plan.options)["final_sigmas_type"] == end
    assert plan.marginals[-1] == ((1.0, 0.0) if end == "zero" else (schedule.alpha(0), schedule.sigma(0)))
