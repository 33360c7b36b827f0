"""Likelihoods of the best networks there are, against densities in closed form."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from scipy import stats

import diffuse_fast as df
from diffuse_fast.errors import ArgumentError, ArgumentTypeError, NonFiniteError
from diffuse_fast.log_likelihood import adams, bound
from diffuse_fast.solver.solver import Grid

# A Gaussian whose Jacobian is not diagonal, so that a probe does not give the trace by itself.
MEAN = np.array([0.3, -0.2, 0.1])
ROOT = np.array([[0.9, 0.0, 0.0], [0.4, 0.8, 0.0], [-0.3, 0.2, 0.7]])
COVARIANCE = ROOT @ ROOT.T
VP = df.Schedule.vp_sde(sampling_eps=1e-4)


def gaussian_epsilon(x, alpha, sigma, mean=MEAN, covariance=COVARIANCE):
    """E[ε | x] = sigma·V⁻¹·(x − alpha·mean), V the covariance of the state; alpha and sigma (n,)."""
    total = alpha[:, None, None] ** 2 * covariance + sigma[:, None, None] ** 2 * np.eye(len(mean))
    return sigma[:, None] * np.linalg.solve(total, (x - alpha[:, None] * mean)[..., None])[..., 0]


def network(schedule, prediction_type):
    told = schedule.time_conventions[0]

    def predict(x, t):
        t = np.asarray(t, np.float64)
        if told == "c_noise":
            t = np.exp(4 * t)
        elif told == "sigma":
            t = schedule.timestep_at_noise_level(np.clip(t, schedule.sigma_min, schedule.sigma_max))
        alpha, sigma = schedule.alpha(t), schedule.sigma(t)
        epsilon = gaussian_epsilon(x.astype(np.float64), alpha, sigma)
        out = df.convert_prediction(
            epsilon,
            x.astype(np.float64),
            from_="epsilon",
            to=prediction_type,
            alpha=alpha,
            sigma=sigma,
            sigma_data=schedule.sigma_data,
        )
        return out.astype(np.float32)

    return predict


def bits(log_density, x):
    return -log_density / x[0].size / np.log(2)


def gaussian_data(n, seed=0):
    x = MEAN + np.random.default_rng(seed).standard_normal((n, 3)) @ ROOT.T
    return x, bits(stats.multivariate_normal(MEAN, COVARIANCE).logpdf(x), x)


@pytest.mark.parametrize(
    ("schedule", "prediction_type"),
    [(VP, "epsilon"), (df.Schedule.flow(), "flow"), (df.Schedule.edm(), "denoised"), (df.Schedule.ve_sde(sigma_max=300), "epsilon"),
     (df.Schedule.linear(), "v_prediction")],
    ids=lambda v: getattr(v, "family", v),
)  # fmt: skip
def test_the_flows_density_is_the_gaussians(schedule, prediction_type):
    x, truth = gaussian_data(60)
    found = df.likelihood(
        network(schedule, prediction_type),
        x,
        "ode",
        trace="exact",
        schedule=schedule,
        prediction_type=prediction_type,
        input_scale="none",
        rtol=1e-4,
        atol=1e-4,
    )
    assert abs(found.mean - truth.mean()) < 1e-3
    assert found.divergence_error < 1e-3
    assert np.all(found.standard_error == 0.0) and found.draws == 1
    np.testing.assert_allclose(found.terms["prior"] + found.terms["change"], found.bits_per_dim)
    np.testing.assert_allclose(found.bits_per_dim, truth, atol=0.02)  # data a little blurred: up to σ_min²/σ² in the tails


def test_the_trace_by_probes_is_unbiased_and_knows_its_error():
    x, truth = gaussian_data(100)
    found = df.likelihood(network(VP, "epsilon"), x, "ode", draws=8, seed=0, schedule=VP, prediction_type="epsilon")
    assert 0 < found.mean_error < 0.02
    assert abs(found.mean - truth.mean()) < 4 * found.mean_error
    far = np.abs(found.bits_per_dim - truth) / found.standard_error
    assert np.median(far) < 1.5  # a t distribution of 7 degrees: 0.71


class Mixture(torch.nn.Module):
    """The best ε for ½·N(m, s²) + ½·N(−m, s²) in 2-D, in float64."""

    def __init__(self):
        super().__init__()
        self.mean = torch.nn.Parameter(torch.tensor([0.7, -0.4], dtype=torch.float64))
        self.std = 0.25

    def forward(self, x, t):
        assert x.dtype == torch.float64
        integral = 0.1 * t + 0.5 * t**2 * 19.9
        alpha, sigma = torch.exp(-0.5 * integral)[:, None], torch.sqrt(-torch.expm1(-integral))[:, None]
        variance = alpha**2 * self.std**2 + sigma**2
        side = torch.tanh(alpha * (x @ self.mean)[:, None] / variance)
        return sigma * (x - alpha * side * self.mean) / variance


@pytest.mark.parametrize("trace", ["exact", "hutchinson"])
def test_the_flows_density_is_the_mixtures(trace):
    """By gradients of a torch module; the density has two modes."""
    module = Mixture()
    mean, std = module.mean.detach().numpy(), module.std
    rng = np.random.default_rng(0)
    x = np.sign(rng.standard_normal((200, 1))) * mean + std * rng.standard_normal((200, 2))
    each = [stats.multivariate_normal(side * mean, std**2).logpdf(x) for side in (1, -1)]
    truth = bits(np.logaddexp(*each) - np.log(2), x)
    draws = {"draws": 6, "seed": 0} if trace == "hutchinson" else {}
    found = df.likelihood(module, x, "ode", trace=trace, schedule=VP, prediction_type="epsilon", **draws)
    assert found.divergence_error == 0.0
    assert abs(found.mean - truth.mean()) < 1e-3 + 4 * found.mean_error
    if trace == "exact":
        by_differences = df.likelihood(
            lambda x, t: module(torch.from_numpy(x).double(), torch.from_numpy(t).double()).detach().numpy(),
            x,
            "ode",
            trace="exact",
            schedule=VP,
            prediction_type="epsilon",
        )
        gap = abs(by_differences.mean - found.mean)
        assert gap < 1e-3 and gap < by_differences.divergence_error + 2e-4


def wide_data(n, d=64):
    rng = np.random.default_rng(1)
    std, mean = np.linspace(0.8, 1.2, d), np.linspace(-0.2, 0.2, d)
    x = mean + std * rng.standard_normal((n, d))

    def predict(x, t):
        t = np.asarray(t, np.float64)
        alpha, sigma = VP.alpha(t)[:, None], VP.sigma(t)[:, None]
        return (sigma * (x - alpha * mean) / (alpha**2 * std**2 + sigma**2)).astype(np.float32)

    return x, predict, bits(stats.norm(mean, std).logpdf(x).sum(1), x)


def test_the_divergence_error_does_not_depend_on_what_the_network_is_given():
    """The denoiser of two blurred points, on x0 + σ·ε and on EDM's own state: density and doubt are of the same function."""
    schedule = df.Schedule.edm(0.02, 20.0)
    x = np.random.default_rng(0).choice([-1.0, 1.0], (20, 2))

    def denoised(y, c_noise, by_alpha):
        level = np.exp(4 * np.asarray(c_noise, np.float64))[:, None]
        y = y.astype(np.float64) * (1.0 if by_alpha else np.hypot(level, 0.5))
        return np.tanh(y / (level**2 + 0.05)).astype(np.float32)

    options = {"schedule": schedule, "prediction_type": "denoised", "trace": "exact", "rtol": 1e-3, "atol": 1e-4}
    one = df.likelihood(lambda y, t: denoised(y, t, True), x, "ode", input_scale="1/alpha", **options)
    other = df.likelihood(lambda y, t: denoised(y, t, False), x, "ode", input_scale="none", **options)
    assert one.mean == pytest.approx(other.mean, abs=1e-4)
    assert one.divergence_error == pytest.approx(other.divergence_error, rel=0.02) and one.divergence_error > 1e-4


