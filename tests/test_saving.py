"""df.grid, df.save and df.noise."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest

import diffuse_fast as df
from diffuse_fast.errors import ArgumentError, ArgumentTypeError, MissingDependencyError, OutputError

RNG = np.random.default_rng(0)
X = RNG.uniform(-1, 1, (5, 1, 6, 4)).astype(np.float32)
COLOUR = RNG.uniform(0, 1, (4, 3, 6, 4)).astype(np.float32)
RECIPE = {"seed": 0, "steps": 20, "who": "Zoë ε"}


def test_a_grid_of_samples_is_that_of_their_levels():
    from diffuse_fast import image_grid

    levels = np.floor((X + 1) / 2 * 255 + 0.5).astype(np.uint8)
    np.testing.assert_array_equal(df.grid(X, columns=3, scale=2), image_grid.grid(levels, columns=3, scale=2))
    np.testing.assert_array_equal(df.grid(levels, columns=3, scale=2), image_grid.grid(levels, columns=3, scale=2))
    assert df.grid(COLOUR, (0, 1), scale=1).shape == (2 * 8, 2 * 6, 3)
    torch = pytest.importorskip("torch")
    half = torch.from_numpy(X).bfloat16()
    np.testing.assert_array_equal(df.grid(half, scale=1), df.grid(half.float(), scale=1))


def test_numbers_are_kept_as_they_are(tmp_path):
    df.save(tmp_path / "x.npy", X)
    np.testing.assert_array_equal(np.load(tmp_path / "x.npy"), X)
    df.save(str(tmp_path / "x.npz"), X, recipe=RECIPE)
    with np.load(tmp_path / "x.npz") as found:
        np.testing.assert_array_equal(found["samples"], X)
        assert json.loads(str(found["recipe"])) == RECIPE
    df.save(tmp_path / "latents.npz", np.zeros((2, 4, 8, 8)))


@pytest.mark.parametrize("name", ["x.png", "x.jpg", "x.JPEG"])
@pytest.mark.parametrize("x, values", [(X, (-1, 1)), (COLOUR, (0, 1))])
def test_an_image_file_has_the_grid_and_the_recipe(tmp_path, name, x, values):
    image = pytest.importorskip("PIL.Image")
    df.save(tmp_path / name, x, values, recipe=RECIPE, columns=2, scale=3)
    with image.open(tmp_path / name) as picture:
        found, expected = np.asarray(picture), df.grid(x, values, columns=2, scale=3)
        assert found.shape == expected.shape
        if name == "x.png":
            np.testing.assert_array_equal(found, expected)
            assert json.loads(picture.text["recipe"]) == RECIPE
        else:  # a JPEG is near
            assert np.abs(found.astype(int) - expected).mean() < 6
            assert json.loads(picture.info["comment"]) == RECIPE


def test_a_gif_has_a_frame_for_each(tmp_path):
    image = pytest.importorskip("PIL.Image")
    df.save(tmp_path / "x.gif", X, scale=2, recipe=RECIPE)
    with image.open(tmp_path / "x.gif") as moving:
        assert (moving.n_frames, moving.info["duration"], moving.info["loop"]) == (5, 200, 0)
        assert json.loads(moving.info["comment"]) == RECIPE
        for i, one in enumerate(X):
            moving.seek(i)
            expected = df.grid(one[None], scale=2)
            assert np.abs(np.asarray(moving.convert("L")).astype(int) - expected).max() <= 2
    trajectory = np.stack([X, 0.5 * X, 0 * X])  # a batch in each frame
    df.save(tmp_path / "t.gif", trajectory, columns=5, scale=1)
    with image.open(tmp_path / "t.gif") as moving:
        assert moving.n_frames == 3 and moving.size == (5 * 6, 8)


def test_what_cannot_be_saved_is_refused_and_leaves_nothing(tmp_path, monkeypatch):
    for name, x, options, error, says in (
        ("x.tif", X, {}, ArgumentError, r"\.png, \.jpg"),
        ("x", X, {}, ArgumentError, "must end in"),
        ("x.png", np.zeros((2, 4, 8, 8)), {}, ArgumentError, "not images"),
        ("x.png", np.zeros((2, 8, 8), int), {}, ArgumentTypeError, "floating"),
        ("x.npy", X, {"columns": 2}, ArgumentError, "are for images"),
        ("x.npz", X, {"recipe": {"a": X}}, ArgumentTypeError, "JSON"),
        ("x.npy", "abc", {}, ArgumentTypeError, "array of samples"),
        ("x.jpg", X, {"recipe": {"a": "b" * 70_000}}, ArgumentError, "limit of a JPEG comment"),
        ("no/x.npy", X, {}, OutputError, "no/x.npy"),
    ):
        with pytest.raises(error, match=says):
            df.save(tmp_path / name, x, **options)
    assert not list(tmp_path.iterdir())
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    with pytest.raises(MissingDependencyError, match="Pillow"):
        df.save(tmp_path / "x.png", X)


@pytest.mark.parametrize("seed", [7, [3, 4, 5, 6]])
def test_noise_is_what_the_seed_starts_from(seed):
    seen = []

    def network(x, t):
        seen.append(x.copy())
        return x * 0

    known = {"shape": (3, 2), "schedule": df.Schedule.linear(), "prediction_type": "epsilon", "timesteps": [999]}
    df.sample(network, 4, seed=seed, **known)
    z = df.noise(seed, 4, (3, 2))
    assert z.dtype == np.float32
    np.testing.assert_array_equal(z, seen[0])
    if isinstance(seed, int):
        np.testing.assert_array_equal(df.noise(seed, 2, (3, 2), first_index=2), z[2:])
    with pytest.raises(ArgumentError, match="n is 0"):
        df.noise(0, 0, (2,))
    with pytest.raises(ArgumentTypeError, match="shape"):
        df.noise(0, 1, 4)
