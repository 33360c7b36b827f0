"""``diffuse-fast sample``: what it writes is what df.sample draws; what it refuses leaves nothing behind."""

from __future__ import annotations

import errno
import json
import os
import pty
import signal
import subprocess
import sys

import numpy as np
import pytest

import diffuse_fast as df
from diffuse_fast.runtimes import select
from diffuse_fast.runtimes.native import identity

pytest.importorskip("onnxruntime")


def test_an_image_file_has_every_sample(run, tmp_path):
    image = pytest.importorskip("PIL.Image")
    result = run("sample", "digits", "-n", 5, "--steps", 3, "--seed", 7, "--columns", 2, "--scale", 4, "-o", "x.png")
    assert (result.exit_code, result.stderr) == (0, "")
    with image.open(tmp_path / "x.png") as picture:
        assert (picture.mode, picture.size) == ("L", (2 * 10 * 4, 3 * 10 * 4))
        pixels = np.asarray(picture)
    levels = df.to_uint8(df.sample("digits", 5, 3, seed=7), df.load("digits"))[:, 0]
    for i, digit in enumerate(levels):
        top, left = (i // 2 * 10 + 1) * 4, (i % 2 * 10 + 1) * 4
        tile = pixels[top : top + 32, left : left + 32]
        np.testing.assert_array_equal(tile[::4, ::4], digit)
        np.testing.assert_array_equal(tile[3::4, 3::4], digit)
    assert [p.name for p in tmp_path.iterdir()] == ["x.png"]
    os.umask(mask := os.umask(0))
    assert (tmp_path / "x.png").stat().st_mode & 0o777 == 0o666 & ~mask


@pytest.mark.parametrize(
    ("arguments", "options"),
    [
        (["--cond", "label=7"], {"cond": {"label": 7}}),
        (["--cond", "label=0,1,2"], {"cond": {"label": [0, 1, 2, 0, 1]}}),
        (["--option", "eta=0.5", "--option", "set_alpha_to_one=false"], {"eta": 0.5, "set_alpha_to_one": False}),
        (["--solver", "ddpm", "--option", "variance_type=fixed_large"], {"solver": "ddpm", "variance_type": "fixed_large"}),
        (["--guidance-scale", "2", "--cond", "label=3"], {"guidance_scale": 2.0, "cond": {"label": 3}}),
        (["--timestep-spacing", "trailing", "--option", "steps_offset=0"], {"timestep_spacing": "trailing"}),
        (["--timesteps", "900,500,20,0"], {"timesteps": [900, 500, 20, 0]}),
        (["--no-clip"], {"clip": False}),
        (["--clip", "-0.5,0.5"], {"clip": (-0.5, 0.5)}),
        (["--batch-size", "2", "--runtime", "onnx"], {"batch_size": 2, "runtime": "onnx"}),
        (["--seed", "5,6,7,8,9"], {"seed": [5, 6, 7, 8, 9]}),
        (["--first-index", "4"], {"first_index": 4}),
        (["--guidance-scale", "1,2,0,3,1", "--cond", "label=3"], {"guidance_scale": [1, 2, 0, 3, 1], "cond": {"label": 3}}),
        (
            ["--guidance-scale", "2", "--cond", "label=3", "--negative-cond", "label=1,2", "--guidance-batch", "separate"],
            {
                "guidance_scale": 2.0,
                "cond": {"label": 3},
                "negative_cond": {"label": [1, 2, 1, 2, 1]},
                "guidance_batch": "separate",
            },
        ),
        (
            ["--timestep-spacing", "karras", "--rho", "5", "--sigma-min", "0.1", "--sigma-max", "20"],
            {"timestep_spacing": "karras", "rho": 5.0, "sigma_min": 0.1, "sigma_max": 20.0},
        ),
        (["--timestep-spacing", "beta", "--beta-shape", "0.5,0.8"], {"timestep_spacing": "beta", "beta_shape": (0.5, 0.8)}),
        (["--end", "200"], {"end": 200.0}),
        (["--sigmas", "20,5,1,0.3", "--end", "data"], {"sigmas": [20, 5, 1, 0.3], "end": "data"}),
    ],
)
def test_options_reach_the_sampler(run, tmp_path, arguments, options):
    seed = [] if "--seed" in arguments else ["--seed", 3]
    result = run("sample", "digits", "-n", 5, "--steps", 4, *seed, *arguments, "--out", "x.npy")
    assert result.exit_code == 0, result.stderr
    np.testing.assert_array_equal(np.load(tmp_path / "x.npy"), df.sample("digits", 5, 4, **{"seed": 3, **options}))


@pytest.mark.parametrize("one", [False, True])
def test_sampling_starts_from_a_file(run, tmp_path, one):
    data = np.random.default_rng(0).uniform(-1, 1, (3, 1, 8, 8)).astype(np.float32)
    np.save(tmp_path / "data.npy", data[0] if one else data)
    result = run("sample", "digits", "-n", 3, "--steps", 10, "--seed", 1, "--begin", 400, "--data", "data.npy", "-o", "x.npz")
    assert result.exit_code == 0, result.stderr
    with np.load(tmp_path / "x.npz") as made:
        samples, recipe = made["samples"], json.loads(str(made["recipe"]))
    given = np.repeat(data[:1], 3, axis=0) if one else data
    np.testing.assert_array_equal(samples, df.sample("digits", 3, 10, seed=1, begin=400, data=given))
    np.testing.assert_array_equal(samples, df.sample(recipe["model"], **recipe["sample"]))


@pytest.mark.parametrize("labels", [np.array([4, 2, 9]), np.array(7)])
def test_conditioning_from_a_file(run, tmp_path, labels):
    np.save(tmp_path / "labels.npy", labels)
    result = run("sample", "digits", "-n", 3, "--steps", 2, "--seed", 1, "--cond", "label=@labels.npy", "--out", "x.npz")
    assert result.exit_code == 0, result.stderr
    with np.load(tmp_path / "x.npz") as made:
        samples, recipe = made["samples"], json.loads(str(made["recipe"]))
    np.testing.assert_array_equal(samples, df.sample("digits", 3, 2, seed=1, cond={"label": labels}))
    np.testing.assert_array_equal(samples, df.sample(recipe["model"], **recipe["sample"]))


def test_an_invalid_conditioning_file_is_refused(run, tmp_path):
    (tmp_path / "text.npy").write_text("label")
    np.save(tmp_path / "words.npy", np.array(["a", "b"]))
    np.save(tmp_path / "pickled.npy", np.array([{}]), allow_pickle=True)
    np.save(tmp_path / "five.npy", np.arange(5))
    np.savez(tmp_path / "several.npy.npz", a=np.arange(2))
    for name, status, says in (
        ("absent.npy", 2, "cannot be read"),
        ("text.npy", 2, "cannot be read"),
        ("pickled.npy", 2, "cannot be read"),
        ("words.npy", 2, "numbers"),
        ("several.npy.npz", 2, "numbers"),
        ("five.npy", 1, "shape (5,)"),
    ):
        result = run("sample", "digits", "-n", 2, "--steps", 2, "--cond", f"label=@{name}", "--out", "x.npy")
        assert (result.exit_code, says in " ".join(result.stderr.split())) == (status, True), result.stderr
    assert not (tmp_path / "x.npy").exists()


def test_an_npz_says_how_to_draw_it_again(run, tmp_path):
    arguments = ("-n", 3, "--steps", 4, "--option", "eta=1", "--cond", "label=1,2", "--batch-size", 2)
    for name in ("a.npz", "b.npz"):
        assert run("sample", "digits", *arguments, "--out", name).exit_code == 0
    with np.load(tmp_path / "a.npz") as a, np.load(tmp_path / "b.npz") as b:
        samples, recipe = a["samples"], json.loads(str(a["recipe"]))
        assert json.loads(str(b["recipe"]))["sample"]["seed"] != recipe["sample"]["seed"]
        assert not np.array_equal(samples, b["samples"])
    network = recipe["made_by"]["network"]
    assert (network["runtime"], network["precision"]) == (select(df.load("digits")).name, "float32")
    assert recipe["sha256"] == df.load("digits").sha256
    assert recipe["sample"]["cond"] == {"label": [1, 2, 1]}
    np.testing.assert_array_equal(samples, df.sample(recipe["model"], **recipe["sample"]))


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["--solver", "ddimm"], 1, "Did you mean 'ddim'"),
        (["-n", "0"], 1, "n is 0"),
        (["--steps", "1001"], 1, "1 to 1000"),
        (["--option", "etta=1"], 1, "Did you mean 'eta'"),
        (["--steps", "10", "--begin", "400"], 1, "Give data="),
        (["--end", "soon"], 2, "--end is 'soon'; it must be a number"),
        (["--sigmas", "20,5"], 1, "end='data'"),
        (["--option", "eta=much"], 2, "eta is 'much'; it must be a number"),
        (["--option", "rederive_epsilon=1"], 2, "it must be true or false"),
        (["--option", "eta"], 2, "NAME=VALUE"),
        (["--option", "eta=1", "--option", "eta=0"], 2, "twice"),
        (["--cond", "lable=7"], 1, "label"),
        (["--cond", "label=11"], 1, "outside 0..9"),
        (["--cond", "label=seven"], 2, "a number"),
        (["-n", "2", "--cond", "label=1,2,3"], 2, "3 values for 2 samples"),
        (["--clip", "-1,1", "--no-clip"], 2, "contradict"),
        (["--clip", "1"], 2, "two numbers"),
        (["--timesteps", "1,x"], 2, "a number"),
        (["--seed", "-1"], 1, "seed"),
        (["--seed", "one"], 2, "--seed is 'one'; it must be an integer"),
        (["--seed", "1,2,3"], 2, "--seed has 3 values"),
        (["--seed", "1.5"], 2, "an integer"),
        (["-n", "2", "--seed", "1,-2"], 1, "seed"),
        (["-n", "2", "--seed", "1,2", "--first-index", "3"], 1, "first_index"),
        (["--first-index", "-1"], 1, "first_index is -1"),
        (["--guidance-scale", "1,2"], 2, "--guidance-scale has 2 values"),
        (["--guidance-scale", "much"], 2, "a number"),
        (["--guidance-scale", "nan"], 1, "finite"),
        (["--guidance-batch", "both"], 1, "joined, separate"),
        (["--negative-cond", "label=1"], 1, "guidance_scale other than 1"),
        (["--negative-cond", "label=1", "--guidance-scale", "2", "--negative-cond", "lable=1"], 1, "lable"),
        (["--rho", "3"], 1, "rho"),
        (["--timestep-spacing", "karras", "--sigma-min", "90", "--sigma-max", "20"], 1, "sigma_m"),
        (["--sigmas", "3,x"], 2, "a number"),
        (["--sigmas", "3,5"], 1, "must decrease"),
        (["--timestep-spacing", "karas"], 1, "Did you mean 'karras'"),
        (["--runtime", "onx"], 1, "Did you mean 'onnx'"),
        (["--columns", "0"], 2, "columns is 0"),
        (["--out", "x.tif"], 2, "must end in"),
        (["--out", "x.npy", "--columns", "3"], 2, "need an image"),
        (["--out", "file/x.png"], 1, "cannot write"),
        (["--out", "absent/x.png"], 1, "there is no folder"),
        (["--out", "folder.png"], 1, "not a file"),
    ],
)
def test_bad_input_is_named_and_leaves_nothing(run, tmp_path, arguments, status, message):
    (tmp_path / "file").write_text("in the way")
    (tmp_path / "folder.png").mkdir()
    steps = [] if "--timesteps" in arguments else ["--steps", "2"]
    result = run("sample", "digits", *steps, *arguments)
    assert result.exit_code == status, result.output
    assert message in " ".join(result.stderr.split())
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["file", "folder.png"]


