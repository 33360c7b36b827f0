"""Settings: every fault is told, at once, before torch and the data are loaded; and what follows from others."""

from __future__ import annotations

import inspect
import subprocess
import sys

import numpy as np
import pytest

import diffuse_fast as df
from diffuse_fast.errors import ArgumentError, ArgumentTypeError
from diffuse_fast.training import TrainConfig
from diffuse_fast.training.config import config_section, objective_config, recipe
from diffuse_fast.training.data import Framing
from diffuse_fast.training.run.loop import rate_factor

WRONG = {
    "data": {"kind": "images", "path": "absent", "sise": 3, "held_out": 2, "size": 0, "crop": "left", "on_error": "stop"},
    "network": {"type": "Unet"},
    "schedule": {"type": "cosin"},
    "objective": {"type": "elbo"},
    "weighting": {"gamma": 3},
    "times": {"type": "never"},
    "train": {"steps": 0, "batch_size": "many", "learning_rate": -1.0, "step": 4},
    "artifact": {"licence": "MIT", "name": "a/b", "clip": [1, -1]},
    "trian": {},
}
TOLD = (
    "size is 0", "crop is 'left'", "data.on_error is 'stop'",
    "data.held_out is 2", "no folder 'absent'", "unknown setting data.sise. Did you mean 'size'", "network.type is 'Unet'",
    "schedule.type is 'cosin'", "objective.type is 'elbo'", "weighting.type is None", "times.type is 'never'", "steps is 0",
    "batch_size is 'many'; it must be an integer", "learning_rate is -1.0; it must be above 0", "unknown setting train.step",
    "'license'", "artifact.name is 'a/b'", "artifact.clip is [1, -1]", "there is no section [trian]",
)  # fmt: skip


def test_all_errors_are_reported_at_once():
    with pytest.raises(ArgumentError) as raised:
        config_section.check(WRONG)
    for told in TOLD:
        assert told in str(raised.value)
    assert str(raised.value).startswith("19 settings are invalid:")
    assert str(raised.value).count("\n") == 19
    with pytest.raises(ArgumentError, match=r"^data.kind is None"):
        config_section.check({})
    with pytest.raises(ArgumentError, match="is 'flow'; a schedule of the family discrete has epsilon"):
        config_section.check({"data": {"kind": "digits"}, "train": {"prediction_type": "flow"}})
    config_section.check({"data": {"kind": "digits"}, "schedule": {"type": "learned"}})