def test_the_bound_is_the_gaussians_likelihood():
    x, predict, truth = wide_data(192)
    found = df.likelihood(predict, x, "elbo", steps=600, draws=1, seed=0, schedule=VP, prediction_type="epsilon")
    assert abs(found.mean - truth.mean()) < 1e-3
    assert found.nfe == 600 and np.isnan(found.standard_error).all()
    assert set(found.terms) == {"prior", "diffusion", "decoder"}


def test_a_stratified_subset_is_unbiased_and_knows_its_error():
    x, predict, truth = wide_data(64)
    common = {"steps": 600, "seed": 3, "schedule": VP, "prediction_type": "epsilon"}
    found = df.likelihood(predict, x, "elbo", evaluations=40, draws=6, **common)
    assert found.nfe == 6 * 41
    assert 0 < found.mean_error < 0.02
    assert abs(found.mean - truth.mean()) < 4 * found.mean_error + 1e-3
    far = np.abs(found.bits_per_dim - truth) / found.standard_error
    assert np.median(far) < 1.7  # a t distribution of 5 degrees: 0.73


def test_a_sample_is_the_same_in_any_batch():
    x, predict, _ = wide_data(6)
    common = {"steps": 20, "seed": 3, "schedule": VP, "prediction_type": "epsilon"}
    together = df.likelihood(predict, x, **common)
    np.testing.assert_array_equal(df.likelihood(predict, x, batch_size=4, **common).bits_per_dim, together.bits_per_dim)
    tail = df.likelihood(predict, x[4:], first_index=4, **common)
    np.testing.assert_array_equal(tail.bits_per_dim, together.bits_per_dim[4:])


