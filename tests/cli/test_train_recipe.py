"""``diffuse-fast train`` on data of one's own: from a folder of images to an artifact that samples."""

from __future__ import annotations

import json

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("safetensors")
pytest.importorskip("PIL")
from PIL import Image

import diffuse_fast as df
from diffuse_fast.training.run import checkpoint

CONFIG = """
[data]
kind = "images"
path = "pictures"
size = 8
channels = 1
labels = true
on_error = "skip"
held_out = 0.25

[network]
type = "UNet"
channels = 8
groups = 4
blocks = 1

[schedule]
type = "linear"
num_train_timesteps = 20

[train]
steps = 4
batch_size = 4
warmup_steps = 1
checkpoint_every = 2
evaluate_every = 2
sample_every = 4

[artifact]
name = "bars"
license = "CC0-1.0"
"""


@pytest.fixture
def pictures(tmp_path):
    """Bright and dark pictures of several sizes, and a configuration."""
    rng = np.random.default_rng(0)
    for i in range(12):
        folder = tmp_path / "pictures" / ("dark" if i % 2 else "light")
        folder.mkdir(parents=True, exist_ok=True)
        levels = rng.integers(0, 100, (10 + i, 9, 3)) + (0 if i % 2 else 150)
        Image.fromarray(levels.astype(np.uint8)).save(folder / f"{i}.png")
    (tmp_path / "c.toml").write_text(CONFIG)
    return tmp_path


@pytest.mark.filterwarnings("ignore")  # of torch, about itself
def test_from_a_folder_of_images_to_samples(run, pictures, caplog):
    pytest.importorskip("onnxruntime")
    (pictures / "pictures" / "dark" / "broken.png").write_bytes(b"no picture")
    result = run("train", "c.toml", "--out", "runs/bars", "--set", "network.multipliers=[1]", "--seed", 3)
    assert result.exit_code == 0, result.stderr
    folder = pictures / "runs" / "bars"
    model = df.load(folder / "bars.onnx")
    assert model.sha256 in result.stdout
    assert "1 of the images cannot be read and were skipped: dark/broken.png" in caplog.text
    assert (model.shape, model.value_range, model.clip, model.license) == ((1, 8, 8), (-1, 1), (-1, 1), "CC0-1.0")
    assert (model.conditioning[0].null, model.schedule) == (2, df.Schedule.linear(20))
    assert model.training["config"]["seed"] == 3
    assert model.training["samples"] == 9
    assert df.sample(model, 3, 5, seed=0, cond={"label": 1}).shape == (3, 1, 8, 8)
    assert sorted(p.name for p in folder.iterdir() if p.is_file()) == [
        "bars.onnx",
        "checkpoint-00000002.safetensors",
        "checkpoint-00000004.safetensors",
        "log.csv",
        "metrics.csv",
    ]
    lines = (folder / "metrics.csv").read_text().split()
    assert [line.rpartition(",")[0] for line in lines[1:]] == ["2,held_out_loss", "4,held_out_loss"]
    assert [p.name for p in (folder / "samples").iterdir()] == ["step-00000004.png"]

    refused = run("train", "c.toml", "--out", "runs/bars")
    assert refused.exit_code == 1
    assert "has a run already" in refused.stderr
    arguments = ("--resume", "--learning-rate", 0.1, "--seed", 3, "--set", "network.multipliers=[1]")
    other = run("train", "c.toml", "--out", "runs/bars", *arguments)
    assert other.exit_code == 1
    assert "learning_rate was 0.001 and is 0.1" in other.stderr


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["absent.toml"], 1, "cannot read the configuration"),
        (["c.toml", "--set", "train.step=3"], 1, "unknown setting train.step. Did you mean 'steps'"),
        (["c.toml", "--set", "data.kind=folder"], 1, "data.kind is 'folder'"),
        (["c.toml", "--set", "data.path=absent"], 1, "section [data]: there is no folder 'absent'"),
        (["c.toml", "--set", "network.type=UNet1D"], 1, "samples of 2 axes"),
        (["c.toml", "--set", "network.channel=8"], 1, "'channels'"),
        (["c.toml", "--set", "network.num_classes=1"], 1, "a network of 1 classes takes 0 to 0"),
        (["c.toml", "--set", "schedul.type=cosine"], 1, "there is no section [schedul]"),
        (["c.toml", "--set", "artifact.licence=MIT"], 1, "'license'"),
        (["c.toml", "--batch-size", "10"], 1, "too few for a batch of 10"),
        (["c.toml", "--steps", "0"], 1, "section [train]: steps is 0"),
        (["c.toml", "--set", "steps"], 2, "SECTION.KEY=VALUE"),
        (["--data", "pictures"], 1, "several shapes"),
    ],
)
def test_refusals_name_the_setting(run, pictures, arguments, status, message):
    result = run("train", *arguments, "--out", "out")
    assert result.exit_code == status, result.output
    assert message in " ".join(result.stderr.split())
    assert not (pictures / "out").exists()


