"""Files are written whole or not at all."""

import os

import pytest

from diffuse_fast.errors import ArgumentError, DiffuseFastError, OutputError
from diffuse_fast.files import replacing, writable


def test_the_file_appears_at_the_end(tmp_path):
    path = tmp_path / "x.txt"
    path.write_text("before")
    with replacing(path) as partial:
        partial.write_text("after")
        assert partial.suffix == ".txt"
        assert path.read_text() == "before"
    assert path.read_text() == "after"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("raised", "told"), [(KeyboardInterrupt, KeyboardInterrupt), (OSError, OutputError), (ArgumentError, ArgumentError)]
)
def test_nothing_is_left_of_what_failed(tmp_path, raised, told):
    path = tmp_path / "x.txt"
    path.write_text("before")
    with pytest.raises(told), replacing(path) as partial:
        partial.write_text("half")
        raise raised
    assert [p.read_text() for p in tmp_path.iterdir()] == ["before"]


def test_writable_tries_and_leaves_nothing(tmp_path):
    assert writable(tmp_path / "x.txt") == tmp_path / "x.txt"
    (tmp_path / "there.txt").write_text("kept")
    writable(tmp_path / "there.txt")
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("there.txt", "kept")]


def test_what_cannot_be_written_is_told(tmp_path):
    (tmp_path / "file").touch()
    os.mkfifo(tmp_path / "pipe")
    for path in ("file/x", "absent/x", ".", "", "pipe", "null\0character", "n" * 300):
        with pytest.raises(OutputError, match="cannot write") as caught:
            writable(tmp_path / path if path else "")
        assert isinstance(caught.value, DiffuseFastError | OSError)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "pipe"]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(OutputError, match="Permission"):
        writable(tmp_path / "x")
