"""The evaluation, with a classifier that is quick to train, and arguments that it refuses."""

from __future__ import annotations

import csv

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("sklearn")
import diffuse_fast as df
from diffuse_fast.errors import ArgumentError, OutputError
from diffuse_fast.training.data import Split, digits
from diffuse_fast.training.evaluation import image_quality, plot
from diffuse_fast.training.evaluation.classifier import train_classifier
from diffuse_fast.training.evaluation.held_out import split_npz


@pytest.fixture(scope="module")
def few():
    """A few digits, so that training the classifier takes a second."""
    whole = digits()
    return Split(whole.images[:256], whole.labels[:256], whole.held_out_images[:60], whole.held_out_labels[:60])


@pytest.fixture(scope="module")
def classifier(few):
    return train_classifier(few.images, few.labels, passes=10)


@pytest.fixture(scope="module")
def rows(few, classifier):
    refused = []
    made = list(
        image_quality.evaluate(
            "digits",
            few,
            solvers=["ddim", "learned", "flow_euler"],
            steps=[4, 8],
            seed=3,
            classifier=classifier,
            on_refused=lambda *why: refused.append(why),
        )
    )
    return made, refused


def test_every_solver_is_measured_or_refused(rows):
    made, refused = rows
    assert [(row.solver, row.steps) for row in made] == [(image_quality.REAL, 0), ("ddim", 4), ("ddim", 8), ("learned", 8)]
    assert [row.nfe for row in made] == [0, 4, 8, 8]
    assert [(name, steps) for name, steps, _ in refused] == [("learned", 4), ("flow_euler", 4), ("flow_euler", 8)]
    assert all(why for *_, why in refused)


def test_the_figures_are_in_range_and_tell_digits_from_noise(rows, few, classifier):
    made, _ = rows
    for row in made:
        assert 0 <= row.accuracy <= 100 and 1 <= row.score <= 10 and 0 <= row.precision <= 1 and 0 <= row.recall <= 1
    noise = np.random.default_rng(0).uniform(-1, 1, few.held_out_images.shape).astype(np.float32)
    reference = image_quality.features(classifier, few.images)
    spoilt = image_quality.measure(classifier, reference, few, noise, few.held_out_labels)
    drawn = made[-1]
    assert drawn.accuracy > 80 > spoilt.accuracy
    assert drawn.frechet_distance < spoilt.frechet_distance
    assert drawn.precision > spoilt.precision


def test_sets_and_guidance_scales(few, classifier):
    one, two = (
        list(image_quality.evaluate("digits", few, steps=[2], guidance_scales=(1.0, 2.0), sets=sets, classifier=classifier))
        for sets in (1, 2)
    )
    assert [(row.label, row.samples) for row in two] == [(image_quality.REAL, 60), ("ddim", 120), ("ddim, guidance 2", 120)]
    assert one[1].frechet_distance_std == 0.0 < two[1].frechet_distance_std
    assert one[1].frechet_distance != one[2].frechet_distance
    assert len(two[1].accuracy_per_class) == 10


def test_table_and_plot_are_written(rows, tmp_path):
    made, _ = rows
    image_quality.to_csv(made, tmp_path / "q.csv")
    with open(tmp_path / "q.csv", newline="") as file:
        back = list(csv.DictReader(file))
    assert [line["solver"] for line in back] == [row.solver for row in made]
    assert float(back[1]["accuracy"]) == pytest.approx(made[1].accuracy, rel=1e-5)
    pytest.importorskip("matplotlib")
    plot.plot(made, tmp_path / "q.png", "a title")
    assert (tmp_path / "q.png").read_bytes()[:4] == b"\x89PNG"
    with pytest.raises(OutputError):
        plot.plot(made, tmp_path / "nowhere" / "q.png", "a title")


def test_the_plot_names_every_solver_and_cuts_outliers_off(tmp_path, monkeypatch):
    """27 solvers, one of which is a hundred times as far as the others: its figure is text, and the axis is that of the others."""
    figure = pytest.importorskip("matplotlib.figure")
    kept = []
    monkeypatch.setattr(figure.Figure, "savefig", lambda self, path, **_: (kept.append(self), path.write_bytes(b""))[1])

    def quality(solver, nfe, distance, accuracy):
        return image_quality.Quality(solver, nfe, nfe, accuracy, 9.0, distance, 0.9, 0.9)

    made = [quality(image_quality.REAL, 0, 12.0, 99.0)]
    made += [quality(f"solver {i:02}", nfe, 8.0 + i / 10 + 5 / nfe, 99.5) for i in range(27) for nfe in (5, 50)]
    made += [quality("solver 00", 2, 1234.0, 11.0)]
    plot.plot(made, tmp_path / "q.png", "a title")
    (drawn,) = kept
    left, right = drawn.axes[:2]
    assert [label.get_text() for label in left.get_yticklabels()] == [f"solver {i:02}" for i in reversed(range(27))]
    assert left.get_xlim()[1] < 60 and right.get_xlim()[0] > 90
    assert [text.get_text() for text in left.texts] == ["1.23e+03 →"]
    assert [text.get_text() for text in right.texts] == ["← 11"]
    ticks = [text for tick in left.get_xticklabels() if (text := tick.get_text())]
    assert len(ticks) >= 3 and not any("10^" in text for text in ticks)
    colours = {tuple(c) for points in left.collections for c in points.get_facecolors().round(6).tolist()}
    assert len(colours) == 2  # one for each number of calls, whoever the solver is


