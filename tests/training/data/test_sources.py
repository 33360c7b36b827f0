"""Data from files: what is read, how it is brought to one shape, and what is refused."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest
import torch

pytest.importorskip("PIL")
from PIL import Image

import diffuse_fast as df
from diffuse_fast.errors import ArgumentError, DiffuseFastError, TrainingError
from diffuse_fast.training import TrainConfig
from diffuse_fast.training.data import Arrays, Framing, Generated, Images, from_disk, hold_out
from diffuse_fast.training.run.batch_order import BatchOrder


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


def test_images_are_center_cropped_or_resized(tmp_path):
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
def test_images_of_different_shapes_are_refused_until_size_and_channels_are_given(folder, size, mode, framing):
    picture(folder / "red" / "other.png", size=size, mode=mode, color="white")
    with pytest.raises(ArgumentError, match=r"several shapes.*0\.PNG is \(3, 6, 6\).*other\.png.*Give size and channels"):
        Images.from_folder(folder)
    source = Images.from_folder(folder, framing=Framing(**framing))
    assert source.fetch(range(7))[0].shape == (7, *source.shape)


def test_a_broken_image_is_named_and_skipped_or_an_error(folder, caplog):
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
        df.nn.UNet(3, channels=8, groups=4, blocks=1, multipliers=(1,), num_classes=2),
        source,
        schedule=df.Schedule.linear(),
        config=TrainConfig(steps=2, batch_size=6, warmup_steps=0),
    )
    assert result.record.broken == ("red/none.png", "red/cut.png")


def test_folders_without_images_are_refused(tmp_path):
    absent = tmp_path / "absent"
    for path, labels, named in ((absent, False, "no folder"), (tmp_path, False, "no images"), (tmp_path, True, "class folders")):
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
    for source in (from_disk(tmp_path / "one", label="name"), from_disk(tmp_path / "several", split="train", label="number")):
        x, label = source.fetch([0, 1])
        assert x.shape == (2, 1, 4, 4)
        assert x[:, 0, 0, 0].tolist() == [-1, 1]
        assert label.tolist() == [1, 0]
        assert source.num_classes == 2
    for options, named in (({"image": "photo"}, "photo"), ({"label": "class"}, "class")):
        with pytest.raises(ArgumentError, match=named):
            from_disk(tmp_path / "one", **options)
    counted = data.remove_columns("name").add_column("name", ["10", "2", "10", "2"])
    counted.save_to_disk(tmp_path / "counted")
    source = from_disk(tmp_path / "counted", label="name")
    assert source.classes == ("2", "10") and source.fetch([0, 1])[1].tolist() == [1, 0]
    with pytest.raises(ArgumentError, match="one of train"):
        from_disk(tmp_path / "several", split="test")
    with pytest.raises(ArgumentError, match="not a folder of a Hugging Face"):
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
    for name, named in (("objects.npy", "not an .npy"), ("unnamed.npz", "no array 'data'"), ("absent.npy", "absent")):
        with pytest.raises(ArgumentError, match=named):
            Arrays.from_file(tmp_path / name)
    with pytest.raises(ArgumentError, match="finite"):
        Arrays.from_file(tmp_path / "nan.npy").fetch([0])


def test_a_generator_function_goes_round_and_back():
    def make():
        for i in range(3):
            yield np.full(2, i), i

    feed = BatchOrder(Generated(make, num_classes=3), seed=0)
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
        ([(np.zeros(2), 0), (np.zeros(2), 0.5)], 3, "an integer label"),
        ([(np.zeros(2), 0)], None, "need num_classes"),
        ([np.zeros(2)], 3, "pairs of an array and an integer label"),
        ([["a", "b"]], None, "invalid sample"),
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


# ---- what values mean ---------------------------------------------------------------------------


def png16(levels: np.ndarray, before: bytes = b"", after: bytes = b"") -> bytes:
    """A grey PNG of 16 bits, written by hand."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    height, width = levels.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in levels)
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + before + chunk(b"IDAT", zlib.compress(rows)) + after + chunk(b"IEND", b"")


