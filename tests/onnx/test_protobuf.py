"""The walker over protobuf: what it reads, how little it reads, and what it refuses."""

from __future__ import annotations

import pytest

from diffuse_fast.errors import ArtifactError
from diffuse_fast.onnx.protobuf import Span, WireReader


def walk(data: bytes, **options):
    wire = WireReader(data, **options)
    return list(wire.fields(wire.root, "the message"))


def test_the_examples_of_the_encoding_guide():
    # protobuf.dev/programming-guides/encoding: field 1 = 150; field 2 = "testing".
    (number,) = walk(bytes.fromhex("089601"))
    assert (number.number, number.value) == (1, 150)
    wire = WireReader(bytes.fromhex("120774657374696e67"))
    (text,) = wire.fields(wire.root, "m")
    assert text.number == 2 and text.span == Span(2, 9)
    assert wire.text(text, "m") == "testing"


def test_negative_integers_are_two_complement_of_64_bits():
    wire = WireReader(b"\x08" + b"\xfe" + b"\xff" * 8 + b"\x01")  # -2, as the guide writes it
    (field,) = wire.fields(wire.root, "m")
    assert wire.integer(field, "m") == -2


def test_fixed_width_fields_are_stepped_over():
    assert [f.number for f in walk(b"\x0d1234\x11abcdefgh\x18\x05")] == [1, 2, 3]


@pytest.mark.parametrize(
    "data, says",
    [
        (b"\x80", "ends inside a number"),
        (b"\x08", "ends inside a number"),
        (b"\x08\xff\xff", "ends inside a number"),
        (b"\x08" + b"\xff" * 10 + b"\x01", "more than 64 bits"),
        (b"\x08" + b"\xff" * 9 + b"\x7f", "more than 64 bits"),
        (b"\x08" + b"\x80" * 9 + b"\x02", "more than 64 bits"),  # 2^64 itself
        (b"\x0a\x05abcd", "beyond its end"),
        (b"\x0a" + b"\xff" * 9 + b"\x01", "beyond its end"),  # a length of 2^64 - 1
        (b"\x0d123", "beyond its end"),
        (b"\x091234567", "beyond its end"),
        (b"\x00\x01", "numbered 0"),
        (b"\xff\xff\xff\xff\xff\x01\x00", "wire type|numbered"),
        (b"\x0b", "wire type 3"),
        (b"\x0f", "wire type 7"),
    ],
)
def test_damage_is_named(data, says):
    with pytest.raises(ArtifactError, match=says):
        walk(data)


def test_a_length_may_not_reach_beyond_its_own_message():
    # The inner message ends at byte 4, the file at 10.
    wire = WireReader(b"\x0a\x02\x0a\x05abcdef")
    outer = next(iter(wire.fields(Span(0, 4), "outer")))
    with pytest.raises(ArtifactError, match="beyond its end"):
        list(wire.fields(outer.span, "inner"))


def test_the_number_of_fields_is_bounded_across_messages():
    with pytest.raises(ArtifactError, match="protobuf fields; it is not read further"):
        walk(b"\x08\x01" * 101, max_fields=100)
    assert len(walk(b"\x08\x01" * 100, max_fields=100)) == 100


def test_text_is_bounded_and_must_be_utf8():
    wire = WireReader(b"\x0a\x04abcd\x12\x02\xff\xfe\x18\x01")
    fields = list(wire.fields(wire.root, "m"))
    with pytest.raises(ArtifactError, match="at most 3"):
        wire.text(fields[0], "m", limit=3)
    with pytest.raises(ArtifactError, match="UTF-8"):
        wire.text(fields[1], "m")
    with pytest.raises(ArtifactError, match="wire type 0, not 2"):
        wire.text(fields[2], "m")
    with pytest.raises(ArtifactError, match="wire type 2, not 0"):
        wire.integer(fields[0], "m")


class Counting(bytes):
    """Bytes that count how many of them are read."""

    read = 0

    def __getitem__(self, key):
        got = super().__getitem__(key)
        Counting.read += 1 if isinstance(got, int) else len(got)
        return got


def test_what_is_not_asked_for_is_not_read():
    data = b"\x0a\x80\x80\x80\x04" + bytes(8 << 20) + b"\x10\x07"
    Counting.read = 0
    assert [f.number for f in walk(Counting(data))] == [1, 2]
    assert Counting.read <= 4 * 10
