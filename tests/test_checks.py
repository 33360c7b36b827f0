import math

import numpy as np
import pytest

import diffuse_fast as df
from diffuse_fast.checks import require_int, require_positive
from diffuse_fast.errors import ArgumentError, ArgumentTypeError
from diffuse_fast.training.evaluation.held_out import split_npz


@pytest.mark.parametrize("value", [3, np.int64(3), np.uint8(3)])
def test_an_integer_becomes_an_int(value):
    found = require_int("n", value, 1, bits=8)
    assert type(found) is int and found == 3


@pytest.mark.parametrize("value", [True, 2.0, np.float64(2), "2", None, [2], np.array(2)])
def test_another_type_than_an_integer(value):
    with pytest.raises(ArgumentTypeError, match=r"^n is .*; it must be an integer\.$"):
        require_int("n", value, 1)


@pytest.mark.parametrize(("value", "says"), [
    (0, r"n is 0; it must be at least 1\."), (np.int8(-5), r"n is -5; it must be at least 1\."),
    (256, r"n is 256; it must be below 2\*\*8\."),
])  # fmt: skip
def test_an_integer_out_of_range(value, says):
    with pytest.raises(ArgumentError, match=f"^{says}$"):
        require_int("n", value, 1, bits=8)
    assert require_int("n", -(2**70)) == -(2**70)


@pytest.mark.parametrize("value", [0, -1.0, math.inf, math.nan, 10**400])
def test_a_number_that_is_not_positive(value):
    with pytest.raises(ArgumentError, match=r"x is .*; it must be above 0 and finite"):
        require_positive("x", value)


def held_out(tmp_path, images, labels):
    np.savez(tmp_path / "set.npz", images=images, labels=labels)
    split_npz(tmp_path / "set.npz")


IMAGES, LABELS = np.zeros((4, 1, 8, 8), np.float32), np.zeros(4, int)


@pytest.mark.parametrize(("call", "wrong_type", "wrong_value"), [
    (lambda v, _: df.tune("digits", seconds=v), "1", 0.0),
    (lambda v, _: df.tune("digits", max_error=v), True, -1.0),
    (lambda v, _: df.tune("digits", seconds=1e-3, batch_sizes=[v]), 1.5, 0),
    (lambda v, _: df.quantize("digits", "never-written.onnx", max_error=v), "1", -1.0),
    (lambda v, _: df.Plan.from_diffusers({"_class_name": "DDIMScheduler"}, v), 2.5, 0),
    (lambda v, _: df.sample("digits", 1, 2, threads=v), 1.5, 0),
    (lambda v, _: df.set_num_threads(v), True, 1025),
    (lambda v, _: df.likelihood("digits", v), np.array([["a"]]), np.zeros(3)),
    (lambda v, path: held_out(path, v, LABELS), np.zeros((4, 1, 8, 8), np.uint8), np.zeros((4, 8, 8), np.float32)),
    (lambda v, path: held_out(path, IMAGES, v), np.zeros(4), np.array([0, 1, 2, -1])),
])  # fmt: skip
def test_a_wrong_type_and_a_wrong_value_are_different_errors(tmp_path, call, wrong_type, wrong_value):
    with pytest.raises(ArgumentTypeError):
        call(wrong_type, tmp_path)
    with pytest.raises(ArgumentError):
        call(wrong_value, tmp_path)