@pytest.mark.parametrize("arguments", [["--data", "absent"], ["c.toml"]])
def test_the_command_reports_them_without_torch(tmp_path, arguments):
    (tmp_path / "c.toml").write_text('data.kind = "digits"')
    program = (
        "import sys\n"
        "from diffuse_fast.cli.app import app\n"
        f"try: app(['train', '--out', 'o', '--steps', '0', '--learning-rate', '-1', *{arguments!r}])\n"
        "except SystemExit as end: print('status', end.code)\n"
        "print('torch' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True)
    assert "steps is 0" in done.stderr and "learning_rate is -1" in done.stderr
    assert done.stdout.split() == ["status", "1", "False"]
    assert [path.name for path in tmp_path.iterdir()] == ["c.toml"]


def test_the_tables_say_what_there_is():
    framing = tuple(inspect.signature(Framing).parameters)
    assert framing == config_section.FRAMING
    assert recipe.KINDS.keys() == config_section.DATA.keys()
    for kind, make in recipe.KINDS.items():
        given = inspect.signature(make).parameters.values()
        names = {p.name for p in given if p.kind is not p.VAR_KEYWORD}
        if any(p.kind is p.VAR_KEYWORD for p in given):
            names |= set(framing)
        assert names == set(config_section.DATA[kind]), kind
    assert config_section.NETWORKS.keys() == set(df.nn.__all__)
    assert (objective_config.WEIGHTINGS.keys(), objective_config.TIMES.keys()) == (
        set(config_section.WEIGHTINGS),
        set(config_section.TIMES),
    )


def test_network_settings_are_checked_before_the_data_are_opened(monkeypatch):
    monkeypatch.setitem(recipe.KINDS, "digits", lambda: pytest.fail("the data were opened"))
    for given, told in (
        ({"network": {"chanels": 8}}, "unknown setting network.chanels. Did you mean 'channels'"),
        ({"times": {"sprea": 1}}, "unknown setting times.sprea"),
    ):
        with pytest.raises(ArgumentError, match=told):
            recipe.recipe({"data": {"kind": "digits"}, **given})


@pytest.mark.parametrize(
    ("options", "error", "told"),
    [
        ({"steps": 0, "ema_decay": 2}, ArgumentError, r"steps is 0.*ema_decay is 2"),
        ({"steps": 2.0, "compile": 1}, ArgumentTypeError, r"steps is 2\.0; it must be an integer\. compile is 1"),
        ({"learning_rate": "fast"}, ArgumentTypeError, "learning_rate is 'fast'; it must be a number"),
        ({"batch_size": 6, "micro_batch": 4}, ArgumentError, "a divisor of batch_size, which is 6"),
        ({"batch_size": None}, ArgumentTypeError, "batch_size is None"),
        ({"steps": 20, "warmup_steps": 20}, ArgumentError, "from 0 to below steps, which is 20"),
        ({"seed": True}, ArgumentTypeError, "seed is True"),
    ],
)
def test_a_configuration_names_all_that_is_wrong(options, error, told):
    with pytest.raises(error, match=told):
        TrainConfig(**options)


def test_the_warm_up_follows_from_the_steps():
    assert [TrainConfig(steps=n).warmup for n in (1, 9, 30, 999, 5000)] == [0, 0, 3, 99, 100]
    assert TrainConfig(steps=30, warmup_steps=0).warmup == 0
    short = TrainConfig(steps=1)
    assert rate_factor(1, short) == pytest.approx(0.0)
    config = TrainConfig(steps=30)
    assert [rate_factor(step, config) for step in (1, 3)] == [pytest.approx(1 / 3), 1.0]


def test_groups_follow_from_the_channels():
    torch = pytest.importorskip("torch")
    for channels, multipliers, groups in ((32, (1, 2), 32), (24, (1, 2), 8), (10, (1,), 2), (64, (1, 1.5), 32)):
        network = df.nn.UNet(1, channels=channels, multipliers=multipliers, blocks=1)
        assert {m.num_groups for m in network.modules() if isinstance(m, torch.nn.GroupNorm)} == {groups}
        assert network(torch.zeros(1, 1, 4, 4), torch.zeros(1, dtype=torch.int64)).shape == (1, 1, 4, 4)


def test_the_bar_begins_without_a_loss(monkeypatch):
    rich = pytest.importorskip("rich.console")
    import io

    from diffuse_fast.training.run.progress import progress_bar

    out = io.StringIO()
    terminal = rich.Console(file=out, force_terminal=True, width=150)
    monkeypatch.setattr(rich, "Console", lambda **options: terminal)
    with progress_bar(3, shown=True) as report:
        for step in (1, 2, 3):
            report(step, 0.5)
    assert "nan" not in out.getvalue()
    assert "loss 0.5000" in out.getvalue() and "samples/s" in out.getvalue()


def test_uint8_arrays_with_a_held_out_part_are_images(tmp_path):
    np.save(tmp_path / "a.npy", np.random.default_rng(0).integers(0, 256, (40, 1, 4, 4)).astype(np.uint8))
    data = {"kind": "arrays", "path": str(tmp_path / "a.npy")}
    for more in ({}, {"held_out": 0.25}):
        made = recipe.recipe({"data": {**data, **more}, "network": {"channels": 8}, "train": {"batch_size": 8}})
        assert (made.artifact["value_range"], made.artifact["clip"]) == ((-1, 1), (-1, 1))