def test_an_artifact_of_another_run_is_not_replaced(run, pictures, monkeypatch):
    """Found before the training, also where there is no run to resume."""
    from diffuse_fast.training.config import recipe

    monkeypatch.setattr(recipe, "train", lambda *_args, **_options: pytest.fail("trained"))
    (pictures / "out").mkdir()
    (pictures / "out" / "model.onnx").write_text("mine")
    for more in ([], ["--resume"]):
        result = run("train", "c.toml", "--set", "artifact.name=model", "--out", "out", *more)
        assert (result.exit_code, "exists and is not from a run" in " ".join(result.stderr.split())) == (1, True), result.stderr
    assert (pictures / "out" / "model.onnx").read_text() == "mine"


def test_flags_alone_make_a_recipe(run, pictures, monkeypatch):
    from diffuse_fast.training.config import recipe

    made = []
    monkeypatch.setattr(recipe, "run", lambda recipe, out, **options: made.append((recipe, out, options)))
    told = run("train", "--data", "pictures", "--size", 16, "--batch-size", 2, "--out", "o", "--resume")
    assert told.exit_code == 0
    assert "12 images become (3, 16, 16) with values from -1 to 1" in told.stderr
    np.save(pictures / "points.npy", np.zeros((100, 3)))
    told = run("train", "--data", "points.npy", "--set", "network.type=MLP", "--out", "o")
    assert told.exit_code == 0
    assert "100 samples of (3,), float64: values from 0 to 0 are not scaled" in told.stderr
    np.save(pictures / "bright.npy", np.ones((100, 1, 8, 8), np.float32))
    assert "none below 0" in run("train", "--data", "bright.npy", "--out", "o").stderr
    asked = ("--set", "data.data_range=[0, 1]", "--set", "network.channels=8")
    assert run("train", "--data", "bright.npy", "--out", "o", *asked).exit_code == 0
    assert made.pop()[0].artifact["clip"] == (-1.0, 1.0)
    (images, _, options), (points, *_) = made
    assert images.source.shape == (3, 16, 16)
    assert images.config.batch_size == 2
    assert options == {"resume": True, "device": "cpu"}
    assert points.network.features == 3
    assert points.artifact["clip"] is None
    assert json.dumps(points.settings)


@pytest.fixture
def points(tmp_path):
    """Points of the plane, and a configuration of a network so small that what is asked of it takes the time."""
    np.save(tmp_path / "points.npy", np.random.default_rng(0).uniform(-1, 1, (64, 2)))
    (tmp_path / "p.toml").write_text(
        '[data]\nkind = "arrays"\npath = "points.npy"\nheld_out = 0.25\n[network]\ntype = "MLP"\nwidth = 8\ndepth = 1\n'
        "[train]\nsteps = 3\nbatch_size = 8\nwarmup_steps = 1\nsample_every = 3\n"
    )
    return tmp_path


HYBRID = ("--objective", "hybrid", "--times", "importance", "--set", "schedule.num_train_timesteps=3")