def test_an_unknown_model_and_one_without_images_are_refused(run, small, document):
    assert "digits" in run("sample", "digit", "--steps", 2).stderr
    document["sample"]["value_range"] = None
    model = small(document)
    refused = run("sample", model, "--steps", 2)
    assert refused.exit_code == 1
    assert "no value range" in refused.stderr
    assert run("sample", model, "--steps", 2, "--out", "x.npy").exit_code == 0


@pytest.mark.parametrize("out", ["file/x.png", "file/x.npz", "folder.npy"])
def test_a_path_that_cannot_be_written_is_refused_before_sampling(run, tmp_path, monkeypatch, out):
    def sample(*_args, **_options):
        raise AssertionError("sampled")

    monkeypatch.setattr("diffuse_fast.engine.sample", sample)
    (tmp_path / "file").write_text("in the way")
    (tmp_path / "folder.npy").mkdir()
    result = run("sample", "digits", "--steps", 2, "--out", out)
    assert result.exit_code == 1
    assert "cannot write" in result.stderr


def test_a_default_name_replaces_no_file(run, tmp_path):
    (tmp_path / "samples.png").write_text("mine")
    (tmp_path / "samples-3.png").symlink_to("nowhere")
    for name in ("samples-2.png", "samples-4.png"):
        result = run("sample", "digits", "-n", 1, "--steps", 1)
        assert result.stdout.startswith(f"{name}: "), result.stderr
    assert (tmp_path / "samples.png").read_text() == "mine"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["samples-2.png", "samples-3.png", "samples-4.png", "samples.png"]


