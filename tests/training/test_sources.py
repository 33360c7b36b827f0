"""Data from files: what is read, how it is brought to one shape, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch

pytest.importorskip("PIL")
from PIL import Image

import diffuse_fast as df
from diffuse_fast.errors import ArgumentError, TrainingError
from diffuse_fast.training import TrainConfig
from diffuse_fast.training.data import Arrays, Framing, Generated, Images, from_disk, hold_out
from diffuse_fast.training.feed import Feed


def picture(path, *, color=(255, 0, 0), size=(6, 6), mode="RGB"):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, color).save(path)


@pytest.fixture
def folder(tmp_path):
    """Two classes, of red and of green."""
    for i in range(3):
        picture(tmp_path / "red" / f"{i}.png")
        picture(tmp_path / "green" / "deeper" / f"{i}.PNG", color=(0, 255, 0))
    (tmp_path / "red" / "notes.txt").write_text("no picture")
    return tmp_path


def test_a_folder_of_classes(folder):
    source = Images.from_folder(folder, labels=True)
    assert (len(source), source.shape, source.num_classes, source.classes) == (6, (3, 6, 6), 2, ("green", "red"))
    x, label = source.fetch([0, 5, 2])
    assert label.tolist() == [0, 1, 0]
    assert x.dtype == torch.float32
    assert x[:, :, 0, 0].tolist() == [[-1, 1, -1], [1, -1, -1], [-1, 1, -1]]
    assert Images.from_folder(folder).fetch([0])[1] is None


def test_pictures_are_cropped_in_the_middle_or_squeezed(tmp_path):
    levels = np.zeros((4, 8, 3), np.uint8)
    levels[:, 2:6] = 255  # white between black bars
    Image.fromarray(levels).save(tmp_path / "a.png")
    cropped = Images.from_folder(tmp_path, framing=Framing(size=4)).fetch([0])[0]
    assert torch.equal(cropped, torch.ones(1, 3, 4, 4))
    squeezed = Images.from_folder(tmp_path, framing=Framing(size=4, crop="none", channels=1)).fetch([0])[0]
    assert squeezed.shape == (1, 1, 4, 4)
    assert squeezed[0, 0, 0, 0] < 0 < squeezed[0, 0, 0, 1]


def test_what_is_transparent_is_white(tmp_path):
    picture(tmp_path / "a.png", color=(255, 0, 0, 0), mode="RGBA")
    assert torch.equal(Images.from_folder(tmp_path).fetch([0])[0], torch.ones(1, 3, 6, 6))


@pytest.mark.parametrize(
    ("size", "mode", "framing"), [((8, 6), "RGB", {"size": 6}), ((6, 6), "L", {"channels": 3}), ((6, 6), "L", {"channels": 1})]
)
def test_mixed_pictures_are_refused_until_they_are_made_one(folder, size, mode, framing):
    picture(folder / "red" / "other.png", size=size, mode=mode, color="white")
    with pytest.raises(ArgumentError, match=r"several shapes.*0\.PNG is \(3, 6, 6\).*other\.png.*Give size and channels"):
        Images.from_folder(folder)
    source = Images.from_folder(folder, framing=Framing(**framing))
    assert source.fetch(range(7))[0].shape == (7, *source.shape)


def test_a_broken_picture_is_named_and_skipped_or_an_error(folder, caplog):
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)).save(folder / "red" / "cut.png")
    whole = (folder / "red" / "cut.png").read_bytes()
    (folder / "red" / "cut.png").write_bytes(whole[:-60])  # its header is whole: only decoding shows it
    (folder / "red" / "none.png").write_bytes(b"not a picture")
    with pytest.raises(TrainingError, match=r"red/none\.png cannot be read"):
        Images.from_folder(folder)
    source = Images.from_folder(folder, labels=True, on_error="skip")
    assert list(source.broken) == ["red/none.png"]
    assert len(source) == 7
    x, label = source.fetch(range(7))
    assert list(source.broken) == ["red/none.png", "red/cut.png"]
    assert "red/cut.png" in caplog.text
    assert "2 so far" in caplog.text
    assert torch.equal(x[6], x[0])  # the next good one stands in, with its own label
    assert label.tolist() == [0, 0, 0, 1, 1, 1, 0]
    source.fetch(range(7))
    assert len(source.broken) == 2
    result = df.train(
        df.nn.UNet(3, channels=8, groups=4, blocks=1, multipliers=(1,), num_classes=2), source, schedule=df.Schedule.linear(),
        config=TrainConfig(steps=2, batch_size=6, warmup_steps=0),
    )  # fmt: skip
    assert result.record.broken == ("red/none.png", "red/cut.png")


def test_folders_without_pictures_are_refused(tmp_path):
    absent = tmp_path / "absent"
    for path, labels, named in ((absent, False, "no folder"), (tmp_path, False, "no images"), (tmp_path, True, "classes")):
        with pytest.raises(ArgumentError, match=named):
            Images.from_folder(path, labels=labels)
    (tmp_path / "state.json").write_text("{}")
    with pytest.raises(ArgumentError, match=r'Hugging Face.*data\.kind = "datasets"'):
        Images.from_folder(tmp_path)
    (tmp_path / "a.png").write_bytes(b"")
    with pytest.raises(ArgumentError, match="1 cannot be"):
        Images.from_folder(tmp_path, on_error="skip")


@pytest.mark.parametrize("options", [{"size": 0}, {"channels": 2}, {"crop": "left"}])
def test_senseless_framing_is_refused(options):
    with pytest.raises(ArgumentError, match=next(iter(options))):
        Framing(**options)


@pytest.mark.filterwarnings("ignore")  # of datasets, about itself
def test_a_data_set_on_the_disk(tmp_path):
    datasets = pytest.importorskip("datasets")
    pictures = [Image.new("L", (4, 4), level) for level in (0, 255, 0, 255)]
    rows = {"image": pictures, "name": ["b", "a", "b", "a"], "number": [1, 0, 1, 0]}
    number = datasets.ClassLabel(names=["x", "y"])
    features = datasets.Features({"image": datasets.Image(), "name": datasets.Value("string"), "number": number})
    data = datasets.Dataset.from_dict(rows, features=features)
    data.save_to_disk(tmp_path / "one")
    datasets.DatasetDict({"train": data}).save_to_disk(tmp_path / "several")
    for source in (
        from_disk(tmp_path / "one", label="name"), from_disk(tmp_path / "several", split="train", label="number"),
    ):  # fmt: skip
        x, label = source.fetch([0, 1])
        assert x.shape == (2, 1, 4, 4)
        assert x[:, 0, 0, 0].tolist() == [-1, 1]
        assert label.tolist() == [1, 0]
        assert source.num_classes == 2
    for options, named in (({"image": "photo"}, "photo"), ({"label": "class"}, "class")):
        with pytest.raises(ArgumentError, match=named):
            from_disk(tmp_path / "one", **options)
    with pytest.raises(ArgumentError, match="has train"):
        from_disk(tmp_path / "several", split="test")
    with pytest.raises(ArgumentError, match="no folder of a Hugging Face"):
        from_disk(tmp_path)


def test_arrays_in_files(tmp_path):
    data = np.arange(24, dtype=np.float64).reshape(4, 2, 3)
    np.save(tmp_path / "a.npy", data)
    source = Arrays.from_file(tmp_path / "a.npy")
    assert isinstance(source._data.base, np.memmap)  # mapped, not read
    assert torch.equal(source.fetch([3, 0])[0], torch.tensor(data[[3, 0]], dtype=torch.float32))
    np.savez(tmp_path / "b.npz", data=np.array([[0, 255]], np.uint8), labels=[2])
    x, label = Arrays.from_file(tmp_path / "b.npz").fetch([0])
    assert x.tolist() == [[-1.0, 1.0]]
    assert label.tolist() == [2]

    np.save(tmp_path / "objects.npy", np.array([[{}]]), allow_pickle=True)
    np.savez(tmp_path / "unnamed.npz", data)
    np.save(tmp_path / "nan.npy", np.full((2, 2), np.nan))
    for name, named in (("objects.npy", "no .npy"), ("unnamed.npz", "no array 'data'"), ("absent.npy", "absent")):
        with pytest.raises(ArgumentError, match=named):
            Arrays.from_file(tmp_path / name)
    with pytest.raises(ArgumentError, match="finite"):
        Arrays.from_file(tmp_path / "nan.npy").fetch([0])


def test_a_generator_function_goes_round_and_back():
    def make():
        for i in range(3):
            yield np.full(2, i), i

    feed = Feed(Generated(make, num_classes=3), seed=0)
    assert feed.take(0, 5)[1].tolist() == [0, 1, 2, 0, 1]
    assert feed.take(7, 9)[0][:, 0].tolist() == [1.0, 2.0]
    assert feed.take(2, 4)[1].tolist() == [2, 0]


@pytest.mark.parametrize(
    ("items", "classes", "named"),
    [
        ([], None, "yields nothing"),
        ([np.zeros(2), np.zeros(3)], None, r"yields \(3,\)"),
        ([np.zeros(2), np.full(2, np.inf)], None, "finite"),
        ([(np.zeros(2), 0), (np.zeros(2), 3)], 3, "label 3"),
        ([(np.zeros(2), 0), (np.zeros(2), -1)], 3, "label -1"),
        ([(np.zeros(2), 0), (np.zeros(2), 0.5)], 3, "a whole label"),
        ([(np.zeros(2), 0)], None, "need num_classes"),
        ([np.zeros(2)], 3, "pairs of numbers and a whole label"),
        ([["a", "b"]], None, "no sample"),
    ],
)
def test_a_generator_that_yields_something_else_is_refused(items, classes, named):
    with pytest.raises(ArgumentError, match=named):
        Generated(lambda: iter(items), num_classes=classes).take(0, 2)


def test_what_is_held_out_is_not_trained_on():
    source = Arrays(np.arange(20.0)[:, None])
    train, held = hold_out(source, 0.2, seed=3)
    assert (len(train), len(held)) == (16, 4)
    both = torch.cat([part.fetch(range(len(part)))[0] for part in (train, held)])[:, 0]
    assert sorted(both.tolist()) == list(range(20))
    for fraction in (0.0, 1.0, 0.99):
        with pytest.raises(ArgumentError, match="held_out"):
            hold_out(source, fraction, seed=0)
