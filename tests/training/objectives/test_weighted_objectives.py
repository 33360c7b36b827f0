"""Objectives, weightings and samplers of times: against identities, theory in float64, and what is known of expectations."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import diffuse_fast as df
from diffuse_fast import theory
from diffuse_fast.errors import ArgumentError
from diffuse_fast.training import LearnedScheduleObjective, LogSNRNetwork, Objective, TrainConfig, VariationalObjective
from diffuse_fast.training.objectives import (
    EDM,
    P2,
    ForwardProcess,
    ImportanceTimes,
    LogitNormalTimes,
    LogNormalTimes,
    MinSNR,
    UniformTimes,
    drop_conditions,
)

COSINE = df.Schedule.cosine(50)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# ---- the forward process of every family --------------------------------------------------------


@pytest.mark.parametrize(
    "schedule", [COSINE, df.Schedule.edm(), df.Schedule.flow(), df.Schedule.vp_sde(), df.Schedule.ve_sde()], ids=lambda s: s.family
)
def test_targets_are_what_a_perfect_network_says(schedule):
    """From every prediction type's target, ``df.convert_prediction`` recovers the same data."""
    x0, noise = torch.randn(2, 6, 3, generator=seeded())
    t = UniformTimes(schedule).sample(6, seeded(1)).t
    for prediction_type in schedule.prediction_types:
        x_t, target = ForwardProcess(schedule, prediction_type)(x0, t, noise)
        alpha, sigma = schedule.alpha(t.numpy()), schedule.sigma(t.numpy())
        np.testing.assert_allclose(x_t, alpha[:, None] * x0.numpy() + sigma[:, None] * noise.numpy(), rtol=1e-5, atol=1e-5)
        data = df.convert_prediction(
            target.double(),
            x_t.double(),
            from_=prediction_type,
            to="sample",
            alpha=alpha,
            sigma=sigma,
            sigma_data=schedule.sigma_data,
        )
        error = np.abs(data.numpy() - x0.numpy()).max(1) * alpha
        assert (error < 1e-5 * (1 + sigma)).all(), prediction_type


def test_the_network_gets_times_in_its_convention():
    t = torch.tensor([0.5, 2.0], dtype=torch.float64)
    told = ForwardProcess(df.Schedule.edm(), "edm").network_time(t)
    torch.testing.assert_close(told, (t.log() / 4).float())
    assert ForwardProcess(COSINE, "epsilon").network_time(torch.tensor([3])).dtype == torch.int64
    assert ForwardProcess(COSINE, "epsilon", "continuous").network_time(torch.tensor([49])).tolist() == [1.0]


# ---- weightings ---------------------------------------------------------------------------------

# In closed form, per prediction type: Hang et al. 2023 (section 3.4), Choi et al. 2022 (eq. 8).
PUBLISHED = {
    ("epsilon", "min-snr"): (MinSNR(5.0), lambda snr: np.minimum(snr, 5) / snr),
    ("v_prediction", "min-snr"): (MinSNR(5.0), lambda snr: np.minimum(snr, 5) / (snr + 1)),
    ("sample", "min-snr"): (MinSNR(5.0), lambda snr: np.minimum(snr, 5)),
    ("epsilon", "p2"): (P2(0.5, 2.0), lambda snr: (2 + snr) ** -0.5),
    ("epsilon", "simple"): (None, lambda snr: 1 + 0 * snr),
}


@pytest.mark.parametrize("case", PUBLISHED, ids="-".join)
def test_weights_are_those_of_the_papers(case):
    weighting, expected = PUBLISHED[case]
    objective = Objective(COSINE, case[0], weighting=weighting)
    snr = COSINE.alphas_cumprod / (1 - COSINE.alphas_cumprod)
    np.testing.assert_allclose(objective.weight(torch.arange(50)), expected(snr), rtol=1e-9)


