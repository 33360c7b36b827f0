"""A run that is killed and goes on must end where the whole one ends, to the bit; and what cannot go on says why."""

from __future__ import annotations

import csv
import errno
import json
import resource
import runpy
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import diffuse_fast as df
from diffuse_fast.errors import ArgumentError, OutputError, TrainingError
from diffuse_fast.training import TrainConfig
from diffuse_fast.training.data import Generated
from diffuse_fast.training.objectives import ImportanceTimes, Objective
from diffuse_fast.training.run import checkpoint

pytest.importorskip("safetensors")
PROGRAM = Path(__file__).with_name("runs.py")
SCHEDULE = df.Schedule.cosine(num_train_timesteps=50)
CONFIG = TrainConfig(steps=8, batch_size=8, warmup_steps=2, checkpoint_every=3, log_every=2)


def small(**options) -> torch.nn.Module:
    torch.manual_seed(0)
    return df.nn.UNet(1, **{"channels": 8, "groups": 4, "blocks": 1, "num_classes": 3, "dropout": 0.1, **options})


def problem() -> tuple[np.ndarray, np.ndarray]:
    labels = np.arange(40) % 3
    return (labels - 1.0).reshape(-1, 1, 1, 1) + 0.05 * np.random.default_rng(0).standard_normal((40, 1, 4, 4)), labels


def run(folder: Path, *, network=None, data=None, labels=None, config=CONFIG, schedule=SCHEDULE, **options):
    own, marks = problem()
    data, labels = (own, marks) if data is None else (data, labels)
    return df.train(network or small(), data, labels, schedule=schedule, config=config, folder=folder, **options)


def weights(network: torch.nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in network.parameters()])


class Stop(Exception):
    pass


def stop_at(number: int):
    def callback(step: int, loss: float) -> None:
        if step == number:
            raise Stop

    return callback


def program(folder: Path, out: Path, **options) -> None:
    """In this process: a process of its own takes most of its time to load torch."""
    runpy.run_path(str(PROGRAM))["main"](str(folder), str(out), json.dumps(options))


def killed_program(folder: Path, out: Path, **options) -> int:
    return subprocess.run([sys.executable, PROGRAM, folder, out, json.dumps(options)]).returncode


@pytest.mark.parametrize("steps", [20, pytest.param(200, marks=pytest.mark.slow)])
def test_a_killed_run_goes_on_to_the_same_bits(tmp_path, steps):
    options = {"steps": steps, "batch_size": 8, "micro_batch": 4, "warmup_steps": 2, "checkpoint_every": steps // 2}
    program(tmp_path / "whole", tmp_path / "whole.json", **options)
    # Killed some steps after the checkpoint: those are done again.
    killed = {**options, "kill_at": steps // 2 + 3}
    assert killed_program(tmp_path / "killed", tmp_path / "killed.json", **killed) == -signal.SIGKILL
    assert not (tmp_path / "killed.json").exists()
    (tmp_path / "killed" / ".checkpoint-00000010.abcd.safetensors").write_bytes(b"half")  # as a kill while writing leaves it
    program(tmp_path / "killed", tmp_path / "killed.json", **options, resume=True)
    whole, killed = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("whole", "killed"))
    assert killed["losses"] == whole["losses"]
    assert killed["average"] == whole["average"]
    assert len(killed["seen"]) == steps - steps // 2
    assert list((tmp_path / "killed").glob(".checkpoint*")) == []
    last = [checkpoint.newest(tmp_path / name).tensors for name in ("whole", "killed")]
    assert last[0].keys() == last[1].keys()
    assert all(torch.equal(last[0][name], last[1][name]) for name in last[0])
    for name in ("whole", "killed"):
        with open(tmp_path / name / "log.csv", newline="") as file:
            rows = list(csv.DictReader(file))
        assert int(rows[-1]["step"]) == steps
        assert len({row["step"] for row in rows}) == len(rows)


def test_an_objective_with_a_memory_and_a_generator_go_on(tmp_path):
    def make():
        rng = np.random.default_rng(3)
        while True:
            yield rng.standard_normal((1, 4, 4)).astype(np.float32)

    def go(folder, **options):
        objective = Objective(SCHEDULE, "epsilon", times=ImportanceTimes(SCHEDULE, history=1))
        given = {"network": small(num_classes=None), "data": Generated(make), "schedule": None, "objective": objective}
        return run(tmp_path / folder, **given, **options)

    config = replace(CONFIG, steps=30, checkpoint_every=20)
    expected = go("a", config=config)
    with pytest.raises(Stop):
        go("b", config=config, callback=stop_at(24))
    found = go("b", config=config, resume=True)
    assert found.record.losses == expected.record.losses
    assert torch.equal(weights(found.network), weights(expected.network))


def test_resume_without_a_run_begins_and_a_finished_run_stays(tmp_path):
    first = run(tmp_path / "r", resume=True)
    again = run(tmp_path / "r", resume=True)
    assert again.record.losses == first.record.losses
    assert torch.equal(weights(first.network), weights(again.network))
    kept = [f"checkpoint-0000000{step}.safetensors" for step in (6, 8)]
    assert [p.name for p in checkpoint.found(tmp_path / "r")] == kept
    with pytest.raises(ArgumentError, match=r"has a run already \(checkpoint-00000008"):
        run(tmp_path / "r")


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"config": replace(CONFIG, learning_rate=2e-3, batch_size=4)}, "batch_size was 8 and is 4; .*rate was 0.001 and is 0.002"),
        ({"schedule": df.Schedule.cosine(num_train_timesteps=60)}, r"schedule.num_train_timesteps was 50 and is 60"),
        ({"data": np.zeros((50, 1, 4, 4)), "labels": np.arange(50) % 3}, r"data.samples was 40 and is 50"),
        ({"network": small(channels=16)}, r"in the checkpoint and .* in this network"),
        ({"network": small(blocks=2)}, "in this network|from another network"),
    ],
)  # fmt: skip
def test_another_run_is_not_resumed(tmp_path, change, named):
    run(tmp_path / "r")
    with pytest.raises(ArgumentError, match=named):
        run(tmp_path / "r", resume=True, **change)


