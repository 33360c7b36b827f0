"""The emoji, out of archives made here: no test fetches anything."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import tarfile

import numpy as np
import pytest
import torch

pytest.importorskip("PIL")
pytest.importorskip("safetensors")
from PIL import Image

import diffuse_fast as df
from diffuse_fast.errors import ArgumentError, DownloadError, OutputError, TrainingError
from diffuse_fast.training.config import config_section
from diffuse_fast.training.data import hold_out
from diffuse_fast.training.data import twemoji as source
from diffuse_fast.training.evaluation import Quality
from examples.emoji import train as recipe

RED, CLEAR = (255, 0, 0, 255), (0, 0, 0, 0)


def picture(color, size=64):
    """A transparent drawing whose middle has a colour."""
    image = Image.new("RGBA", (size, size), CLEAR)
    image.paste(color, (size // 4, size // 4, 3 * size // 4, 3 * size // 4))
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def entry(name, category="Objects", here=True):
    return {"image": name, "category": category, "has_img_twitter": here}


def archive(path, entries, files, index=None):
    """A package with an index and pictures by name."""
    index = json.dumps(entries).encode() if index is None else index
    with tarfile.open(path, "w:gz") as tar:
        for name, data in {source.INDEX: index, **files}.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


@pytest.fixture
def small(tmp_path):
    """Two objects and a flag, among what is to be left out."""
    entries = [
        entry("b.png", "Flags"), entry("a.png"), entry("c.png"), entry("skin.png", "Component"), entry("elsewhere.png", here=False),
    ]  # fmt: skip
    colors = {"a.png": RED, "b.png": (0, 255, 0, 255), "c.png": (0, 0, 255, 255), "skin.png": RED}
    files = {source.IMAGES + name: picture(color) for name, color in colors.items()}
    return archive(tmp_path / "p.tgz", entries, {**files, "package/img/twitter/sheets/64.png": b"a sheet", "../../out": b"x"})


def pin(monkeypatch, path):
    monkeypatch.setattr(source, "SHA256", hashlib.sha256(path.read_bytes()).hexdigest())


def npm(folder, script):
    """A stand-in for npm that runs a shell script."""
    folder.mkdir()
    (folder / "npm").write_text(f"#!/bin/sh\n{script}\n")
    (folder / "npm").chmod(0o755)
    return str(folder)


def test_drawings_come_small_on_white_with_their_classes(small, monkeypatch, tmp_path):
    pin(monkeypatch, small)
    drawings = source.emoji(small, size=8)
    assert (len(drawings), drawings.shape, drawings.num_classes) == (3, (3, 8, 8), len(source.CLASSES))
    x, label = drawings.fetch([0, 1, 2])
    assert [source.CLASSES[i] for i in label] == ["Objects", "Flags", "Objects"]
    assert torch.equal(x[:, :, 0, 0], torch.ones(3, 3))  # what was transparent
    assert torch.equal(x[:, :, 4, 4], 2 * torch.eye(3) - 1)
    assert [p.name for p in tmp_path.iterdir()] == ["p.tgz"]
    assert "Twitter" in drawings.attribution
    assert hold_out(drawings, 0.3, 0)[0].attribution == drawings.attribution


def test_another_archive_is_refused_whoever_brings_it(small, monkeypatch, tmp_path):
    with pytest.raises(ArgumentError, match=r"p\.tgz has the sha256 .*Remove the file"):
        source.emoji(small)
    with pytest.raises(ArgumentError, match="cannot read the archive"):
        source.emoji(tmp_path / "absent.tgz")
    monkeypatch.setenv("PATH", npm(tmp_path / "bin", f'/bin/cp "{small}" "{source.ARCHIVE}"'))
    monkeypatch.setenv("DIFFUSE_FAST_CACHE", str(tmp_path / "kept"))
    with pytest.raises(DownloadError, match="npm downloaded a wrong file"):
        source.emoji()
    assert not list((tmp_path / "kept" / "data").iterdir())
    (tmp_path / "kept" / "data" / source.ARCHIVE).write_bytes(b"cut off")
    with pytest.raises(ArgumentError, match=r"kept.*Remove the file"):
        source.emoji()


def test_the_package_is_fetched_once_and_kept(small, monkeypatch, tmp_path):
    pin(monkeypatch, small)
    to = 'while [ "$1" != --pack-destination ]; do shift; done'
    script = f'echo "$@" >> "{tmp_path}/calls"\n{to}\n/bin/cp "{small}" "$2/{source.ARCHIVE}"'
    monkeypatch.setenv("PATH", npm(tmp_path / "bin", script))
    monkeypatch.setenv("DIFFUSE_FAST_CACHE", str(tmp_path / "kept"))
    assert len(source.emoji(size=8)) == len(source.emoji(size=8)) == 3
    assert (tmp_path / "calls").read_text().startswith(f"pack {source.PACKAGE} --ignore-scripts")
    assert len((tmp_path / "calls").read_text().splitlines()) == 1
    monkeypatch.setenv("DIFFUSE_FAST_CACHE", "off")
    assert len(source.emoji(size=8)) == 3
    assert [p.name for p in (tmp_path / "kept" / "data").iterdir()] == [source.ARCHIVE]


def test_missing_npm_network_and_disk_space_are_different_errors(small, monkeypatch, tmp_path):
    monkeypatch.setenv("DIFFUSE_FAST_CACHE", str(tmp_path / "kept"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DownloadError, match=r"npm is not installed.*npm pack emoji-datasource.*data\.archive"):
        source.emoji()
    monkeypatch.setenv("PATH", npm(tmp_path / "offline", "echo npm error network EAI_AGAIN >&2; exit 1"))
    with pytest.raises(DownloadError, match="EAI_AGAIN") as caught:
        source.emoji()
    assert isinstance(caught.value, ConnectionError)
    monkeypatch.setenv("PATH", npm(tmp_path / "hollow", "exit 0"))
    with pytest.raises(DownloadError, match="wrote no such file"):
        source.emoji()
    monkeypatch.setattr(source, "TIMEOUT", 0.05)
    monkeypatch.setenv("PATH", npm(tmp_path / "hangs", "exec /bin/sleep 20"))
    with pytest.raises(DownloadError, match="timed out"):
        source.emoji()
    monkeypatch.setenv("DIFFUSE_FAST_CACHE", str(small))  # a file
    with pytest.raises(OutputError, match="cannot cache"):
        source.emoji()


def test_missing_and_broken_drawings_are_named(tmp_path):
    files = {source.IMAGES + "good.png": picture(RED), source.IMAGES + "bad.png": b"no picture"}
    path = archive(tmp_path / "p.tgz", [entry("good.png"), entry("bad.png"), entry("gone.png")], files)
    with pytest.raises(TrainingError, match=r"bad\.png cannot be read"):
        source.drawings(path, size=8, on_error="raise")
    drawings = source.drawings(path, size=8, on_error="skip")
    assert len(drawings) == 1
    assert sorted(drawings.broken) == ["bad.png", "gone.png"]
    assert "not in the archive" in drawings.broken["gone.png"]


@pytest.mark.parametrize(
    ("index", "message"),
    [(b"{", "not a list of drawings"), (b"[1]", "not a list of drawings"), (b'[{"image": "a.png"}]', "'has_img_twitter'")],
)
def test_an_invalid_index_is_refused(tmp_path, index, message):
    path = archive(tmp_path / "p.tgz", None, {}, index)
    with pytest.raises(ArgumentError, match=message):
        source.drawings(path, size=8, on_error="raise")


def test_files_that_are_no_package_or_too_large_are_refused(tmp_path, monkeypatch, small):
    (tmp_path / "x.tgz").write_bytes(b"no archive")
    (tmp_path / "cut.tgz").write_bytes(small.read_bytes()[:-200])
    archive(tmp_path / "empty.tgz", [], {})
    for name, message in (("x.tgz", "not an archive"), ("cut.tgz", "not an archive"), ("empty.tgz", "no readable images")):
        with pytest.raises(ArgumentError, match=message):
            source.drawings(tmp_path / name, size=8, on_error="raise")
    for limit in ("LARGEST_FILE", "LARGEST_ALL"):
        with monkeypatch.context() as patch:
            patch.setattr(source, limit, 100)
            with pytest.raises(ArgumentError, match="makes it too large"):
                source.drawings(small, size=8, on_error="raise")


def test_the_settings_of_the_recipe_are_valid_and_its_card_is_written():
    config_section.check(recipe.SETTINGS)
    config = {"steps": 10, "batch_size": 4, "precision": "float32", "prediction_type": "epsilon", "seed": 0}
    row = dataclasses.asdict(Quality("ddim", 20, 20, 50.0, 2.0, 9.0, 0.5, 0.25))
    made = {"command": recipe.COMMAND, "package": source.PACKAGE, "config": config, "samples": 40, "seconds": 60.0}
    report = {"parameters": 1000, "bytes": 4000, "license": source.LICENSE, "attribution": source.ATTRIBUTION, "held_out": 4,
              "loss": {"training": 0.5, "held_out": 0.6}, "nearest": {"drawn": 1.0, "held_out": 2.0},
              "recipe": made, "quality": [row]}  # fmt: skip
    assert "| ddim | 20 | 50.0 | 9.00 | 0.50 | 0.25 |" in recipe.card(report)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.filterwarnings("ignore")  # of torch, about itself
def test_the_recipe_from_an_archive_to_a_card(tmp_path, monkeypatch):
    pytest.importorskip("onnxruntime")
    rng = np.random.default_rng(0)
    names = [f"{i}.png" for i in range(45)]
    entries = [entry(name, source.CLASSES[i % len(source.CLASSES)]) for i, name in enumerate(names)]
    colors = rng.integers(0, 256, (len(names), 3))
    files = {source.IMAGES + name: picture((*map(int, color), 255), 16) for name, color in zip(names, colors, strict=True)}
    path = archive(tmp_path / "p.tgz", entries, files)
    pin(monkeypatch, path)
    quick = {
        **recipe.SETTINGS,
        "data": {"kind": "emoji", "held_out": 0.2, "size": 8},
        "network": {"type": "UNet", "channels": 8, "multipliers": [1], "blocks": 1, "groups": 4},
        "train": {"steps": 2, "batch_size": 4, "warmup_steps": 0, "prediction_type": "v_prediction"},
    }
    for name, value in {
        "SETTINGS": quick,
        "CLASSIFIER_PASSES": 1,
        "EVALUATED_STEPS": (2,),
        "SAMPLES": 1,
        "SAMPLE_STEPS": 2,
    }.items():
        monkeypatch.setattr(recipe, name, value)
    model = recipe.train_emoji(tmp_path / "out", archive=path, progress=False)
    assert (model.license, model.training["data"], model.shape) == ("CC-BY-4.0", source.ATTRIBUTION, (3, 8, 8))
    assert model.conditioning[0].null == len(source.CLASSES)
    text = (tmp_path / "out" / "emoji.md").read_text(encoding="utf-8")
    report = json.loads((tmp_path / "out" / "emoji.json").read_text(encoding="utf-8"))
    assert text == recipe.card(report)
    assert [row["solver"] for row in report["quality"]] == ["real, held out", "ddim"]
    assert str(tmp_path) not in json.dumps(report)
    with Image.open(tmp_path / "out" / "emoji.png") as drawn:
        assert drawn.mode == "RGB"
    # The command once more trains nothing, and says the same: in a new file, which the first model is not taken for.
    sha256 = model.sha256
    again = recipe.train_emoji(tmp_path / "out", archive=path, progress=False)
    assert again.sha256 == sha256
    with pytest.raises(ArgumentError, match=r"steps is 1, but the run .* has done 2"):
        recipe.train_emoji(tmp_path / "out", archive=path, steps=1, progress=False)
    assert df.sample(again, 1, 2, cond={"label": 0}).shape == (1, 3, 8, 8)
