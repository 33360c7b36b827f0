"""What a step of a run draws is a function of a sample's place in its batch: noise, times, who loses its label."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

import diffuse_fast as df
from diffuse_fast.kernels import reference
from diffuse_fast.training import LearnedScheduleObjective, LogSNRNetwork, TrainConfig, VariationalObjective
from diffuse_fast.training.data import Generated
from diffuse_fast.training.objectives import BatchPosition, ForwardProcess, Objective, Times, UniformTimes, drop_conditions

COSINE = df.Schedule.cosine(num_train_timesteps=40)
SCHEDULES = {
    "cosine": COSINE, "edm": df.Schedule.edm(), "flow": df.Schedule.flow(), "vp_sde": df.Schedule.vp_sde(),
    "ve_sde": df.Schedule.ve_sde(),
}  # fmt: skip


def normals(shape, *, seed, step, first=0) -> torch.Tensor:
    """The oracle's, of the forward process's stream."""
    each = [reference.normals(math.prod(shape[1:]), seed=seed, index=first + i, row=step, stream=3) for i in range(shape[0])]
    return torch.tensor(np.stack(each), dtype=torch.float32).reshape(shape)


class GivenTimes:
    """The same times at every step."""

    def __init__(self, t):
        self.t = t

    def sample(self, n, generator):
        return Times(self.t[:n], torch.ones(n))


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_the_first_losses_are_those_of_a_plain_torch_loop(prediction_type):
    """Written as a training script writes it, with the noise of the oracle: network, loss, AdamW, warm-up, clipping."""
    steps, batch, seed, rate = 20, 8, 11, 3e-3
    data = np.random.default_rng(0).standard_normal((steps * batch, 1, 4, 4)).astype(np.float32)
    t = torch.arange(batch) * 5

    def network():
        torch.manual_seed(0)
        made = df.nn.UNet(1, channels=8, groups=4, blocks=1)
        with torch.no_grad():
            made.last.weight.normal_(std=0.1)  # it starts at zero, and would give every x_t the same loss
        return made

    config = TrainConfig(
        steps=steps, batch_size=batch, learning_rate=rate, warmup_steps=5, weight_decay=0.01, gradient_clip=0.5, seed=seed
    )
    objective = Objective(COSINE, prediction_type, times=GivenTimes(t))
    found = df.train(network(), Generated(lambda: iter(data)), objective=objective, config=config).record.losses

    plain = network()
    optimizer = torch.optim.AdamW(plain.parameters(), lr=rate, weight_decay=0.01)
    alpha = torch.tensor(COSINE.alphas_cumprod)[t].sqrt().float().reshape(-1, 1, 1, 1)
    sigma = (1 - torch.tensor(COSINE.alphas_cumprod)[t]).sqrt().float().reshape(-1, 1, 1, 1)
    expected = []
    for step in range(1, steps + 1):
        x0 = torch.from_numpy(data[(step - 1) * batch : step * batch])
        noise = normals(x0.shape, seed=seed, step=step)
        target = noise if prediction_type == "epsilon" else alpha * noise - sigma * x0
        loss = torch.nn.functional.mse_loss(plain(alpha * x0 + sigma * noise, t), target)
        expected.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(plain.parameters(), 0.5)
        for group in optimizer.param_groups:
            group["lr"] = rate * (step / 5 if step <= 5 else 0.5 * (1 + math.cos(math.pi * (step - 5) / (steps - 5))))
        optimizer.step()
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert abs(found[-1] / found[0] - 1) > 0.01  # the weights had moved


@pytest.mark.parametrize(
    ("name", "prediction_type"), [(name, kind) for name, schedule in SCHEDULES.items() for kind in schedule.prediction_types]
)
def test_the_compiled_pass_is_torchs_operations(name, prediction_type):
    process = ForwardProcess(SCHEDULES[name], prediction_type)
    t = UniformTimes(SCHEDULES[name]).sample(4, torch.Generator().manual_seed(0)).t
    x0 = torch.randn(4, 3, 5, 5, generator=torch.Generator().manual_seed(1))
    position = BatchPosition(seed=2**62, step=9, first=4, batch=8)
    noise = normals(x0.shape, seed=2**62, step=9, first=4)
    # In float64 it is torch that computes.
    expected = process(x0.double(), t, noise.double())
    scale = [max(1.0, value.abs().max().item()) for value in expected]
    for data, drawn in itertools.product((x0, x0.to(memory_format=torch.channels_last)), (position, noise)):
        for value, exact, size in zip(process(data, t, drawn), expected, scale, strict=True):
            assert value.dtype == torch.float32
            torch.testing.assert_close(value.double(), exact, rtol=1e-5, atol=1e-6 * size)


def objectives():
    yield "antithetic", Objective(COSINE, "epsilon", times=UniformTimes(COSINE, "antithetic"), offset_noise=0.3)
    yield "low discrepancy", Objective(df.Schedule.flow(), "flow", times=UniformTimes(df.Schedule.flow(), "low_discrepancy"))
    yield "elbo", VariationalObjective(COSINE, "v_prediction", levels=16)
    yield "learned schedule", LearnedScheduleObjective(LogSNRNetwork(5.0, -7.0), "epsilon", levels=16)


@pytest.mark.parametrize(("name", "objective"), [pytest.param(*pair, id=pair[0]) for pair in objectives()])
def test_parts_of_a_batch_cost_what_they_cost_in_it(name, objective):
    x0 = torch.rand(6, 2, 3, 3, generator=torch.Generator().manual_seed(0)) * 2 - 1

    def each(first, last):
        position = BatchPosition(seed=3, step=7, first=first, batch=6)
        return objective(lambda x, t: 0.3 * x, x0[first:last], generator=torch.Generator().manual_seed(5), position=position)

    whole = each(0, 6)
    parts = [each(0, 2), each(2, 6)]
    torch.testing.assert_close(torch.cat([part.each for part in parts]), whole.each)
    assert torch.equal(torch.cat([part.t for part in parts]), whole.t)
    weights = (2 / 6, 4 / 6)
    torch.testing.assert_close(sum(w * part.loss for w, part in zip(weights, parts, strict=True)), whole.loss)


def test_offset_noise_is_another_one_per_sample_channel_and_step():
    seen = []
    objective = Objective(COSINE, "epsilon", offset_noise=100.0, times=GivenTimes(torch.full((4,), 39)))
    for step in (1, 2):
        objective(
            lambda x, t: seen.append(x.mean((2, 3))) or x,
            torch.zeros(4, 2, 8, 8),
            generator=torch.Generator(),
            position=BatchPosition(0, step, 0, 4),
        )
    means = torch.cat(seen).flatten() / 100.0
    assert len(means.unique()) == 16
    assert 0.5 < means.std() < 1.6  # 16 normals: within four standard errors of 1


def test_the_same_labels_are_dropped_however_a_batch_is_cut():
    labels = torch.arange(12)

    def dropped(first, last):
        position = BatchPosition(0, 1, first, 12)
        return drop_conditions({"label": labels[first:last]}, {"label": 99}, 0.5, torch.Generator().manual_seed(4), position)[
            "label"
        ]

    whole = dropped(0, 12)
    assert torch.equal(torch.cat([dropped(0, 5), dropped(5, 12)]), whole)
    assert 0 < (whole == 99).sum() < 12


def test_gradient_accumulation_changes_rounding_alone():
    data, labels = np.random.default_rng(0).standard_normal((48, 1, 4, 4)), np.arange(48) % 3
    found = []
    for micro_batch in (None, 4):
        torch.manual_seed(0)
        network = df.nn.UNet(1, channels=8, groups=4, blocks=1, num_classes=3, dropout=0.0)
        config = TrainConfig(steps=4, batch_size=16, micro_batch=micro_batch, warmup_steps=1, condition_dropout=0.4)
        found.append(df.train(network, data, labels, schedule=COSINE, config=config).record.losses)
    np.testing.assert_allclose(*found, rtol=1e-5)