def test_what_changes_no_number_may_change(tmp_path):
    run(tmp_path / "r")
    run(tmp_path / "r", resume=True, config=replace(CONFIG, checkpoint_every=5, log_every=1, keep_checkpoints=9))


def test_a_damaged_checkpoint_is_passed_over(tmp_path, caplog):
    run(tmp_path / "r")
    newest = checkpoint.found(tmp_path / "r")[-1]
    newest.write_bytes(newest.read_bytes()[:-100])
    assert checkpoint.newest(tmp_path / "r").document["step"] == 6
    assert newest.name in caplog.text
    for path in checkpoint.found(tmp_path / "r"):
        path.write_bytes(b"\x80\x04pickle")
    with pytest.raises(ArgumentError, match="no intact checkpoint"):
        run(tmp_path / "r", resume=True)
    torch.save({}, tmp_path / "p.safetensors")
    with pytest.raises(ArgumentError, match="Only safetensors"):
        checkpoint.read(tmp_path / "p.safetensors")


DAMAGE = {
    "no run": lambda d: d.pop("run") and None,
    "no seconds": lambda d: d.pop("seconds") and None,
    "no step": lambda d: d.pop("step") and None,
    "no version": lambda d: d.pop("version") and None,
    "another version": lambda d: d.update(version=9),
    "run is a list": lambda d: d.update(run=[]),
    "seconds are text": lambda d: d.update(seconds="long"),
    "seconds below 0": lambda d: d.update(seconds=-1),
    "another number of losses": lambda d: d.update(step=7),
    "a list": lambda d: [d],
    "deep": lambda d: "[" * 100_000,
    "not JSON": lambda d: "{",
    "empty": lambda d: "",
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_damaged_metadata_are_passed_over(tmp_path, caplog, damage):
    """The newest file is whole as safetensors, and its document is not."""
    from safetensors.torch import save_file

    for step in (1, 2):
        document = {"step": step, "seconds": 1.0, "run": {}, "versions": {}}
        checkpoint.save(tmp_path, step, {"losses": torch.zeros(step), "network.a": torch.ones(2)}, document, keep=9)
    newest = checkpoint.found(tmp_path)[-1]
    document = {"version": 1, "step": 2, "seconds": 1.0, "run": {}, "versions": {}}
    changed = damage(document)
    text = changed if isinstance(changed, str) else json.dumps(changed if isinstance(changed, list) else document)
    save_file({"losses": torch.zeros(2), "network.a": torch.ones(2)}, newest, metadata={checkpoint.KEY: text})
    assert checkpoint.newest(tmp_path).document["step"] == 1
    assert newest.name in caplog.text
    save_file({"network.a": torch.ones(2)}, newest, metadata={checkpoint.KEY: json.dumps({**document, "step": 2})})
    assert checkpoint.newest(tmp_path).document["step"] == 1  # without its losses


def test_nan_stops_and_names_step_and_checkpoint(tmp_path):
    def make():
        yield from (np.full((1, 4, 4), 0.5 if i < 8 * 4 else 1e30, dtype=np.float32) for i in range(80))

    with pytest.raises(TrainingError, match=r"step 5 is (nan|inf).*checkpoint-00000003\.safetensors"):
        run(tmp_path / "r", network=small(num_classes=None), data=Generated(make))
    last = checkpoint.newest(tmp_path / "r")
    assert last.document["step"] == 3
    assert all(tensor.isfinite().all() for tensor in last.tensors.values() if tensor.is_floating_point())


def test_a_full_disk_is_an_error_and_the_last_checkpoint_stays(tmp_path):
    """The system itself refuses: no file may grow beyond 40 kB, which the second checkpoint of a larger network does."""
    run(tmp_path / "r", config=replace(CONFIG, steps=3))
    kept = checkpoint.found(tmp_path / "r")[-1].read_bytes()
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    state = checkpoint.newest(tmp_path / "r")
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(kept) // 2, limit[1]))
        with pytest.raises(OutputError, match="cannot write"):
            checkpoint.save(tmp_path / "r", 4, state.tensors, {}, keep=1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        signal.signal(signal.SIGXFSZ, handler)
    assert [p.name for p in (tmp_path / "r").glob("*checkpoint*")] == ["checkpoint-00000003.safetensors"]
    assert checkpoint.found(tmp_path / "r")[0].read_bytes() == kept


def test_no_space_for_a_log_is_an_error(tmp_path, monkeypatch):
    from diffuse_fast.training.run import logs

    def full(*args, **options):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(logs, "open", full, raising=False)
    with pytest.raises(OutputError, match="No space left"):
        run(tmp_path / "r")


def test_samples_figures_and_logs_appear(tmp_path):
    from PIL import Image

    seen = []
    config = replace(CONFIG, sample_every=4, evaluate_every=4)
    run(tmp_path / "r", config=config, evaluate=lambda network: seen.append(network.training) or {"figure": len(seen)})
    assert seen == [False, False]
    assert sorted(p.name for p in (tmp_path / "r" / "samples").iterdir()) == ["step-00000004.png", "step-00000008.png"]
    with Image.open(tmp_path / "r" / "samples" / "step-00000008.png") as image:
        assert image.size == (4 * 6 * 16, 4 * 6 * 16)  # four of four pixels and a line around them, enlarged
    assert (tmp_path / "r" / "metrics.csv").read_text().split() == ["step,metric,value", "4,figure,1", "8,figure,2"]
    with open(tmp_path / "r" / "log.csv", newline="") as file:
        assert [row["step"] for row in csv.DictReader(file)] == ["2", "4", "6", "8"]


def test_parts_of_a_batch_add_up_to_its_gradient(tmp_path):
    """Gradient accumulation with a loss that has no randomness: four parts are the whole."""

    class Square:
        def __call__(self, network, x0, cond=None, *, generator, position=None):
            from diffuse_fast.training.objectives import Losses

            t = torch.zeros(len(x0), dtype=torch.int64)
            each = (network(x0, t) - x0).square().flatten(1).mean(1)
            return Losses(each.mean(), each.detach(), t)

    found = []
    for micro_batch in (None, 2):
        network = small(num_classes=None, dropout=0.0)
        df.train(network, problem()[0], objective=Square(), config=replace(CONFIG, steps=4, micro_batch=micro_batch))
        found.append(weights(network))
    torch.testing.assert_close(found[0], found[1], rtol=1e-4, atol=1e-6)


def test_bfloat16_keeps_float32_weights_and_learns(tmp_path):
    result = run(tmp_path / "r", config=replace(CONFIG, precision="bfloat16", steps=60, learning_rate=5e-3))
    assert {p.dtype for p in result.network.parameters()} == {torch.float32}
    assert np.mean(result.record.losses[-10:]) < 0.8 * np.mean(result.record.losses[:5])


@pytest.mark.slow  # compiles
@pytest.mark.filterwarnings("ignore")  # the compiler's own
def test_a_compiled_network_learns_the_same(tmp_path):
    data = np.random.default_rng(0).standard_normal((40, 2))
    losses = []
    for compile in (False, True):
        torch.manual_seed(0)
        network = df.nn.MLP(2, width=16, depth=1)
        losses.append(df.train(network, data, schedule=SCHEDULE, config=replace(CONFIG, compile=compile)).record.losses)
    np.testing.assert_allclose(*losses, rtol=1e-4)


def test_tensorboard_where_it_is_installed(tmp_path):
    pytest.importorskip("tensorboard")
    run(tmp_path / "r", config=replace(CONFIG, tensorboard=True, sample_every=8))
    assert [p.name.startswith("events") for p in (tmp_path / "r" / "tensorboard").iterdir()] == [True]


class Frozen(torch.nn.Module):
    """A network that reads random numbers which are not trained: a parameter, a submodule and a buffer that is not persistent."""

    def __init__(self, seed: int):
        super().__init__()
        torch.manual_seed(seed)
        self.scale = torch.nn.Parameter(torch.randn(4), requires_grad=False)
        self.features = torch.nn.Conv2d(1, 2, 1).requires_grad_(False)
        self.register_buffer("shift", torch.randn(4), persistent=False)
        torch.manual_seed(0)
        self.last = torch.nn.Conv2d(2, 1, 1)

    def forward(self, x, t):
        return self.last(self.features(x * self.scale + self.shift))


def test_a_resumed_run_takes_what_is_not_trained_from_the_checkpoint(tmp_path):
    """The network is made anew with other random numbers, as a new process makes it."""
    data = problem()[0]
    whole_run = run(tmp_path / "a", network=Frozen(1), data=data)
    with pytest.raises(Stop):
        run(tmp_path / "b", network=Frozen(1), data=data, callback=stop_at(5))
    resumed = Frozen(2)
    found = run(tmp_path / "b", network=resumed, data=data, resume=True)
    assert found.record.losses == whole_run.record.losses
    x, t = torch.from_numpy(data).float(), torch.zeros(40, dtype=torch.int64)
    expected = whole_run.network(x, t)
    assert torch.equal(found.network(x, t), expected)
    for name in ("scale", "features.weight", "features.bias", "shift"):
        kept = checkpoint.newest(tmp_path / "b").tensors[f"network.{name}"]
        assert torch.equal(kept, resumed.get_buffer(name) if name == "shift" else resumed.get_parameter(name))


def test_a_run_may_be_resumed_for_more_steps_or_fewer(tmp_path):
    from diffuse_fast.training.run.loop import rate_factor

    with pytest.raises(Stop):
        run(tmp_path / "r", config=replace(CONFIG, steps=100, checkpoint_every=1, keep_checkpoints=1), callback=stop_at(6))
    assert checkpoint.newest(tmp_path / "r").document["step"] == 5
    with pytest.raises(ArgumentError, match=r"steps is 4, but the run .* has done 5; give at least 5"):
        run(tmp_path / "r", config=replace(CONFIG, steps=4), resume=True)
    fewer = run(tmp_path / "r", config=CONFIG, resume=True)
    assert len(fewer.record.losses) == CONFIG.steps == 8
    longer = replace(CONFIG, steps=12, log_every=1)
    more = run(tmp_path / "r", config=longer, resume=True)
    assert len(more.record.losses) == 12
    assert more.record.losses[:8] == fewer.record.losses
    with open(tmp_path / "r" / "log.csv", newline="") as file:
        rates = {int(row["step"]): float(row["learning_rate"]) for row in csv.DictReader(file)}
    for step in (9, 12):  # half a cosine from the end of the warm-up, step 2, to step 12
        expected = 1e-3 * 0.5 * (1 + np.cos(np.pi * (step - 2) / 10))
        assert rates[step] == pytest.approx(expected, rel=1e-6, abs=1e-12)
        assert rate_factor(step, longer) * 1e-3 == pytest.approx(expected, abs=1e-12)


def test_seconds_go_on_where_the_checkpoint_is(tmp_path):
    run(tmp_path / "r", config=replace(CONFIG, steps=3))
    path = checkpoint.found(tmp_path / "r")[-1]
    state = checkpoint.read(path)
    checkpoint.save(tmp_path / "r", 3, state.tensors, {**state.document, "seconds": 1000.0}, keep=2)
    record = run(tmp_path / "r", resume=True).record
    assert 1000.0 < record.seconds < 1200.0
    assert 1000.0 < checkpoint.newest(tmp_path / "r").document["seconds"] <= record.seconds


def test_what_a_run_did_not_have_before_is_a_difference():
    then, now = {"config": {"seed": 1, "old": 2}}, {"config": {"seed": 1, "new": True}, "data": 3}
    lines = ["config.old was 2 and is None", "config.new was None and is True", "data was None and is 3"]
    assert checkpoint.differences(then, now) == lines