def tiff(values: np.ndarray, kind: int, *, photometric: int = 1, order: str = "<") -> bytes:
    """A grey TIFF in one strip, written by hand. ``kind``: 1 whole numbers, 2 with a sign, 3 floats."""
    height, width = values.shape
    bits = 8 * values.dtype.itemsize
    data = values.astype(values.dtype.newbyteorder(order)).tobytes()
    tags = [(256, width), (257, height), (258, bits), (259, 1), (262, photometric), (273, 8), (277, 1), (278, height),
            (279, len(data)), (339, kind)]  # fmt: skip
    entries = b"".join(struct.pack(f"{order}HHII", tag, 4, 1, value) for tag, value in tags)
    mark = b"II*\0" if order == "<" else b"MM\0*"
    return mark + struct.pack(f"{order}I", 8 + len(data)) + data + struct.pack(f"{order}H", len(tags)) + entries + b"\0" * 4


DEEP = np.array([[0, 1, 12345, 65535], [65534, 300, 32768, 255]], np.uint16)
SCALED = DEEP / 32767.5 - 1.0


@pytest.mark.parametrize("channels", [None, 1, 3])
@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.png", png16(DEEP)),
        ("a.pgm", b"P5\n4 2\n65535\n" + DEEP.astype(">u2").tobytes()),
        ("a.tif", tiff(DEEP, 1)),
        ("b.tif", tiff(DEEP, 1, order=">")),
        ("f.tif", tiff((DEEP / 65535).astype(np.float32), 3)),
        ("f.pfm", b"Pf\n4 2\n-1.0\n" + (DEEP[::-1] / 65535).astype("<f4").tobytes()),
    ],
)
def test_images_of_more_than_8_bits_keep_their_values(tmp_path, channels, name, content):
    (tmp_path / name).write_bytes(content)
    x = Images.from_folder(tmp_path, framing=Framing(channels=channels)).fetch([0])[0].numpy()
    assert x.shape == (1, channels or 1, 2, 4)
    for plane in x[0]:
        np.testing.assert_allclose(plane, SCALED, atol=1e-6)  # float32 of numbers up to 1


def test_images_of_more_than_8_bits_are_resized_like_others(tmp_path):
    """A grey ramp in 16 bits and the same in 8, up to half a level of 8 bits; bright edges stay within -1 to 1."""
    ramp = np.repeat(np.linspace(0, 255, 24).round()[None], 24, axis=0).astype(np.uint8)
    ramp[:, 12:] = 255
    Image.fromarray(ramp).save(tmp_path / "8.png")
    (tmp_path / "16.png").write_bytes(png16(ramp.astype(np.uint16) * 257))
    deep, plain = Images.from_folder(tmp_path, framing=Framing(size=16)).fetch([1, 0])[0]
    assert (deep - plain).abs().max() <= 1 / 255 + 1e-6
    assert deep.max() == 1.0


def test_an_unknown_maximum_of_an_image_must_be_given(tmp_path):
    (tmp_path / "whole.tif").write_bytes(tiff(DEEP.astype(np.int32), 2))
    for on_error in ("raise", "skip"):
        with pytest.raises(ArgumentError, match=r"whole\.tif cannot be used.*maximum is unknown; give data_range="):
            Images.from_folder(tmp_path, on_error=on_error)
    x = Images.from_folder(tmp_path, framing=Framing(data_range=(0, 65535))).fetch([0])[0].numpy()
    np.testing.assert_allclose(x[0, 0], SCALED, atol=1e-6)
    with pytest.raises(ArgumentError, match=r"whole\.tif cannot be used: there are values from 0 to 65535, outside 0 to 4095"):
        Images.from_folder(tmp_path, framing=Framing(data_range=(0, 4095)), on_error="skip").fetch([0])
    (tmp_path / "whole.tif").write_bytes(tiff((DEEP / 257).astype(np.float32), 3))
    with pytest.raises(ArgumentError, match="values from 0 to 255, outside 0 to 1"):
        Images.from_folder(tmp_path).fetch([0])
    x = Images.from_folder(tmp_path, framing=Framing(data_range=(0, 255))).fetch([0])[0].numpy()
    np.testing.assert_allclose(x[0, 0], SCALED, atol=1e-6)
    with pytest.raises(ArgumentError, match="data_range is False"):
        Framing(data_range=False)