@pytest.mark.parametrize(
    ("arguments", "family", "kind", "told"),
    [
        (("--set", "objective.offset_noise=0.1", "--set", "times.spread=antithetic"), "discrete", "Objective", {}),
        (("--weighting", "min_snr", "--set", "weighting.gamma=3.0"), "discrete", "Objective", {}),
        (("--weighting", "p2", "--set", "schedule.rescale_zero_terminal_snr=true", "--prediction-type", "v_prediction"),
         "discrete", "Objective", {}),
        (("--objective", "vlb", "--set", "objective.variance_type=fixed_small"), "discrete", "VariationalObjective", {}),
        ((*HYBRID, "--set", "times.history=1"), "discrete", "VariationalObjective", {"variance": "learned_range"}),
        (("--schedule", "edm", "--prediction-type", "edm", "--weighting", "edm", "--times", "log_normal"), "edm", "Objective",
         {"convention": "c_noise"}),
        (("--schedule", "flow", "--prediction-type", "flow", "--times", "logit_normal"), "flow", "Objective", {}),
        (("--schedule", "learned", "--set", "schedule.log_snr_max=8.0", "--set", "objective.levels=16"), "learned",
         "LearnedScheduleObjective", {"convention": "log_snr"}),
    ],
    ids=["offset", "min_snr", "p2", "vlb", "hybrid", "edm", "flow", "learned"],
)  # fmt: skip
def test_every_objective_can_be_asked_for(run, points, monkeypatch, arguments, family, kind, told):
    """The run is made to its end, but for the export, which takes longest: what it is told is looked at."""
    from diffuse_fast.training.config import recipe

    exported = {}

    class Written:
        path, name, sha256 = "model.onnx", "model", "0"

    def export(network, path, **options):
        exported.update(options, network=network)
        return Written()

    monkeypatch.setattr(recipe, "export", export)
    result = run("train", "p.toml", "--out", "o", *arguments)
    assert result.exit_code == 0, result.stderr
    assert exported["schedule"].family == family
    assert {name: exported[name] for name in told} == told
    features = 4 if exported["variance"] != "none" else 2
    assert exported["network"].last.out_features == features
    rows = [row.split(",") for row in (points / "o" / "metrics.csv").read_text().split()[1:]]
    assert [row[:2] for row in rows] == [["3", "held_out_loss"]] and np.isfinite(float(rows[0][2]))
    assert np.isfinite(np.load(points / "o" / "samples" / "step-00000003.npy")).all()
    document = checkpoint.newest(points / "o").document
    assert document["run"]["objective"]["type"] == kind


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--objective", "elbo"], "objective.type is 'elbo'"),
        (["--objective", "vlb", "--weighting", "p2"], "has its own weights"),
        (["--schedule", "flow", "--objective", "vlb"], "section [objective]: schedule must be a discrete one"),
        (["--schedule", "flow", "--times", "importance"], "section [times]: schedule is of the family flow"),
        (["--times", "log_normal"], "section [times]: schedule is discrete"),
        (["--weighting", "snr"], "weighting.type is 'snr'"),
        (["--weighting", "p2", "--set", "weighting.gama=1"], "unknown setting weighting.gama. Did you mean 'gamma'"),
        (["--weighting", "min_snr", "--set", "weighting.gamma=0"], "section [weighting]: gamma is 0"),
        (["--schedule", "learned", "--times", "uniform"], "has its own objective"),
        (["--schedule", "learned", "--set", "schedule.log_snr_max=-9"], "section [schedule]: log_snr_max"),
        (["--prediction-type", "flow"], "the family discrete has epsilon"),
        (["--prediction-type", "noise"], "prediction_type is 'noise'"),
        (["--set", "objective.offset_noise=-1"], "section [objective]: offset_noise"),
    ],
)
def test_objectives_that_do_not_fit_are_refused_by_name(run, points, arguments, message):
    result = run("train", "p.toml", *arguments, "--out", "out")
    assert result.exit_code == 1, result.output
    assert message in " ".join(result.stderr.split())
    assert not (points / "out").exists()


def test_another_objective_is_not_resumed(run, points, monkeypatch):
    from diffuse_fast.training.config import recipe

    monkeypatch.setattr(recipe, "_export", lambda *_: None)
    assert run("train", "p.toml", "--out", "o", "--weighting", "min_snr").exit_code == 0
    result = run("train", "p.toml", "--out", "o", "--weighting", "min_snr", "--set", "weighting.gamma=2.0", "--resume")
    assert result.exit_code == 1
    assert "objective.weighting.gamma was 5.0 and is 2.0" in " ".join(result.stderr.split())