@pytest.mark.parametrize("name", ["x.jpg", "x.gif", "x.png", "x.npz"])
def test_every_format_says_how_it_was_drawn(run, tmp_path, name):
    """And 20 steps are taken where nobody says how many."""
    result = run("sample", "digits", "-n", 2, "--seed", 3, "--cond", "label=7", "-o", name)
    assert (result.exit_code, result.stderr) == (0, "")
    if name == "x.npz":
        with np.load(tmp_path / name) as found:
            recipe = json.loads(str(found["recipe"]))
            np.testing.assert_array_equal(found["samples"], df.sample("digits", 2, 20, seed=3, cond={"label": 7}))
    else:
        image = pytest.importorskip("PIL.Image")
        with image.open(tmp_path / name) as picture:
            recipe = json.loads(picture.info["recipe" if name == "x.png" else "comment"])
            assert getattr(picture, "n_frames", 1) == (2 if name == "x.gif" else 1)
    assert (recipe["model"], recipe["sha256"]) == ("digits", df.load("digits").sha256)
    assert [recipe["sample"][key] for key in ("n", "steps", "seed", "cond")] == [2, 20, 3, {"label": 7}]


def test_a_write_that_fails_leaves_what_was_there(run, tmp_path, monkeypatch):
    def full(path, _x):
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(np, "save", full)
    (tmp_path / "x.npy").write_bytes(b"before")
    result = run("sample", "digits", "-n", 1, "--steps", 1, "--out", "x.npy")
    assert result.exit_code == 1
    assert "No space left" in result.stderr
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("x.npy", b"before")]


