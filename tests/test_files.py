"""Files are written whole or not at all."""

import os
import subprocess
import sys
from pathlib import Path

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


def test_a_file_that_cannot_be_written_is_an_error(tmp_path):
    (tmp_path / "file").touch()
    os.mkfifo(tmp_path / "pipe")
    for path in ("file/x", "absent/x", ".", "", "pipe", "null\0character", "n" * 300):
        with pytest.raises(OutputError, match="cannot write") as caught:
            writable(tmp_path / path if path else "")
        assert isinstance(caught.value, DiffuseFastError | OSError)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "pipe"]


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o444])
def test_a_replaced_file_keeps_its_permissions(tmp_path, mode):
    path = tmp_path / "x.txt"
    path.write_text("before")
    path.chmod(mode)
    with replacing(path) as partial:
        assert partial.stat().st_mode & 0o077 & ~mode == 0  # nor does anybody else read what is being written
        partial.chmod(0o644)
        partial.write_text("after")
    assert (path.read_text(), path.stat().st_mode & 0o777) == ("after", mode)


def test_a_link_is_followed(tmp_path):
    there, link = tmp_path / "there" / "x.txt", tmp_path / "link.txt"
    there.parent.mkdir()
    link.symlink_to("there/x.txt")
    for text in ("made", "replaced"):  # it leads nowhere at first
        writable(link)
        with replacing(link) as partial:
            partial.write_text(text)
            assert partial.parent == there.parent
        assert link.is_symlink() and there.read_text() == text
    assert sorted(p.name for p in tmp_path.iterdir()) == ["link.txt", "there"]


KILLED = """
import os, signal, sys
from diffuse_fast.files import replacing
with replacing(sys.argv[1]) as partial:
    partial.write_text("half")
    if sys.argv[2] == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    print(partial, flush=True)
    sys.stdin.read()
"""


@pytest.mark.skipif(os.name != "posix", reason="locks files")
def test_what_a_killed_process_left_is_swept(tmp_path):
    path = tmp_path / "x.txt"
    for name in (".x.0123456.txt", ".y.01234567.txt", ".x.01234567.csv"):  # of nobody here, or of another file
        (tmp_path / name).write_text("kept")
    others = {p.name for p in tmp_path.iterdir()}
    subprocess.run([sys.executable, "-c", KILLED, path, "killed"], timeout=280)
    (left,) = {p.name for p in tmp_path.iterdir()} - others
    command = [sys.executable, "-c", KILLED, path, "alive"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as alive:
        writing = Path(alive.stdout.readline().strip())
        for file in tmp_path.iterdir():
            os.utime(file, (0, 0))
        with replacing(path) as partial:
            partial.write_text("whole")
        assert {p.name for p in tmp_path.iterdir()} == {"x.txt", writing.name, *others} and left != writing.name
        alive.communicate(timeout=280)
    assert alive.returncode == 0 and path.read_text() == "half"


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(OutputError, match="Permission"):
        writable(tmp_path / "x")