def test_edms_weight_makes_the_raw_networks_error_count_the_same():
    # λ(σ)·c_out² = 1 (Karras et al. 2022, eq. 8 and Table 1).
    schedule = df.Schedule.edm(sigma_data=0.7)
    sigma = torch.tensor([0.01, 0.5, 60.0], dtype=torch.float64)
    objective = Objective(schedule, "edm", weighting=EDM(0.7))
    torch.testing.assert_close(objective.weight(sigma), torch.ones(3, dtype=torch.float64))
    denoised = Objective(schedule, "denoised", weighting=EDM(0.7))
    torch.testing.assert_close(denoised.weight(sigma), torch.from_numpy(schedule.c_out(sigma.numpy()) ** -2.0))


@pytest.mark.parametrize("weighting", [MinSNR(3.0), P2(), EDM()], ids=lambda w: type(w).__name__)
def test_a_weighting_costs_the_same_whatever_is_predicted(weighting):
    """ε, x0 and v of one guess are one guess: a weighting of x0's error gives it one loss."""
    x0, guess = torch.randn(2, 40, 5, generator=seeded())

    def network(prediction_type):
        def predict(x, t):
            alpha, sigma = COSINE.alpha(t.numpy()), COSINE.sigma(t.numpy())
            said = df.convert_prediction(guess.double(), x.double(), from_="epsilon", to=prediction_type, alpha=alpha, sigma=sigma)
            return said

        return predict

    each = [
        Objective(COSINE, kind, weighting=weighting)(network(kind), x0, generator=seeded(3)).each
        for kind in ("epsilon", "sample", "v_prediction")
    ]
    torch.testing.assert_close(each[1], each[0], rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(each[2], each[0], rtol=1e-3, atol=1e-5)


def test_flow_matching_is_the_velocitys_error():
    schedule = df.Schedule.flow()
    x0 = torch.randn(64, 3, generator=seeded())
    seen = {}

    def network(x, t):
        seen.update(x=x, t=t)
        return torch.zeros_like(x)

    losses = Objective(schedule, "flow", times=LogitNormalTimes(schedule))(network, x0, generator=seeded(1))
    sigma = (seen["t"] / 1000)[:, None]
    velocity = (seen["x"] - x0) / sigma  # of the straight path from x0 to the noise, at every point of it
    torch.testing.assert_close(losses.each, velocity.square().mean(1), rtol=1e-3, atol=1e-3)


# ---- times --------------------------------------------------------------------------------------


@pytest.mark.parametrize("spread", ["independent", "antithetic", "low_discrepancy"])
def test_times_are_uniform_however_they_are_spread(spread):
    sampler, generator = UniformTimes(df.Schedule.linear(10), spread), seeded()
    t = torch.cat([sampler.sample(16, generator).t for _ in range(500)])
    # 8,000 draws: five standard deviations of a binomial are 135.
    assert (torch.bincount(t, minlength=10) - 800).abs().max() < 135
    u = UniformTimes(df.Schedule.vp_sde(), spread).sample(2000, generator).t
    assert u.min() >= 1e-3 and u.max() <= 1.0
    assert abs(u.mean() - 0.5005) < 0.04


def test_antithetic_and_even_times_have_less_variance():
    def spread_of_means(spread):
        sampler, generator = UniformTimes(df.Schedule.vp_sde(), spread), seeded()
        return torch.stack([sampler.sample(16, generator).t.mean() for _ in range(200)]).std()

    independent, antithetic, even = map(spread_of_means, ("independent", "antithetic", "low_discrepancy"))
    assert antithetic < 1e-6  # of a mean of something linear in t, nothing is left
    assert even < independent / 3
    t = UniformTimes(df.Schedule.linear(7), "antithetic").sample(9, seeded()).t
    assert (t[:4] + t[5:]).tolist() == [6] * 4


def test_importance_sampling_is_unbiased_and_steadier():
    """E over the drawn times of weight·loss is the plain mean, exactly, and its variance is least (Improved DDPM, eq. 18)."""
    sampler = ImportanceTimes(df.Schedule.linear(20), history=4)
    cost = torch.logspace(-2, 1, 20, dtype=torch.float64)
    uniform = sampler.sample(100, seeded())
    assert (uniform.weight == 1).all()
    for _ in range(5):  # the oldest of them goes
        sampler.update(torch.arange(20), cost)
    p = sampler.probabilities
    assert p.sum().item() == pytest.approx(1.0)
    weight = 1 / (20 * p)
    assert (p * weight * cost).sum().item() == pytest.approx(cost.mean().item(), rel=1e-12)
    second = (p * (weight * cost) ** 2).sum()
    assert second - cost.mean() ** 2 < 0.01 * (cost.square().mean() - cost.mean() ** 2)
    times = sampler.sample(4000, seeded(1))
    torch.testing.assert_close(times.weight.double(), weight[times.t], rtol=1e-6, atol=0.0)
    estimate = times.weight * cost[times.t]
    assert abs(estimate.mean() - cost.mean()) < 5 * estimate.std() / 4000**0.5 + 1e-6


def test_times_are_uniform_until_every_history_is_full():
    times = ImportanceTimes(df.Schedule.linear(2), history=2, uniform=0.0)
    times.update(torch.tensor([0, 1, 0]), torch.tensor([3.0, 1.0, 3.0]))
    assert times.probabilities.tolist() == [0.5, 0.5]
    times.update(torch.tensor([1]), torch.tensor([1.0]))
    assert times.probabilities.tolist() == [0.75, 0.25]


def test_the_history_goes_into_a_checkpoint():
    sampler, again = (ImportanceTimes(df.Schedule.linear(5), history=1) for _ in range(2))
    sampler.update(torch.arange(5), torch.arange(1.0, 6.0))
    again.load_state_dict(sampler.state_dict())
    assert torch.equal(again.probabilities, sampler.probabilities)
    with pytest.raises(ArgumentError, match="history has"):
        ImportanceTimes(df.Schedule.linear(6)).load_state_dict(sampler.state_dict())


def test_log_normal_levels_have_their_moments():
    t = LogNormalTimes(df.Schedule.edm(1e-4, 1e4), mean=-0.5, std=0.8).sample(20_000, seeded()).t.log()
    assert abs(t.mean() + 0.5) < 0.03 and abs(t.std() - 0.8) < 0.02
    inside = LogNormalTimes(df.Schedule.vp_sde(), mean=0.0, std=50.0).sample(100, seeded()).t
    assert inside.min() >= 0.001 - 1e-9 and inside.max() <= 1.0


def test_the_objective_tells_the_sampler_what_each_time_cost():
    sampler = ImportanceTimes(COSINE, history=1)
    objective = Objective(COSINE, "epsilon", times=sampler)
    network = lambda x, t: torch.zeros_like(x)  # noqa: E731  (a network in a line)
    for i in range(40):
        before = sampler.probabilities
        losses = objective(network, torch.zeros(32, 3), generator=seeded(i))
        weight = 1 / (50 * before[losses.t])
        assert losses.loss.item() == pytest.approx((losses.each * weight).mean().item(), rel=1e-5)
    assert (before != 1 / 50).any()


# ---- noise and conditioning ---------------------------------------------------------------------


def test_offset_noise_is_one_number_per_channel():
    seen = []
    objective = Objective(df.Schedule.flow(), "epsilon", offset_noise=2.0)
    objective(lambda x, t: seen.append((x, t)) or x, torch.zeros(2000, 2, 4, 4), generator=seeded())
    x, t = seen[0]
    noise = x / (t / 1000).reshape(-1, 1, 1, 1)
    means = noise.mean((2, 3))
    # Var = offset² + 1/16; five standard errors of a variance of 4,000 draws are 11 %.
    assert means.var().item() == pytest.approx(4 + 1 / 16, rel=0.11)
    assert (noise - means[:, :, None, None]).var().item() == pytest.approx(15 / 16, rel=0.03)


def test_conditions_are_dropped_together():
    cond = {"label": torch.arange(4000) % 10, "embedding": torch.ones(4000, 3)}
    dropped = drop_conditions(cond, {"label": 10, "embedding": 0.0}, 0.2, seeded())
    gone = dropped["label"] == 10
    assert abs(gone.float().mean() - 0.2) < 0.035
    assert torch.equal(dropped["embedding"], (~gone).float()[:, None].expand(-1, 3))
    with pytest.raises(ArgumentError, match="no value for 'embedding'"):
        drop_conditions(cond, {"label": 10}, 0.2, seeded())
    assert drop_conditions({}, {}, 0.5, seeded()) == {}


# ---- the ELBO -----------------------------------------------------------------------------------


@pytest.mark.parametrize("variance_type", ["fixed_small", "fixed_large", "learned_range", "learned"])
@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction", "sample"])
def test_terms_are_those_of_the_theory(variance_type, prediction_type):
    """The torch objective against ``df.theory`` in float64, at every timestep but the decoder's."""
    rng = np.random.default_rng(0)
    x0, x_t, output, v = rng.uniform(-1, 1, (4, 49, 6))
    t = np.arange(1, 50)
    objective = VariationalObjective(COSINE, prediction_type, variance_type=variance_type)
    learned = torch.from_numpy(v) if variance_type.startswith("learned") else None
    bits = objective.terms(*(torch.from_numpy(a) for a in (x0, x_t, output)), learned, torch.from_numpy(t))
    nats = theory.diffusion_term(
        COSINE, x0, x_t, output, t=t, s=t - 1, prediction_type=prediction_type, variance_type=variance_type, v=v
    )
    np.testing.assert_allclose(bits, nats / 6 / np.log(2), rtol=1e-8)


@pytest.mark.parametrize("levels", [None, 2, 17, 256])
def test_the_decoder_is_that_of_the_theory(levels):
    rng = np.random.default_rng(1)
    x0 = 2 * rng.integers(0, levels, (40, 6)) / (levels - 1) - 1 if levels else rng.uniform(-1, 1, (40, 6))
    output = x0 + 0.05 * rng.standard_normal(x0.shape)
    objective = VariationalObjective(COSINE, "sample", levels=levels)
    zero = torch.zeros(40, dtype=torch.int64)
    bits = objective.terms(torch.from_numpy(x0), torch.zeros(40, 6).double(), torch.from_numpy(output), None, zero)
    std = np.sqrt(COSINE.betas[0])
    np.testing.assert_allclose(bits, theory.decoder_term(x0, output, std, levels=levels) / 6 / np.log(2), rtol=1e-7, atol=1e-12)


def test_the_decoders_gradient_is_finite_in_float32_and_points_to_the_data():
    objective = VariationalObjective(COSINE, "sample", levels=256)
    x0 = torch.tensor([[-1.0, 1.0, 51 / 255]])
    output = torch.tensor([[0.9, -0.9, -0.8]], requires_grad=True)
    objective.terms(x0, x0, output, None, torch.tensor([0])).sum().backward()
    assert output.grad.isfinite().all()
    assert (output.grad.sign() == torch.tensor([[1.0, -1.0, -1.0]])).all()


def test_a_term_of_the_bound_stands_for_all_of_them():
    """One of T terms, drawn uniformly, times T is the sum in expectation: T = 7, the decoder's among them."""
    objective, seen = VariationalObjective(df.Schedule.cosine(7), "epsilon"), []

    def network(x, t):
        seen.append(x.double())
        return torch.zeros_like(x)

    x0 = torch.randn(40, 3, generator=torch.Generator().manual_seed(1))
    losses = objective(network, x0, generator=torch.Generator().manual_seed(0))
    assert set(losses.t.tolist()) == set(range(7))
    term = objective.terms(x0.double(), seen[0], torch.zeros_like(seen[0]), None, losses.t)
    torch.testing.assert_close(losses.each.double(), 7 * term, rtol=1e-4, atol=1e-6)


def test_in_the_hybrid_the_bound_teaches_the_variance_alone():
    """Nichol & Dhariwal 2021, section 3.1: the gradient of the mean is L_simple's, that of the variance is lambda·L_vlb's."""
    x0 = torch.randn(64, 2, generator=seeded())
    mean, v = (torch.zeros(64, 2, requires_grad=True) for _ in range(2))
    network = lambda x, t: torch.cat([mean, v], 1)  # noqa: E731  (a network in a line)
    found = {}
    for name, options in {"hybrid": {"simple": True, "vlb_weight": 0.001}, "vlb": {}}.items():
        objective = VariationalObjective(COSINE, "epsilon", variance_type="learned_range", **options)
        loss = objective(network, x0, generator=seeded(1)).loss
        found[name] = torch.autograd.grad(loss, (mean, v))
    simple = torch.autograd.grad(Objective(COSINE, "epsilon")(lambda x, t: mean, x0, generator=seeded(1)).loss, mean)[0]
    torch.testing.assert_close(found["hybrid"][0], simple)
    torch.testing.assert_close(found["hybrid"][1], 0.001 * found["vlb"][1])
    assert found["vlb"][0].abs().sum() > 0 and found["vlb"][1].abs().sum() > 0


# ---- learned schedules --------------------------------------------------------------------------


def test_the_schedule_falls_whatever_its_weights():
    for seed in range(20):
        torch.manual_seed(seed)
        network = LogSNRNetwork(6.0, -8.0, hidden=8)
        with torch.no_grad():
            for p in (network.slope, network.rates, network.centers, network.heights):
                p.normal_(std=3.0)
        t = torch.linspace(0, 1, 200, dtype=torch.float64)
        shape, rate = network.double().shape(t)
        assert (shape.diff() > 0).all() and (rate > 0).all()
        torch.testing.assert_close(rate[1:-1], (shape[2:] - shape[:-2]) / (t[2:] - t[:-2]), rtol=0.3, atol=0.05)
        assert (shape[0].item(), shape[-1].item()) == pytest.approx((0.0, 1.0), abs=1e-12)


def test_the_exported_table_is_the_network():
    torch.manual_seed(0)
    network = LogSNRNetwork(6.0, -8.0)
    schedule = network.schedule()
    t = np.linspace(0, 1, 777)
    assert network.ends.dtype == torch.float32
    np.testing.assert_allclose(schedule.log_snr(t), network(torch.from_numpy(t).float()).detach(), atol=1e-3)
    assert df.Schedule.from_json(schedule.to_json()) == schedule


def optimal_gaussian(std):
    def network(x, log_snr):
        alpha2 = torch.sigmoid(log_snr)[:, None]
        return (1 - alpha2).sqrt() * x / (alpha2 * std**2 + 1 - alpha2)

    return network


def test_the_bound_does_not_depend_on_the_shape_of_the_schedule():
    """For the best network the objective is the differential entropy, whatever lies between the ends (VDM, section 5.1)."""
    std, generator = 0.7, seeded()
    x0 = std * torch.randn(20_000, 2, generator=generator)
    entropy = 0.5 * np.log(2 * np.pi * np.e * std**2)
    for seed in range(3):
        torch.manual_seed(seed)
        log_snr = LogSNRNetwork(9.0, -11.0, hidden=8)
        with torch.no_grad():
            log_snr.heights.normal_(std=2.0)
        losses = LearnedScheduleObjective(log_snr, "epsilon")(optimal_gaussian(std), x0, generator=generator).each
        assert abs(losses.mean().item() - entropy) < 5 * losses.std().item() / 20_000**0.5 + 1e-3


def test_the_shape_gets_the_gradient_of_the_squared_loss():
    """Against a derivative of mean(L²) by differences, the diffusion term being all that the shape moves."""
    torch.manual_seed(0)
    log_snr = LogSNRNetwork(5.0, -7.0, hidden=3).double()
    x0 = torch.randn(16, 2, generator=seeded(), dtype=torch.float64)
    objective = LearnedScheduleObjective(log_snr, "v_prediction")

    def network(x, log_snr):
        return 0.5 * x * torch.tanh(log_snr)[:, None]

    objective(network, x0, generator=seeded(1)).loss.backward()

    def squared():
        losses = objective(network, x0, generator=seeded(1)).each
        # What the ends add does not depend on the shape, and is not squared.
        high, low = log_snr.ends
        generator = seeded(1)
        torch.rand(1, generator=generator), torch.randn(x0.shape, generator=generator)
        noise = torch.randn(x0.shape, generator=generator)
        return (losses - objective._ends(x0, high, low, noise)).square().mean().item()

    for p in (log_snr.heights, log_snr.centers, log_snr.rates, log_snr.slope):
        gradient = p.grad.flatten()[0].item()
        with torch.no_grad():
            p.view(-1)[0] += 1e-5
            above = squared()
            p.view(-1)[0] -= 2e-5
            below = squared()
            p.view(-1)[0] += 1e-5
        assert gradient == pytest.approx((above - below) / 2e-5, rel=1e-3, abs=1e-7)
    assert log_snr.ends.grad is None


def test_of_levels_the_bound_is_an_entropy_and_its_ends_are_learned():
    """Fair coins ±1 have log(2) nats; the best network is known, and ends that cut too much off cost more."""

    def coins(x, log_snr):
        alpha, sigma = torch.sigmoid(log_snr).sqrt()[:, None], torch.sigmoid(-log_snr).sqrt()[:, None]
        return (x - alpha * torch.tanh(alpha * x / sigma**2)) / sigma

    x0 = torch.randn(20_000, 2, generator=seeded()).sign()
    objective = LearnedScheduleObjective(LogSNRNetwork(8.0, -9.0), "epsilon", levels=2)
    losses = objective(coins, x0, generator=seeded(1)).each
    assert abs(losses.mean().item() - np.log(2)) < 5 * losses.std().item() / 20_000**0.5 + 1e-3
    cut = LearnedScheduleObjective(LogSNRNetwork(-1.0, -3.0), "epsilon", levels=2)
    losses = cut(coins, x0, generator=seeded(1))
    assert losses.each.mean().item() > np.log(2) + 0.02
    losses.loss.backward()
    gradient = cut.log_snr.ends.grad
    assert gradient[0] < 0 and gradient[1] != 0  # going down it, less is cut off


def test_the_loop_gives_an_objective_its_labels():
    seen = []

    class Recorder(torch.nn.Module):
        num_classes = 3

        def __init__(self):
            super().__init__()
            self.value = torch.nn.Parameter(torch.tensor(1.0))

        def forward(self, x, t, label):
            seen.append((t, label))
            return x * self.value

    schedule = df.Schedule.edm()
    objective = Objective(schedule, "edm", weighting=EDM(), times=LogNormalTimes(schedule))
    config = TrainConfig(steps=40, batch_size=50, warmup_steps=0, condition_dropout=0.5)
    record = df.train(Recorder(), np.zeros((50, 2)), np.arange(50) % 3, objective=objective, config=config).record
    times, labels = (torch.cat(parts) for parts in zip(*seen, strict=True))
    assert len(record.losses) == 40 and times.dtype == torch.float32
    assert abs(4 * times.mean().item() + 1.2) < 0.2  # c_noise is log(σ)/4
    assert abs((labels == 3).float().mean().item() - 0.5) < 0.06


class Tiny(torch.nn.Module):
    """An MLP told the log-SNR; it predicts ε."""

    def __init__(self):
        super().__init__()
        self.layers = torch.nn.Sequential(
            torch.nn.Linear(4, 64), torch.nn.SiLU(), torch.nn.Linear(64, 64), torch.nn.SiLU(), torch.nn.Linear(64, 2)
        )

    def forward(self, x, t):
        told = torch.stack([t / 8, torch.sigmoid(t)], 1)
        return self.layers(torch.cat([x, told], 1)) + torch.sigmoid(-t)[:, None].sqrt() * x


def test_train_export_and_sample_with_a_learned_schedule(tmp_path):
    """From 2-D data to samples in a process without torch."""
    pytest.importorskip("onnxscript")
    import subprocess
    import sys

    rng = np.random.default_rng(0)
    data = 0.15 * rng.standard_normal((2048, 2)) + np.where(rng.random((2048, 1)) < 0.5, 0.8, -0.8) * np.array([1.0, 0.5])
    torch.manual_seed(0)
    objective = LearnedScheduleObjective(LogSNRNetwork(6.0, -7.0), "epsilon")
    before = objective.schedule()
    config = TrainConfig(steps=700, batch_size=256, learning_rate=4e-3, warmup_steps=20, ema_decay=0.99)
    result = df.train(Tiny(), data, objective=objective, config=config)
    schedule = objective.schedule()
    assert np.mean(result.record.losses[-100:]) < np.mean(result.record.losses[:50]) - 0.2
    assert np.abs(schedule.log_snr(0.5) - before.log_snr(0.5)) > 0.05  # it has learned, and its ends have stayed
    assert (schedule.log_snr(0), schedule.log_snr(1)) == pytest.approx((6.0, -7.0), abs=1e-6)

    def roughness(schedule):
        """Variance of the diffusion loss over t, which is what the shape is for."""
        t = np.linspace(0.005, 0.995, 100)
        slope = -(schedule.log_snr(t + 0.005) - schedule.log_snr(t - 0.005)) / 0.01
        x0 = torch.from_numpy(data[:256]).float()
        noise = torch.randn(x0.shape, generator=seeded())
        costs = []
        for log_snr, rate in zip(schedule.log_snr(t), slope, strict=True):
            alpha2 = 1 / (1 + np.exp(-log_snr))
            x = alpha2**0.5 * x0 + (1 - alpha2) ** 0.5 * noise
            with torch.no_grad():
                error = (result.network(x, torch.full((256,), log_snr).float()) - noise).square().mean()
            costs.append(0.5 * rate * error.item())
        return np.var(costs)

    assert roughness(schedule) < 0.7 * roughness(before)

    path = tmp_path / "learned.onnx"
    df.export(result.network, path, shape=(2,), schedule=schedule, prediction_type="epsilon", value_range=None)
    code = f"""
import sys, numpy as np, diffuse_fast as df
model = df.load({str(path)!r})
assert model.schedule.family == "learned" and model.time.convention == "log_snr"
for name, solver in df.solvers().items():
    if "learned" in solver.families and name != "ddim_inverse":  # which goes from data to noise
        np.save({str(tmp_path)!r} + f"/{{name}}.npy", df.sample(model, 1000, 60 // solver.nfe_per_step, solver=name, seed=0))
assert "torch" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    drawn = {file.stem: np.load(file) for file in tmp_path.glob("*.npy")}
    assert len(drawn) > 20
    sides = {
        solver: [float((np.linalg.norm(x - side * np.array([0.8, 0.4]), axis=1) < 0.6).mean()) for side in (1, -1)]
        for solver, x in drawn.items()
    }
    for solver, near in sides.items():
        # The others, of first order or with noise in every step, are not converged in as many calls.
        least, both = (0.4, 0.9) if solver in ("ddim", "dpmpp_2m") else (0.35, 0.85)
        assert min(near) > least and sum(near) > both, (solver, near)


# ---- what is refused ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: Objective(COSINE, "flow"), "prediction_type is 'flow'"),
        (lambda: Objective(COSINE, "epsilon", convention="c_noise"), "convention is 'c_noise'"),
        (lambda: Objective(COSINE, "epsilon", offset_noise=-1.0), "offset_noise"),
        (lambda: Objective(COSINE.rescale_zero_terminal_snr(), "epsilon", weighting=MinSNR()), "does not determine x0"),
        (lambda: MinSNR(0.0), "gamma"),
        (lambda: P2(k=0.0), "k is"),
        (lambda: EDM(-1.0), "sigma_data"),
        (lambda: UniformTimes(COSINE, "even"), "spread is 'even'"),
        (lambda: ImportanceTimes(df.Schedule.edm()), "need a discrete one"),
        (lambda: ImportanceTimes(COSINE, history=0), "history"),
        (lambda: LogNormalTimes(COSINE), "discrete"),
        (lambda: LogitNormalTimes(df.Schedule.edm()), "need a flow"),
        (lambda: VariationalObjective(COSINE, "epsilon", simple=True), "needs a learned one"),
        (lambda: VariationalObjective(df.Schedule.edm(), "edm"), "discrete"),
        (lambda: VariationalObjective(COSINE, "epsilon", levels=1), "levels"),
        (lambda: VariationalObjective(COSINE, "epsilon", variance_type="small"), "variance_type"),
        (lambda: LearnedScheduleObjective(LogSNRNetwork(), "flow"), "prediction_type"),
        (lambda: LogSNRNetwork(-3.0, 3.0), "must decrease"),
        (lambda: df.train(Tiny(), np.zeros((64, 2)), schedule=COSINE, objective=Objective(COSINE, "epsilon")), "either a schedule"),
    ],
)
def test_what_does_not_fit_is_refused(call, says):
    with pytest.raises(ArgumentError, match=says):
        call()
