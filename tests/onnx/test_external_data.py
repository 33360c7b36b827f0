"""External-data paths: text from a file that may have been written to do harm."""

from __future__ import annotations

import os

import pytest

from diffuse_fast.errors import ArtifactError
from diffuse_fast.onnx.external_data import check
from diffuse_fast.onnx.header import ExternalTensor


@pytest.fixture
def folder(tmp_path):
    inside = tmp_path / "model"
    (inside / "sub").mkdir(parents=True)
    (inside / "w.bin").write_bytes(bytes(100))
    (inside / "sub" / "v.bin").write_bytes(bytes(10))
    (tmp_path / "secret").write_bytes(b"secret" * 100)
    (inside / "link").symlink_to("w.bin")
    (inside / "out").symlink_to(tmp_path / "secret")
    (inside / "away").symlink_to(tmp_path)
    (inside / "loop").symlink_to("loop")
    os.mkfifo(inside / "pipe")
    return inside


def tensor(location, offset=0, length=None):
    return ExternalTensor("w", location, offset, length)


def test_files_inside_the_folder(folder):
    tensors = [tensor("w.bin", 0, 40), tensor("w.bin", 40, 60), tensor("./w.bin"), tensor("sub/v.bin", 10, 0)]
    assert check(tensors, folder) == (folder / "w.bin", folder / "sub" / "v.bin")
    assert check([], folder) == ()


@pytest.mark.parametrize(
    "location, says",
    [
        ("/etc/passwd", "absolute"),
        ("//etc/passwd", "absolute"),
        ("../secret", "leaves"),
        ("sub/../../secret", "leaves"),
        ("sub/../w.bin", "leaves"),
        ("..", "leaves"),
        ("..\\secret", "backslash"),
        ("C:\\secret", "backslash"),
        ("w.bin\0", "control"),
        ("w\n.bin", "control"),
        ("", "empty"),
        (".", "folder"),
        ("sub", "regular file"),
        ("w.bin/x", "does not exist|regular file"),
        ("none.bin", "does not exist"),
        ("link", "symbolic link"),
        ("out", "symbolic link"),
        ("away/secret", "symbolic link"),
        ("loop", "symbolic link"),
        ("pipe", "regular file"),
        ("*/_ORT_MEM_ADDR_/*", "memory address"),
        ("a" * 5000, "does not exist"),
        ("\ud800", "control|does not exist"),
    ],
)
def test_hostile_locations(folder, location, says):
    with pytest.raises(ArtifactError, match=says) as caught:
        check([tensor("w.bin"), tensor(location)], folder)
    assert "'w'" in str(caught.value)  # names the tensor


@pytest.mark.parametrize("offset, length", [(101, None), (0, 101), (100, 1), (1 << 62, 1), (50, 51)])
def test_ranges_beyond_the_file(folder, offset, length):
    with pytest.raises(ArtifactError, match="which has 100"):
        check([tensor("w.bin", offset, length)], folder)