def test_a_terminal_sees_a_bar_and_an_interrupt_leaves_nothing(tmp_path):
    master, slave = pty.openpty()
    code = "from diffuse_fast.cli import main; main()"
    arguments = ["sample", "digits", "-n", "2000", "--steps", "1000", "--batch-size", "16", "--out", "x.npy"]
    env = {**os.environ, "TERM": "xterm", "COLUMNS": "80"}
    command = [sys.executable, "-c", code, *arguments]
    # As a shell starts it in the foreground: tests that run in the background ignore Ctrl-C, and so would this process.
    heeds = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)  # noqa: E731
    # As a context it closes its pipe, whatever happens: a pipe that is left open fails a later test, where it is collected.
    with subprocess.Popen(command, cwd=tmp_path, stderr=slave, stdout=subprocess.PIPE, env=env, preexec_fn=heeds) as process:
        os.close(slave)
        try:
            shown = b""
            while b"sampling" not in shown:
                shown += os.read(master, 4096)
            process.send_signal(signal.SIGINT)
            out, _ = process.communicate()
        finally:
            process.kill()
            os.close(master)
    assert process.returncode != 0
    assert out == b""
    assert list(tmp_path.iterdir()) == []


def test_the_recipe_of_the_native_runtime_has_what_determines_its_bits(run, tmp_path):
    result = run(
        "sample", "digits", "-n", "1", "--steps", "2", "--runtime", "native", "--precision", "float32-fast", "--out", "a.npz"
    )
    assert result.exit_code == 0, result.stderr
    with np.load("a.npz") as made:
        made_by = json.loads(str(made["recipe"]))["made_by"]
    assert made_by["network"] == {"runtime": "native", **identity(df.load("digits"), "float32-fast")}
    assert made_by["network"]["algorithms"].count("F(4,3)") == 11
