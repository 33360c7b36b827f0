"""The loop: what it repeats, what it sees, where it stops, what it refuses."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
import torch

import diffuse_fast as df
from diffuse_fast.errors import ArgumentError, ArgumentTypeError, TrainingError
from diffuse_fast.training import TrainConfig
from diffuse_fast.training.data import Arrays
from diffuse_fast.training.run.batch_order import BatchOrder
from diffuse_fast.training.run.loop import rate_factor

SCHEDULE = df.Schedule.cosine(num_train_timesteps=100)


def small(seed: int = 0, **options) -> torch.nn.Module:
    torch.manual_seed(seed)
    return df.nn.UNet(1, **{"channels": 8, "groups": 4, "blocks": 1, "num_classes": 3, "dropout": 0.1, **options})


def problem(samples: int = 48) -> tuple[np.ndarray, np.ndarray]:
    """Three constant pictures and a little noise."""
    rng = np.random.default_rng(0)
    labels = np.arange(samples) % 3
    return (labels - 1.0).reshape(-1, 1, 1, 1) + 0.05 * rng.standard_normal((samples, 1, 4, 4)), labels


def config(**options) -> TrainConfig:
    return TrainConfig(**{"steps": 6, "batch_size": 16, "warmup_steps": 2, **options})


def weights(network: torch.nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in network.parameters()])


class Recorder(torch.nn.Module):
    """A network of one number that keeps what it was called with."""

    num_classes = 3

    def __init__(self, value: float = 1.0):
        super().__init__()
        self.value = torch.nn.Parameter(torch.tensor(value))
        self.labels: list[torch.Tensor] = []
        self.times: list[torch.Tensor] = []

    def forward(self, x, t, label=None):
        self.times.append(t)
        self.labels.append(label)
        return x * self.value


@pytest.mark.parametrize("prediction_type", ["epsilon", "sample", "v_prediction"])
def test_the_loss_falls(prediction_type):
    data, labels = problem()
    record = df.train(
        small(),
        data,
        labels,
        schedule=SCHEDULE,
        config=config(steps=100, prediction_type=prediction_type, learning_rate=5e-3, warmup_steps=5),
    ).record
    assert np.mean(record.losses[-20:]) < 0.7 * np.mean(record.losses[:5])


def test_the_same_arguments_give_the_same_bits():
    data, labels = problem()
    runs = [df.train(small(), data, labels, schedule=SCHEDULE, config=config(seed=seed)) for seed in (5, 5, 6)]
    assert torch.equal(weights(runs[0].network), weights(runs[1].network))
    assert runs[0].record.losses == runs[1].record.losses
    assert runs[0].record.losses != runs[2].record.losses


def test_the_callers_random_state_is_left_alone():
    data, labels = problem()
    network = small()
    before = torch.get_rng_state()
    df.train(network, data, labels, schedule=SCHEDULE, config=config())
    assert torch.equal(before, torch.get_rng_state())


def test_the_average_is_an_average_of_the_weights():
    data, labels = problem()
    network = Recorder()
    seen = [network.value.item()]
    result = df.train(
        network,
        data,
        labels,
        schedule=SCHEDULE,
        config=config(steps=30, ema_decay=0.5, learning_rate=0.05),
        callback=lambda step, loss: seen.append(network.value.item()),
    )
    average = seen[0]
    for step, value in enumerate(seen[1:], start=1):
        decay = min(0.5, step / (step + 10))
        average = decay * average + (1 - decay) * value
    assert result.network.value.item() == pytest.approx(average, rel=1e-5)
    assert result.network.value.item() != network.value.item()
    assert not result.network.training
    last = df.train(network := Recorder(), data, labels, schedule=SCHEDULE, config=config(ema_decay=0.0))
    assert last.network.value.item() == network.value.item()


def test_the_average_forgets_its_start_in_few_steps():
    """The decay of a step is step/(step + 10) until it reaches the one that was asked for."""
    data, labels = problem()
    network = Recorder()
    seen = [network.value.item()]
    result = df.train(
        network,
        data,
        labels,
        schedule=SCHEDULE,
        config=config(steps=6, ema_decay=0.999, learning_rate=0.05),
        callback=lambda step, loss: seen.append(network.value.item()),
    )
    average = seen[0]
    for step, value in enumerate(seen[1:], start=1):
        average += 10 / (step + 10) * (value - average)
    assert result.network.value.item() == pytest.approx(average, rel=1e-5)
    assert abs(average - seen[0]) > 0.05  # at the full decay it would have moved by less than 0.001


@pytest.mark.parametrize(("probability", "expected"), [(0.0, 0.0), (0.3, 0.3), (1.0, 1.0)])
def test_labels_are_dropped_with_the_probability_asked_for(probability, expected):
    data, labels = problem()
    network = Recorder()
    df.train(network, data, labels, schedule=SCHEDULE, config=config(steps=100, condition_dropout=probability))
    seen = torch.cat(network.labels)
    # 1,600 draws: five standard errors are 0.057.
    assert abs((seen == 3).float().mean().item() - expected) < 0.06
    if probability < 1:
        assert set(seen.tolist()) >= {0, 1, 2}


def test_the_average_has_the_buffers_of_the_last_step():
    class Counting(Recorder):
        def __init__(self):
            super().__init__()
            self.register_buffer("passes", torch.zeros((), dtype=torch.int64))

        def forward(self, x, t, label=None):
            if self.training:
                self.passes += 1
            return super().forward(x, t, label)

    data, labels = problem()
    result = df.train(Counting(), data, labels, schedule=SCHEDULE, config=config())
    assert result.network.passes.item() == 6


def test_a_logged_loss_is_the_mean_since_the_last_line(tmp_path):
    data, labels = problem()
    result = df.train(Recorder(), data, labels, schedule=SCHEDULE, config=config(log_every=2), folder=tmp_path)
    losses = result.record.losses
    with open(tmp_path / "log.csv", newline="", encoding="utf-8") as file:
        found = {int(line["step"]): float(line["loss"]) for line in csv.DictReader(file)}
    assert found == {step: pytest.approx(np.mean(losses[step - 2 : step]), rel=1e-6) for step in (2, 4, 6)}


def test_times_are_uniform_timesteps_of_the_schedule():
    data, labels = problem()
    network = Recorder()
    df.train(network, data, labels, schedule=df.Schedule.cosine(num_train_timesteps=10), config=config(steps=200))
    counts = torch.bincount(torch.cat(network.times), minlength=10)
    assert len(counts) == 10
    # 3,200 draws, 320 each: five standard deviations of a binomial are 85.
    assert (counts - 320).abs().max() < 85


def test_every_sample_is_seen_once_per_pass():
    feed = BatchOrder(Arrays(np.arange(10.0)[:, None]), seed=0)
    drawn = torch.cat([feed.take(4 * i, 4 * i + 4)[0] for i in range(5)])[:, 0]
    first, second = drawn[:10], drawn[10:]
    assert sorted(first.tolist()) == sorted(second.tolist()) == list(range(10))
    assert first.tolist() != second.tolist()
    # A function of the place alone: nothing that came before it counts.
    assert torch.equal(BatchOrder(Arrays(np.arange(10.0)[:, None]), seed=0).take(7, 15)[0][:, 0], drawn[7:15])
    assert not torch.equal(BatchOrder(Arrays(np.arange(10.0)[:, None]), seed=1).take(0, 20)[0][:, 0], drawn)


def test_the_rate_rises_then_falls_to_nothing():
    made = config(steps=110, warmup_steps=10)
    assert [rate_factor(step, made) for step in (1, 5, 10)] == [0.1, 0.5, 1.0]
    assert rate_factor(60, made) == pytest.approx(0.5)
    assert rate_factor(110, made) == pytest.approx(0.0)
    assert rate_factor(1, config(warmup_steps=0)) < 1.0


def test_a_clipped_gradient_is_no_longer_than_asked():
    data, labels = problem()
    network = Recorder(value=100.0)
    norms: list[float] = []
    df.train(
        network,
        data,
        labels,
        schedule=SCHEDULE,
        config=config(gradient_clip=0.5),
        callback=lambda step, loss: norms.append(network.value.grad.norm().item()),
    )
    assert max(norms) == pytest.approx(0.5, rel=1e-4)
    df.train(
        network,
        data,
        labels,
        schedule=SCHEDULE,
        config=config(gradient_clip=None),
        callback=lambda step, loss: norms.append(network.value.grad.norm().item()),
    )
    assert max(norms) > 10


def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_step():
    class Breaks(Recorder):
        def forward(self, x, t, label=None):
            super().forward(x, t, label)
            return x * self.value * (float("nan") if len(self.times) == 4 else 1.0)

    data, labels = problem()
    network = Breaks()
    steps: list[int] = []
    with pytest.raises(TrainingError, match=r"step 4 is nan"):
        df.train(network, data, labels, schedule=SCHEDULE, config=config(), callback=lambda step, loss: steps.append(step))
    assert steps == [1, 2, 3]
    assert network.value.isfinite()


def test_the_record_says_how_to_repeat_the_run():
    data, labels = problem()
    record = df.train(small(), data, labels, schedule=SCHEDULE, config=config(steps=120, seed=9)).record
    document = json.loads(json.dumps(record.to_json()))
    assert document["config"]["seed"] == 9
    assert document["versions"]["torch"] == torch.__version__
    assert document["samples"] == 48
    assert len(record.losses) == 120
    assert len(document["losses"]) == 50
    # 120 steps in 50 stretches: the first is of three.
    assert document["losses"][0] == pytest.approx(np.mean(record.losses[:3]), rel=1e-4)


def test_progress_without_a_terminal_is_lines(capsys):
    data, labels = problem()
    df.train(small(), data, labels, schedule=SCHEDULE, config=config(), progress=True)
    assert "step 6 of 6" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "error", "named"),
    [
        ({"data": np.zeros((8, 1, 4, 4)), "labels": np.zeros(8, int)}, TrainingError, "too few for a batch of 16"),
        ({"data": np.zeros(48)}, ArgumentError, "shape"),
        ({"data": np.full((48, 1, 4, 4), np.nan)}, ArgumentError, "finite"),
        ({"data": np.zeros((48, 1, 4, 4), complex)}, ArgumentError, "real"),
        ({"data": np.zeros((48, 2, 4, 4))}, ArgumentError, "shape"),
        ({"labels": np.full(48, 3)}, ArgumentError, "0 to 2"),
        ({"labels": np.full(48, -1)}, ArgumentError, "count from 0"),
        ({"labels": np.zeros(47, int)}, ArgumentError, "one per sample"),
        ({"labels": np.zeros((48, 1), int)}, ArgumentError, "one per sample"),
        ({"labels": np.zeros(48)}, ArgumentError, "integers"),
    ],
)
def test_data_that_do_not_fit_are_refused(change, error, named):
    data, labels = problem()
    given = {"data": data, "labels": labels, **change}
    with pytest.raises(error, match=named):
        df.train(small(), given["data"], given["labels"], schedule=SCHEDULE, config=config())


def test_an_objective_that_takes_no_place_is_refused():
    def objective(network, x0, cond=None, *, generator):
        raise AssertionError("it is not called")

    with pytest.raises(ArgumentTypeError, match=r"objective .* must take"):
        df.train(small(), *problem(), objective=objective, config=config())


def test_labels_without_classes_are_refused():
    data, labels = problem()
    with pytest.raises(ArgumentError, match="num_classes"):
        df.train(small(num_classes=None), data, labels, schedule=SCHEDULE, config=config())
    assert df.train(small(num_classes=None), data, schedule=SCHEDULE, config=config()).record.losses


@pytest.mark.parametrize(
    ("option", "error"),
    [
        ({"steps": 0}, ArgumentError),
        ({"steps": 2.5}, ArgumentTypeError),
        ({"batch_size": True}, ArgumentTypeError),
        ({"warmup_steps": 6}, ArgumentError),
        ({"prediction_type": "eps"}, ArgumentError),
        ({"learning_rate": 0.0}, ArgumentError),
        ({"learning_rate": float("nan")}, ArgumentError),
        ({"weight_decay": -1.0}, ArgumentError),
        ({"gradient_clip": 0.0}, ArgumentError),
        ({"ema_decay": 1.0}, ArgumentError),
        ({"condition_dropout": 1.5}, ArgumentError),
        ({"seed": -1}, ArgumentError),
    ],
)
def test_senseless_configurations_are_refused_by_name(option, error):
    with pytest.raises(error, match=next(iter(option))):
        config(**option)