@pytest.mark.parametrize("variance_type", ["fixed_small", "fixed_large"])
def test_the_control_variate_changes_no_mean(variance_type, monkeypatch):
    """A bad network, so that nothing is as the control variate supposes."""
    x = np.random.default_rng(0).uniform(-1, 1, (400, 5))
    common = {
        "steps": 30, "draws": 6, "seed": 1, "variance_type": variance_type, "schedule": df.Schedule.cosine(100),
        "prediction_type": "v_prediction",
    }  # fmt: skip
    predict = lambda x, t: np.sin(3 * x)  # noqa: E731  (a network in a line)
    with_it = df.likelihood(predict, x, **common)
    monkeypatch.setattr(bound, "control", lambda schedule, x0, epsilon, t: np.zeros(len(x0)))
    without = df.likelihood(predict, x, **common)
    assert abs(with_it.mean - without.mean) < 4 * np.hypot(with_it.mean_error, without.mean_error)


@pytest.mark.slow  # it exports a network
def test_a_learned_variance_that_is_right_leaves_no_gap(tmp_path):
    """The exact reverse kernel of a Gaussian is Gaussian: with its variance the bound is the likelihood at 20 steps already."""
    pytest.importorskip("onnxscript")
    std, schedule = 0.5, df.Schedule.cosine(20)
    t = np.arange(20)
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    total = alpha**2 * std**2 + sigma**2
    # p(x_s | x_t): 1/(1/(q's variance of x_s) + ratio²/β).
    beta, before = schedule.betas, np.concatenate([[std**2], total[:-1]])
    exact = 1 / (1 / before + (1 - beta) / beta)

    class Best(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("slope", torch.tensor(sigma / total, dtype=torch.float32))
            self.register_buffer("log_variance", torch.tensor(np.log(exact), dtype=torch.float32))

        def forward(self, x, t):
            return torch.cat([self.slope[t][:, None] * x, self.log_variance[t][:, None] + 0 * x], 1)

    model = df.export(
        Best().eval(),
        tmp_path / "best.onnx",
        shape=(8,),
        schedule=schedule,
        prediction_type="epsilon",
        variance="learned",
        value_range=None,
    )
    x = std * np.random.default_rng(0).standard_normal((1500, 8))
    truth = bits(stats.norm(0, std).logpdf(x).sum(1), x).mean()
    found = df.likelihood(model, x, seed=0, draws=4)
    fixed = df.likelihood(model, x, seed=0, draws=4, variance_type="fixed_small")
    # The prior is N(0, 1), and cosine's last alpha is next to nothing.
    assert abs(found.mean - truth) < 4 * found.mean_error + 1e-3
    assert found.mean_error < 0.01
    assert fixed.mean > truth + 0.1


@pytest.mark.parametrize("v", [-1.0, 0.0, 0.6, 1.0])
def test_the_decoder_of_a_learned_range_lies_between_the_posterior_and_beta(v):
    """A network that knows the data: what is left of the last term is the logarithm of its deviation (Improved DDPM, eq. 15)."""
    schedule, level = df.Schedule.linear(), 0.25
    beta, cumulative = schedule.betas, schedule.alphas_cumprod
    small = beta[1] * (1 - cumulative[0]) / (1 - cumulative[1])  # the code of that paper has the next step's, where its own is 0
    log_std = 0.5 * (0.5 * (1 + v) * np.log(beta[0]) + 0.5 * (1 - v) * np.log(small))

    def knows(x, t):
        alpha, sigma = schedule.alpha(t)[:, None], schedule.sigma(t)[:, None]
        return np.concatenate([(x - alpha * level) / sigma, np.full_like(x, v)], 1).astype(np.float32)

    options = {"schedule": schedule, "prediction_type": "epsilon", "variance": "learned_range", "evaluations": 1, "seed": 0}
    found = df.likelihood(knows, np.full((3, 4), level), **options)
    # float32 knows the data to 1e-8 or so, a ten-thousandth of a deviation.
    np.testing.assert_allclose(found.terms["decoder"], (0.5 * np.log(2 * np.pi) + log_std) / np.log(2), rtol=0, atol=1e-4)


def test_levels_are_a_distribution():
    """Bits of discrete data are an entropy: for fair coins ±1 one bit, by both methods."""
    rng = np.random.default_rng(0)
    x = np.sign(rng.standard_normal((200, 4)))

    def coins(x, t):
        t = np.asarray(t, np.float64)
        alpha, sigma = VP.alpha(t)[:, None], VP.sigma(t)[:, None]
        return ((x - alpha * np.tanh(alpha * x / sigma**2)) / sigma).astype(np.float32)

    common = {"levels": 2, "seed": 0, "schedule": VP, "prediction_type": "epsilon"}
    found = df.likelihood(coins, x, steps=300, variance_type="fixed_small", **common)
    assert 1.0 - 4 * found.mean_error < found.mean < 1.05 + 4 * found.mean_error

    # Uniform dequantisation: for data uniform over [-1.5, 1.5] in effect, the cells of 3 levels have log2(3) bits.
    def wide(x, t):  # N(0, 1), of which each level's mass is known
        t = np.asarray(t, np.float64)
        return (x * VP.sigma(t)[:, None]).astype(np.float32)

    level = np.array([[-1.0], [0.0], [1.0]])
    flow = df.likelihood(wide, level, "ode", levels=3, draws=40, seed=0, trace="exact", schedule=VP, prediction_type="epsilon")
    jensen = [-np.mean(stats.norm.logpdf(c + np.linspace(-0.5, 0.5, 20_001))) / np.log(2) for c in level.ravel()]
    assert np.all(np.abs(flow.bits_per_dim - jensen) < 4 * flow.standard_error + 2e-3)


def test_the_digits_have_fewer_bits_than_noise():
    pytest.importorskip("onnxruntime")
    sklearn = pytest.importorskip("sklearn.datasets")
    pictures, labels = sklearn.load_digits(return_X_y=True)
    x = (pictures[:12] / 8 - 1).reshape(-1, 1, 8, 8)
    common = {"levels": 17, "evaluations": 12, "seed": 0}
    found = df.likelihood("digits", x, cond={"label": labels[:12]}, **common)
    wrong = df.likelihood("digits", x, cond={"label": (labels[:12] + 1) % 10}, **common)
    noise = df.likelihood("digits", np.random.default_rng(0).integers(0, 17, x.shape) / 8 - 1, **common)
    assert 0.5 < found.mean < np.log2(17) < noise.mean
    assert found.mean < wrong.mean  # the model knows which digit is which


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        ({"method": "odd"}, ArgumentError, "method is 'odd'"),
        ({"trace": "inexact"}, ArgumentError, "trace"),
        ({"variance_type": "large"}, ArgumentError, "variance_type"),
        ({"variance_type": "learned"}, ArgumentError, "variance is 'none'"),
        ({"method": "ode", "trace": "exact", "draws": 2}, ArgumentError, "is deterministic"),
        ({"x": np.zeros(3)}, ArgumentError, "x has shape"), ({"x": np.array([["a"]])}, ArgumentTypeError, "x has dtype"),
        ({"x": np.full((2, 3), np.nan)}, ArgumentError, "finite"),
        ({"levels": 256}, ArgumentError, "256 levels"),
        ({"steps": 1}, ArgumentError, "steps"),
        ({"steps": 10, "evaluations": 10}, ArgumentError, "9 terms"),
        ({"schedule": df.Schedule.cosine(20), "steps": 21}, ArgumentError, "20 timesteps"),
        ({"schedule": None}, ArgumentError, "schedule="),
        ({"schedule": df.Schedule.scaled_linear().rescale_zero_terminal_snr(), "prediction_type": "v_prediction", "method": "ode"},
         ArgumentError, "signal of the schedule jumps to 0"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused(change, error, says):
    given = {"x": np.full((2, 3), 0.123), "method": "elbo", "schedule": VP, "prediction_type": "epsilon", **change}
    with pytest.raises(error, match=says):
        df.likelihood(lambda x, t: x, given.pop("x"), **given)


def test_data_of_another_scale_are_refused():
    pytest.importorskip("onnxruntime")
    for x in (np.full((1, 1, 8, 8), 255, np.uint8), np.full((1, 1, 8, 8), -3.5)):
        for method in ("elbo", "ode"):
            with pytest.raises(ArgumentError, match="the model's range is -1 to 1; rescale x to it"):
                df.likelihood("digits", x, method, cond={"label": 3}, steps=2)


STDS = np.array([1.2, 0.8, 0.4, 0.2, 0.1, 1e-4])


@pytest.fixture(scope="module")
def whole_model(tmp_path_factory):
    """An artifact that takes int64 timesteps of a cosine schedule: the best v for N(0, STDS²), one of them all but a point."""
    pytest.importorskip("onnxscript")
    schedule = df.Schedule.cosine()
    t = np.arange(1000)
    alpha, sigma = schedule.alpha(t)[:, None], schedule.sigma(t)[:, None]

    class Best(torch.nn.Module):
        def __init__(self):
            super().__init__()
            slope = alpha * sigma * (1 - STDS**2) / (alpha**2 * STDS**2 + sigma**2)
            self.register_buffer("slope", torch.tensor(slope, dtype=torch.float32))

        def forward(self, x, t):
            return self.slope[t] * x

    path = tmp_path_factory.mktemp("whole") / "best.onnx"
    return df.export(Best().eval(), path, shape=STDS.shape, schedule=schedule, prediction_type="v_prediction", value_range=None)


@pytest.mark.parametrize(("steps", "bound"), [(1000, 1e-3), (None, 1e-3), (60, 4e-3)])
def test_the_density_of_a_model_of_integer_timesteps(whole_model, steps, bound):
    assert whole_model.time.dtype == "int64"
    x = STDS * np.random.default_rng(0).standard_normal((40, len(STDS)))
    found = df.likelihood(whole_model, x, "ode", trace="exact", steps=steps)
    # That of data with the noise of timestep 0 on it.
    alpha, sigma = whole_model.schedule.alpha(0), whole_model.schedule.sigma(0)
    blurred = stats.norm(0, np.hypot(STDS, sigma / alpha))
    assert abs(found.mean - bits(blurred.logpdf(x).sum(1), x).mean()) < bound
    assert found.divergence_error < 1e-3
    assert found.nfe <= (steps or 200) * (1 + 4 * len(STDS))  # the output, and a difference of order 4 along each axis


@pytest.mark.parametrize(("power", "order"), [(3, 4.0), (0, 3.0)])
def test_the_order_of_the_method_on_a_given_grid(power, order):
    """y' = −y·t^p on uneven nodes: 4 from where nothing moves at first, else that of the first step, Heun's."""
    errors, counts = [], [200, 400, 800]
    for count in counts:
        u = np.linspace(0.0, 1.0, count + 1)
        nodes = 2.0 * u + 0.1 * np.sin(6.0 * u)
        found = adams.integrate(lambda i, y, nodes=nodes: -y * nodes[i] ** power, nodes, np.ones(1))
        errors.append(abs(found[0] - np.exp(-(nodes[-1] ** (power + 1)) / (power + 1))))
    assert -np.polyfit(np.log(counts), np.log(errors), 1)[0] == pytest.approx(order, abs=0.4)


def test_the_bundled_digits_have_a_density():
    pytest.importorskip("onnxruntime")
    sklearn = pytest.importorskip("sklearn.datasets")
    pictures, labels = sklearn.load_digits(return_X_y=True)
    x = (pictures[:6] / 8 - 1).reshape(-1, 1, 8, 8)
    common = {"levels": 17, "seed": 0, "draws": 1, "steps": 40}
    found = df.likelihood("digits", x, "ode", cond={"label": labels[:6]}, **common)
    wrong = df.likelihood("digits", x, "ode", cond={"label": (labels[:6] + 1) % 10}, **common)
    assert 0.5 < found.mean < np.log2(17)
    assert found.mean < wrong.mean


def test_integer_timesteps_of_another_schedule_are_refused(small):
    pytest.importorskip("onnxruntime")
    x = np.zeros((1, 1, 8, 8))
    with pytest.raises(ArgumentError, match="this model was trained with"):  # whatever its times are
        df.likelihood("digits", x, "ode", schedule=df.Schedule.flow(), prediction_type="flow")
    open_ = df.load(small(None), {"sample": "x", "time": "t", "conditioning": {"label": {"null": 4}}})
    with pytest.raises(ArgumentError, match="takes integer timesteps, but the times of this schedule are fractional"):
        df.likelihood(open_, np.zeros((1, 2, 3)), "ode", schedule=df.Schedule.flow(), prediction_type="flow")
    with pytest.raises(ArgumentError, match="steps is 1001; the schedule has 1000"):
        df.likelihood("digits", x, "ode", steps=1001)


@pytest.mark.parametrize("method", ["elbo", "ode"])
def test_nan_is_an_error(method):
    with pytest.raises(NonFiniteError, match="sample 1"):
        df.likelihood(
            lambda x, t: np.where(np.arange(3)[:, None] == 1, np.nan, x).astype(np.float32),
            np.zeros((3, 2)),
            method,
            schedule=VP,
            prediction_type="epsilon",
        )


def test_the_density_far_from_the_data():
    """Where the ODE begins at much noise, u is the state over sqrt(alpha² + sigma²): the change of scale counts."""
    schedule = df.Schedule.vp_sde(sampling_eps=0.1)
    alpha, sigma = schedule.alpha(schedule.t_min), schedule.sigma(schedule.t_min)
    assert alpha < 0.96
    x, _ = gaussian_data(20)
    blurred = stats.multivariate_normal(MEAN, COVARIANCE + (sigma / alpha) ** 2 * np.eye(3))
    found = df.likelihood(
        network(schedule, "epsilon"), x, "ode", trace="exact", schedule=schedule, prediction_type="epsilon", rtol=1e-4, atol=1e-4
    )
    # Without its logarithm, (log alpha)/log 2 = -0.08 bits would be missing.
    np.testing.assert_allclose(found.bits_per_dim, bits(blurred.logpdf(x), x), atol=5e-3)


def test_every_term_of_a_bound_has_noise_of_its_own():
    """Strata, terms and decoder of all draws, each from another row of the stream."""
    drawn = []
    schedule = df.Schedule.linear(20)
    problem = Grid(schedule=schedule, points=(), prediction_type="epsilon", lo=-np.inf, hi=np.inf, time_convention=None)

    def noise(row, shape):
        drawn.append(row)
        return np.random.default_rng(row).standard_normal((2, *shape))

    rows, nfe = bound.estimate_bound(
        lambda x, t: x,
        None,
        problem,
        np.full((2, 3), 0.5),
        {},
        noise,
        3,
        "auto",
        "none",
        False,
        0,
        steps=None,
        evaluations=19,
        variance_type=None,
        levels=None,
        value_range=(-1.0, 1.0),
        evaluated=lambda: None,
    )
    assert len(drawn) == len(set(drawn)) == 3 * (1 + 19 + 1)
    assert nfe == 3 * 20
    # Noise of its own: the decoder terms of the draws are not alike.
    assert len({row["decoder"][0] for row in rows}) == 3


def test_only_the_ode_of_fractional_times_needs_scipy():
    program = (
        "import sys; sys.modules['scipy'] = sys.modules['scipy.integrate'] = sys.modules['torch'] = None\n"
        "import numpy as np, diffuse_fast as df\n"
        "given = dict(schedule=df.Schedule.vp_sde(), prediction_type='epsilon', seed=0)\n"
        "x = np.zeros((1, 2), np.float32)\n"
        "df.likelihood(lambda x, t: x, x, steps=3, **given)\n"
        "try: df.likelihood(lambda x, t: x, x, 'ode', **given)\n"
        "except df.DiffuseFastError as error: print(error)\n"
    )
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert "pip install '.[likelihood]'" in told
