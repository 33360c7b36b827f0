"""``diffuse-fast compile``."""

from __future__ import annotations

import diffuse_fast as df


def test_the_file_is_that_of_the_function(run, tmp_path):
    options = ["--steps", 6, "--guidance-scale", 2, "--option", "eta=0.5", "--clip", "-2,2", "--precision", "float32-fast"]
    done = run("compile", "digits", "--solver", "ddim", *options, "--out", "a.dfp")
    assert done.exit_code == 0, done.stderr
    options = {"guidance_scale": 2.0, "eta": 0.5, "clip": (-2.0, 2.0), "precision": "float32-fast"}
    df.compile_model("digits", tmp_path / "b.dfp", 6, **options)
    assert (tmp_path / "a.dfp").read_bytes() == (tmp_path / "b.dfp").read_bytes()
    assert done.stdout == f"a.dfp: {(tmp_path / 'a.dfp').stat().st_size:,} bytes\n"


def test_usage_errors(run, tmp_path):
    assert run("compile", "digits", "--steps", 4).exit_code == 2  # no --out
    assert run("compile", "digits", "--out", "a.dfp", "--clip", "1").exit_code == 2
    assert run("compile", "digits", "--out", "a.dfp", "--clip", "0,1", "--no-clip").exit_code == 2
    done = run("compile", "digits", "--out", "a.dfp", "--steps", 4, "--option", "etta=1")
    assert done.exit_code == 1 and "etta" in done.stderr
    assert not list(tmp_path.iterdir())