def test_the_plot_of_nothing_drawn(tmp_path):
    pytest.importorskip("matplotlib")
    plot.plot([image_quality.Quality(image_quality.REAL, 0, 0, 99.0, 9.0, 12.0, 0.9, 0.9)], tmp_path / "q.png", "a title")
    assert (tmp_path / "q.png").read_bytes()[:4] == b"\x89PNG"


@pytest.mark.parametrize(
    "change, message",
    [
        ({"label": "colour"}, "no conditioning input 'colour'"),
        ({"data": Split(*(np.zeros((9, 1, 4, 4), np.float32), np.zeros(9, np.int64)) * 2)}, "have the shape"),
        ({"few": 3}, "more than 3"),
        ({"solvers": ["nothing"], "on_refused": None}, "nothing"),
        ({"sets": 0}, "sets is 0"),
    ],
)
def test_what_does_not_fit_is_refused(few, classifier, change, message):
    options = {"data": few, "classifier": classifier, "solvers": ["ddim"], "steps": [1], **change}
    if count := options.pop("few", None):
        options["data"] = Split(few.images, few.labels, few.held_out_images[:count], few.held_out_labels[:count])
    with pytest.raises(df.DiffuseFastError, match=message):
        list(image_quality.evaluate("digits", options.pop("data"), **options))


def test_an_npz_is_split_by_class(tmp_path, few):
    np.savez(tmp_path / "d.npz", images=few.images, labels=few.labels)
    split = split_npz(tmp_path / "d.npz")
    assert len(split.labels) + len(split.held_out_labels) == len(few.labels)
    for label in range(10):
        share = (split.held_out_labels == label).sum() / (few.labels == label).sum()
        assert share == pytest.approx(0.2, abs=0.03)
    again = split_npz(tmp_path / "d.npz")
    np.testing.assert_array_equal(again.held_out_images, split.held_out_images)


@pytest.mark.parametrize(
    "arrays, message",
    [
        ({"images": np.zeros((4, 1, 8, 8), np.float32)}, "lacks labels"),
        (
            {
                "images": np.tile(np.linspace(0, 1, 4, dtype=np.float32)[:, None, None, None], (1, 1, 8, 8)),
                "labels": np.zeros(4, int),
            },
            r"no value below 0.*by 2 \* images - 1",
        ),
        ({"images": np.zeros((4, 8, 8), np.float32), "labels": np.zeros(4, int)}, "N, C, H, W"),
        ({"images": np.zeros((4, 1, 8, 8), np.uint8), "labels": np.zeros(4, int)}, "floats"),
        ({"images": np.zeros((4, 1, 8, 8), np.float32), "labels": np.zeros(3, int)}, "one per image"),
        ({"images": np.zeros((4, 1, 8, 8), np.float32), "labels": np.array([0, 1, 2, -1])}, "from 0"),
        ({"images": np.full((4, 1, 8, 8), 2.0, np.float32), "labels": np.zeros(4, int)}, "outside"),
        ({"images": np.full((4, 1, 8, 8), np.nan, np.float32), "labels": np.zeros(4, int)}, "outside"),
        ({"images": np.zeros((2, 1, 8, 8), np.float32), "labels": np.arange(2)}, "leaves none to train on"),
        ({"images": np.array([object()]), "labels": np.arange(2)}, "is not an .npz"),
    ],
)
def test_an_npz_that_does_not_fit_is_refused(tmp_path, arrays, message):
    np.savez(tmp_path / "d.npz", **arrays)
    with pytest.raises(df.DiffuseFastError, match=message):
        split_npz(tmp_path / "d.npz")


def test_a_file_of_another_format_is_refused(tmp_path):
    (tmp_path / "d.npz").write_bytes(b"no archive")
    with pytest.raises(ArgumentError, match=r"not an \.npz"):
        split_npz(tmp_path / "d.npz")
    with pytest.raises(ArgumentError, match=r"not an \.npz"):
        split_npz(tmp_path / "missing.npz")
    np.save(tmp_path / "d.npy", np.zeros(3))
    with pytest.raises(ArgumentError, match=r"not an \.npz"):
        split_npz(tmp_path / "d.npy")
