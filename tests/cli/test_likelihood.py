"""``diffuse-fast likelihood``."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("onnxruntime")
from diffuse_fast import console


def test_bits_are_said_and_written(run, small, tmp_path):
    x, labels = tmp_path / "x.npy", tmp_path / "labels.npy"
    np.save(x, np.random.default_rng(0).standard_normal((5, 2, 3)))
    np.save(labels, np.arange(5) % 4)
    options = ("--steps", 20, "--draws", 3, "--seed", 0, "--cond", f"label={labels}", "--out", tmp_path / "b.npz")
    done = run("likelihood", small(), x, *options)
    assert done.exit_code == 0, done.stderr
    with np.load(tmp_path / "b.npz") as found:
        bits, error = found["bits_per_dim"], found["standard_error"]
        np.testing.assert_allclose(found["prior"] + found["diffusion"] + found["decoder"], bits)
    assert bits.shape == error.shape == (5,)
    assert f"{bits.mean():.4f} ± " in done.stdout and "60 network evaluations" in done.stdout


@pytest.mark.parametrize("method", ["elbo", "ode"])
def test_long_work_prints_lines(run, small, tmp_path, monkeypatch, method):
    np.save(tmp_path / "x.npy", np.zeros((3, 2, 3)))
    arguments = ("likelihood", small(), tmp_path / "x.npy", "--method", method, "--steps", 4, "--batch-size", 2)
    assert run(*arguments).stderr == ""  # it takes less than the interval
    monkeypatch.setattr(console, "INTERVAL", 0.0)
    lines = run(*arguments).stderr.splitlines()
    assert lines[0] == "likelihood: 0 of 3 samples done, 1 network evaluations"
    assert lines[-1].startswith("likelihood: 2 of 3 samples done")


def test_what_cannot_be_is_refused(run, small, tmp_path):
    text = tmp_path / "x.npy"
    text.write_text("no array")
    refused = run("likelihood", small(), text)
    assert refused.exit_code == 2 and "cannot read" in refused.stderr
    np.save(text, np.zeros((2, 2, 3)))
    refused = run("likelihood", small(), text, "--method", "ode", "--steps", 10**6)
    assert refused.exit_code == 1 and "timesteps" in refused.stderr
    done = run("likelihood", small(), text, "--method", "ode", "--steps", 3)
    assert done.exit_code == 0 and "prior" in done.stdout and "change" in done.stdout
    assert run("likelihood", small(), text, "--out", "b.npy").exit_code == 2