def test_white_that_is_zero_and_transparent_grey(tmp_path):
    (tmp_path / "a.tif").write_bytes(tiff(DEEP, 1, photometric=0))
    np.testing.assert_allclose(Images.from_folder(tmp_path).fetch([0])[0][0, 0].numpy(), -SCALED, atol=1e-6)
    (tmp_path / "a.tif").unlink()
    data = b"tRNS" + struct.pack(">H", 12345)
    (tmp_path / "a.png").write_bytes(png16(DEEP, struct.pack(">I", 2) + data + struct.pack(">I", zlib.crc32(data))))
    expected = np.where(DEEP == 12345, 1.0, SCALED)
    np.testing.assert_allclose(Images.from_folder(tmp_path).fetch([0])[0][0, 0].numpy(), expected, atol=1e-6)


def upright(stored: np.ndarray, orientation: int) -> np.ndarray:
    """What EXIF 2.3, table 6, says of rows and columns: where the stored row 0 and column 0 are seen."""
    height, width = stored.shape
    rows, columns = np.mgrid[:height, :width]
    seen_row, seen_column = {
        1: (rows, columns),
        2: (rows, width - 1 - columns),
        3: (height - 1 - rows, width - 1 - columns),
        4: (height - 1 - rows, columns),
        5: (columns, rows),
        6: (columns, height - 1 - rows),
        7: (width - 1 - columns, height - 1 - rows),
        8: (width - 1 - columns, rows),
    }[orientation]
    out = np.empty((width, height) if orientation > 4 else (height, width), stored.dtype)
    out[seen_row, seen_column] = stored
    return out


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(
    ("suffix", "options"),
    [
        ("png", {}), ("png", {"deep": True}), ("tif", {"compression": "tiff_lzw"}),
        ("tif", {"compression": "tiff_lzw", "deep": True}), ("tif", {}), ("tif", {"deep": True}), ("webp", {"lossless": True}),
        ("jpg", {"quality": 100}), ("avif", {"quality": 100}),
    ],
)  # fmt: skip
def test_exif_orientation_is_applied(tmp_path, suffix, options, orientation):
    stored = np.zeros((16, 24), np.uint8)
    stored[:8, :8], stored[:8, 8:16], stored[8:, 16:] = 255, 128, 64  # no symmetry; blocks that JPEG keeps
    options = dict(options)
    image = Image.fromarray(stored.astype(np.uint16) * 257) if options.pop("deep", False) else Image.fromarray(stored)
    exif = Image.Exif()
    exif[0x0112] = orientation
    told = suffix == "tif" and not options and orientation > 4
    try:
        image.save(tmp_path / f"a.{suffix}", exif=exif, **options)
    except (KeyError, OSError) as error:
        pytest.skip(f"Pillow has no {suffix} here: {error}")
    source = Images.from_folder(tmp_path, framing=Framing(channels=1))
    expected = upright(stored, orientation)
    assert source.shape == (1, *expected.shape)  # known from the header
    if told:  # there are versions of Pillow that misread it: then it is refused
        try:
            source.fetch([0])
        except TrainingError as error:
            assert "misreads rotated uncompressed TIFF" in str(error)
            return
    found = (source.fetch([0])[0][0, 0].numpy() + 1) * 127.5
    assert np.abs(found - expected).max() < 8  # of a lossy format


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp"])
def test_damaged_exif_turns_nothing(tmp_path, suffix):
    Image.new("RGB", (6, 4), "white").save(tmp_path / f"a.{suffix}", exif=b"Exif\0\0garbage")
    assert torch.equal(Images.from_folder(tmp_path).fetch([0])[0], torch.ones(1, 3, 4, 6))


def test_an_orientation_missing_from_the_header_is_named(tmp_path):
    """EXIF after the pixels of a PNG."""
    exif = Image.Exif()
    exif[0x0112] = 6
    data = b"eXIf" + exif.tobytes().removeprefix(b"Exif\0\0")
    chunk = struct.pack(">I", len(data) - 4) + data + struct.pack(">I", zlib.crc32(data))
    (tmp_path / "a.png").write_bytes(png16(DEEP, after=chunk))
    with pytest.raises(ArgumentError, match=r"a\.png is \(1, 4, 2\); its header says \(1, 2, 4\)"):
        Images.from_folder(tmp_path).fetch([0])
    x = Images.from_folder(tmp_path, framing=Framing(size=2)).fetch([0])[0]
    assert x[0, 0, 0, 1] > x[0, 0, 1, 1] - 2  # it can be framed


