"""What is done to a time before a network that takes whole timesteps is told it."""

from __future__ import annotations

import numpy as np
import pytest

from diffuse_fast.solver.solver import ROUNDINGS


@pytest.mark.parametrize(
    ("rounding", "told"), [("none", [41.9999999, 42.0, 42.5, 43.5]), ("nearest", [42, 42, 42, 44]), ("down", [42, 42, 42, 43])]
)
def test_a_time_within_rounding_of_an_integer_becomes_it(rounding, told):
    times = np.array([41.9999999, 42.0, 42.5, 43.5])
    np.testing.assert_array_equal(ROUNDINGS[rounding](times), told)
