"""Output of commands: replacement of characters that the terminal cannot print, and progress lines."""

from __future__ import annotations

import codecs
import io
import sys
import time
import unicodedata

INTERVAL = 10.0  # seconds between progress lines when the output is not a terminal

_PLAIN = {"→": ">", "±": "+-", "×": "x", "·": "*", "−": "-", "–": "-"}


def degrade() -> None:
    """Make standard output and standard error replace unprintable characters instead of raising UnicodeEncodeError:
    ``Fréchet`` becomes ``Frechet``, ``→`` becomes ``>``. Commands call it first."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            ascii_only = codecs.lookup(stream.encoding).name == "ascii"
            stream.reconfigure(encoding="diffuse_fast_ascii" if ascii_only else None, errors="diffuse_fast.plain")


def say(line: str) -> None:
    """Print a line of progress on standard error."""
    if sys.stderr is not None:  # it is closed
        print(line, file=sys.stderr, flush=True)


def silent(line: str) -> None:
    """Print nothing; the alternative to :func:`say`."""


class Interval:
    """A callable that is true once every :data:`INTERVAL` seconds."""

    def __init__(self) -> None:
        self._due = time.monotonic() + INTERVAL

    def __call__(self) -> bool:
        now = time.monotonic()
        if now < self._due:
            return False
        self._due = now + INTERVAL
        return True


def _plain(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(map(_in_ascii, error.object[error.start : error.end])), error.end


def _in_ascii(character: str) -> str:
    letters = unicodedata.normalize("NFKD", character).encode("ascii", "ignore").decode()  # without accents
    return _PLAIN.get(character) or letters or "?"


def _ascii(name: str) -> codecs.CodecInfo | None:
    """ASCII by another name: click writes UTF-8 to a stream whose encoding is called ASCII, and so prints help and usage errors."""
    if name != "diffuse_fast_ascii":
        return None
    codec = codecs.lookup("ascii")
    return codecs.CodecInfo(
        codec.encode, codec.decode, codec.streamreader, codec.streamwriter, codec.incrementalencoder, codec.incrementaldecoder, name
    )


codecs.register(_ascii)
codecs.register_error("diffuse_fast.plain", _plain)