@pytest.mark.parametrize("suffix", ["avif", "jfif", "jpe", "tga", "jp2", "pbm", "qoi"])
def test_every_common_format_is_read(tmp_path, suffix):
    kinds = {"jfif": "JPEG", "jpe": "JPEG", "jp2": "JPEG2000", "pbm": "PPM"}
    try:
        Image.new("RGB", (6, 6), "white").save(tmp_path / f"a.{suffix}", kinds.get(suffix, suffix))
    except (KeyError, OSError) as error:
        pytest.skip(f"Pillow has no {suffix} here: {error}")
    assert torch.equal(Images.from_folder(tmp_path).fetch([0])[0], torch.ones(1, 3, 6, 6))


def test_a_decompression_bomb_is_named(tmp_path, monkeypatch):
    picture(tmp_path / "giant.png", size=(40, 40))
    picture(tmp_path / "small.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(TrainingError, match=r"giant\.png cannot be read: .*decompression bomb"):
        Images.from_folder(tmp_path)
    source = Images.from_folder(tmp_path, on_error="skip")
    assert (len(source), list(source.broken)) == (1, ["giant.png"])


# ---- folders of classes -------------------------------------------------------------------------


def test_classes_are_in_the_order_in_which_people_count(tmp_path):
    for i in range(12):
        picture(tmp_path / str(i) / "a10.png", color=(i, 0, 0))
        picture(tmp_path / str(i) / "a9.png", color=(i, 0, 0))
    source = Images.from_folder(tmp_path, labels=True)
    assert source.classes == tuple(map(str, range(12)))
    x, label = source.fetch(range(24))
    assert label.tolist() == [i // 2 for i in range(24)]
    assert ((x[:, 0, 0, 0] + 1) * 127.5).round().tolist() == label.tolist()
    assert source._names[:2] == ["0/a9.png", "0/a10.png"]


def test_what_is_left_out_is_counted_and_links_are_followed(tmp_path, caplog):
    root, elsewhere = tmp_path / "data", tmp_path / "elsewhere"
    picture(root / "cat" / "a.png")
    picture(root / ".ipynb_checkpoints" / "a.png")
    picture(root / "cat" / ".hidden.png")
    picture(root / "loose.png")
    picture(elsewhere / "b.png", color=(0, 255, 0))
    (root / "dog").symlink_to(elsewhere)
    (root / "cat" / "up").symlink_to(root)
    (root / "cat" / "gone.png").symlink_to(root / "absent.png")
    (root / "empty").mkdir()
    (root / "cat" / "notes.txt").write_text("")
    (root / "cat" / "raw.HEIC").write_bytes(b"")
    source = Images.from_folder(root, labels=True)
    assert source.classes == ("cat", "dog")
    x, label = source.fetch([0, 1])
    assert label.tolist() == [0, 1]
    assert x[:, 1, 0, 0].tolist() == [-1, 1]
    for told in (
        "2 hidden",
        "1 images outside a class folder",
        "1 .txt",
        "1 .heic",
        "1 folders without an image",
        "1 links to a parent folder",
        "1 broken links",
    ):
        assert told in caplog.text
    (tmp_path / "only").mkdir()
    (tmp_path / "only" / "a.heic").write_bytes(b"")
    with pytest.raises(ArgumentError, match=r"There are: 1 \.heic"):
        Images.from_folder(tmp_path / "only")


# ---- arrays -------------------------------------------------------------------------------------

LEVELS = np.random.default_rng(0).integers(0, 256, (12, 1, 4, 4)).astype(np.uint8)


@pytest.mark.parametrize("where", ["array", "tensor", "file", "npz", "generator"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_levels_are_scaled_wherever_they_come_from(tmp_path, where, dtype):
    data = LEVELS.astype(dtype) * (257 if dtype == np.uint16 else 1)
    expected = LEVELS / 127.5 - 1.0
    if where == "file":
        np.save(tmp_path / "a.npy", data)
        source = Arrays.from_file(tmp_path / "a.npy")
    elif where == "npz":
        np.savez(tmp_path / "a.npz", data=data)
        source = Arrays.from_file(tmp_path / "a.npz")
    elif where == "generator":
        source = BatchOrder(Generated(lambda: iter(data)), 0)
        np.testing.assert_allclose(source.take(0, 12)[0].numpy(), expected, atol=1e-6)
        return
    else:
        source = Arrays(torch.from_numpy(data) if where == "tensor" else data)
    x = source.fetch(range(12))[0]
    assert x.dtype == torch.float32 and source.value_range == (-1, 1)
    np.testing.assert_allclose(x.numpy(), expected, atol=1e-6)


def test_training_on_levels_is_the_same_from_an_array_and_from_its_file(tmp_path):
    np.save(tmp_path / "a.npy", LEVELS)
    runs = []
    for data in (LEVELS, Arrays.from_file(tmp_path / "a.npy"), (LEVELS / np.float32(127.5) - 1).astype(np.float32)):
        torch.manual_seed(0)
        network = df.nn.UNet(1, channels=8, groups=4, blocks=1, multipliers=(1,))
        config = TrainConfig(steps=2, batch_size=6, warmup_steps=0)
        runs.append(df.train(network, data, schedule=df.Schedule.linear(), config=config).record.losses)
    assert runs[0] == runs[1] == runs[2]


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int64, ">f4"])
@pytest.mark.parametrize("top", [1, 255])
def test_arrays_of_images_in_0_1_or_0_255_need_a_range(dtype, top):
    data = (np.round(LEVELS / 255) * top).astype(dtype)
    with pytest.raises(ArgumentError, match=rf"values from 0 to {top}, and none below 0.*data_range=\(0, 1\).*data_range=False"):
        Arrays(data)
    with pytest.raises(ArgumentError, match="none below 0"):
        df.train(df.nn.UNet(1, channels=8, groups=4, blocks=1), data, schedule=df.Schedule.linear())
    said = Arrays(data, data_range=(0, top))
    assert said.value_range == (-1, 1)
    np.testing.assert_allclose(said.fetch(range(12))[0].numpy(), np.round(LEVELS / 255) * 2 - 1, atol=1e-6)
    plain = Arrays(data, data_range=False)
    assert plain.value_range is None
    np.testing.assert_array_equal(plain.fetch([3])[0].numpy(), data[[3]].astype(np.float32))


def test_other_arrays_are_not_scaled():
    points, whole = np.arange(20.0).reshape(10, 2), np.arange(-2, 14).reshape(4, 1, 2, 2)
    for data in (points, whole, LEVELS / 127.5 - 1.0, np.zeros((4, 1, 4, 4))):
        source = Arrays(data)
        assert source.value_range is None
        np.testing.assert_array_equal(source.fetch([1])[0].numpy(), data[[1]].astype(np.float32))
    with pytest.raises(ArgumentError, match="values from 2 to 2, outside 0 to 1"):
        Arrays(np.array([[0.0], [2.0]]), data_range=(0, 1)).fetch([1])
    for bad in ((1, 0), (0,), "ab", True, (0, np.inf)):
        with pytest.raises(DiffuseFastError, match="data_range is"):
            Arrays(np.zeros((2, 2)), data_range=bad)


def test_channels_last_are_refused():
    for shape in ((10, 32, 32, 3), (10, 28, 28, 1), (10, 8, 8, 8, 4)):
        with pytest.raises(ArgumentError, match=r"channels last.*data\.transpose\(0, "):
            Arrays(np.zeros(shape))
    with pytest.raises(ArgumentError, match="channels last"):
        Generated(lambda: iter([np.zeros((32, 32, 3))]))
    for shape in ((10, 3, 32, 32), (10, 1, 4, 4), (10, 3, 5, 3), (10, 16, 4, 4), (10, 64, 3)):
        Arrays(np.zeros(shape))


def test_a_part_says_what_its_source_says(folder):
    for part in hold_out(Arrays(LEVELS, np.arange(12) % 2), 0.25, seed=0):
        assert (part.value_range, part.classes) == ((-1, 1), None)
    for part in hold_out(Images.from_folder(folder, labels=True), 0.5, seed=0):
        assert (part.value_range, part.classes) == ((-1, 1), ("green", "red"))
