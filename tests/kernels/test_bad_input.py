"""Invalid arguments of ``df.step`` and the forward process: a typed error names the argument, and nothing is written."""

from __future__ import annotations

import numpy as np
import pytest

from diffuse_fast.errors import ArgumentError, ArgumentTypeError, DiffuseFastError
from diffuse_fast.kernels import forward, step
from diffuse_fast.plans.plan import Reduction, Row

N, ELEMENTS = 2, 6


def array(shape=(N, ELEMENTS), dtype=np.float32):
    return np.zeros(shape, dtype)


def read_only(shape):
    given = array(shape)
    given.flags.writeable = False
    return given


# Not integers from 0 to a bound.
NUMBERS = [-1, 1.5, 0.0, None, "1", b"1", True, np.float32(1), np.nan, [1], (1,), {}, array(), 2**64, 10**400, -(2**63), 1j]

ROW = Row(a=1.0, b=1.0, s=0.5)
KEEPS = Row(a=1.0, c=(0.5,), write=0, e_x=1.0)
STEP = {
    "step": [*NUMBERS, 2**32],
    "element_offset": [*NUMBERS, 2**34, 2**34 - ELEMENTS + 1],
    "seed": [*NUMBERS, [1, 2, 3], [1, 2.5], [1, None], [[1], [2]], "12", np.array(3.0), np.ones((2, 1), int), {1, 2}, iter([1, 2]),
             [1, -1], [0, 2**64]],
    "index": [v for v in NUMBERS if v is not None] + [2**32, 2**32 - 1, [0], [0, 1.0], [0, 2**32], "01", np.zeros(2), {0: 1, 1: 2}],
    "row": [None, 0, "row", {}, (), [ROW], Row],
    "x": [None, 1.0, [[1.0]], "x", *(array(dtype=d) for d in (np.float64, np.int32, np.uint16, np.complex64, object, ">f4")),
          array(()), array((0, 3)), array((3, 0)), array((12, 2)).T, array((4, 6))[::2],
          np.frombuffer(bytes(4 * N * ELEMENTS + 1), np.uint8)[1:].view(np.float32).reshape(N, ELEMENTS)],
    "model_output": [1.0, "m", {}, array((N, 5)), array((1, ELEMENTS)), array(dtype=np.float64), [array(), None],
                     [array(), array(dtype=np.float16)], [array()] * 4, array((12, 2)).T, None, []],
    "out": [1.0, "o", [], array((N, 5)), array(dtype=np.float16), array(dtype=np.float64), read_only((N, ELEMENTS)),
            array((12, 2)).T],
    "mask": [1.0, array((N, 5)), array(dtype=np.float16), array(dtype=bool)],
    "known": [1.0, array((N, 5)), array(dtype=np.float64)],
    "kernel": ["gpu", 5, [], b"scalar", ""],
}  # fmt: skip
STEP["kernel"].remove("")  # the default


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in STEP.items() for value in values])
@pytest.mark.parametrize("plain", [True, False])  # float32 arrays with out take the short path
def test_step_refuses(name, value, plain):
    out = np.full((N, ELEMENTS), 7.0, np.float32)
    call = {"x": array(), "model_output": array(), "row": ROW, **({"out": out} if plain else {}), name: value}
    with pytest.raises(DiffuseFastError) as caught:
        step(call.pop("x"), call.pop("model_output"), call.pop("row"), **call)
    assert {"model_output": "model output"}.get(name, name) in str(caught.value).replace("model_output", "model output")
    np.testing.assert_array_equal(out, 7.0)


@pytest.mark.parametrize("registers", [
    None, 1.0, [], array((1, N, 5)), array((N, ELEMENTS)), array((0, N, ELEMENTS)), array((1, N, ELEMENTS), np.float16),
    array((4, N, ELEMENTS))[::2], read_only((1, N, ELEMENTS)),
])  # fmt: skip
def test_step_refuses_registers(registers):
    with pytest.raises(DiffuseFastError, match="registers"):
        step(array(), array(), KEEPS, registers=registers)


def test_registers_that_are_only_read_may_be_read_only():
    result = step(array(), array(), Row(a=1.0, c=(0.5,)), registers=read_only((1, N, ELEMENTS)))
    np.testing.assert_array_equal(result, 0.0)


@pytest.mark.parametrize("count", [1, 2])
def test_there_must_be_as_many_registers_as_the_row_names(count):
    with pytest.raises(ArgumentError, match=rf"registers has shape \({count}, .* must be float32, \(3, "):
        step(array(), array(), Row(a=1.0, c=(0.0, 0.0, 0.5)), registers=array((count, N, ELEMENTS)))


@pytest.mark.parametrize("variance", [None, 1.0, array((N, 5)), array(dtype=np.float16)])
def test_step_refuses_variance(variance):
    with pytest.raises(DiffuseFastError, match="variance"):
        step(array(), array(), Row(a=1.0, log_s=(0.0, 1.0)), variance=variance)
    with pytest.raises(ArgumentError, match="reads 1 model outputs"):  # without a network there is no variance
        step(array(), None, Row(calls_network=False, a=1.0, log_s=(0.0, 1.0)), variance=array())


FORWARD = {
    "step": [*NUMBERS, 2**32],
    "seed": NUMBERS,
    "index": [v for v in NUMBERS if v is not None] + [2**32, 2**32 - 1, [0], [0, 1.0], "01"],
    "x0": [None, 1.0, [[1.0]], array(dtype=np.float64), array(dtype=np.float16), array(()), array((0, 3)), array((12, 2)).T],
    "alpha": [None, "a", [1.0], [1.0, 2.0, 3.0], np.nan, np.inf, 1e39, 1j, {}, object(), array((N, 1))],
    "sigma": [None, "a", [1.0], np.nan, -np.inf, -1e39],
    "target": [1.0, (), (1.0,), (1.0, 2.0, 3.0), "ab", (None, 1.0), (1.0, "b"), (np.nan, 1.0), {"a": 1}],
    "noise": [1.0, array((N, 5)), array(dtype=np.float64), np.full((N, ELEMENTS), np.nan, np.float32),
              np.full((N, ELEMENTS), -np.inf, np.float32)],
    "out": [1.0, array(), (array(),), (array(), array()), (array((N, 5)), None), (array(dtype=np.float64), None),
            (read_only((N, ELEMENTS)), None), (None, None, None)],
    "kernel": ["gpu", 5, []],
}  # fmt: skip


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in FORWARD.items() for value in values])
def test_forward_refuses(name, value):
    call = {"x0": array(), "alpha": 0.6, "sigma": 0.8, name: value}
    with pytest.raises(DiffuseFastError, match=name):
        forward(call.pop("x0"), call.pop("alpha"), call.pop("sigma"), **call)


# ---- memory that overlaps ---------------------------------------------------------------------------------


def shifted(memory, k, dtype=np.float32):
    """(N, ELEMENTS) from element k on."""
    return memory.view(dtype)[k : k + N * ELEMENTS].reshape(N, ELEMENTS)


MASKED = Row(a=1.0, b=1.0, known_y=0.5)


@pytest.mark.parametrize("offset", [-ELEMENTS, -1, 1, 5, N * ELEMENTS - 1])
@pytest.mark.parametrize("name", ["x", "model_output", "second output", "known", "mask"])
def test_an_overlap_that_is_not_the_same_array_is_refused(name, offset):
    memory = np.zeros(4 * N * ELEMENTS, np.float32)
    out, other = shifted(memory, 20), shifted(memory, 20 + offset)
    given = {"x": array(), "model_output": array(), "second output": array(), "known": array(), "mask": array(), name: other}
    outputs = [given["model_output"], given["second output"]]
    with pytest.raises(ArgumentError, match=f"out overlaps {name.replace('second output', 'model_output')} without being"):
        step(given["x"], outputs, MASKED, known=given["known"], mask=given["mask"], out=out)
    np.testing.assert_array_equal(memory, 0.0)


def test_the_same_memory_in_another_dtype_is_an_overlap():
    memory = np.zeros(N * ELEMENTS, np.float32)
    with pytest.raises(ArgumentError, match="out overlaps model_output"):
        step(array(dtype=np.float16), shifted(memory, 0), ROW, out=shifted(memory, 0, np.float16))


@pytest.mark.parametrize("name", ["x", "model_output", "known", "mask"])
def test_out_may_be_an_array_that_is_read(name):
    rng = np.random.default_rng(1)
    given = {n: rng.random((N, ELEMENTS)).astype(np.float32) for n in ("x", "model_output", "known", "mask")}
    expected = step(given["x"], given["model_output"], MASKED, known=given["known"], mask=given["mask"])
    step(given["x"], given["model_output"], MASKED, known=given["known"], mask=given["mask"], out=given[name])
    np.testing.assert_array_equal(given[name], expected)


@pytest.mark.parametrize("name", ["x", "model_output", "out"])
@pytest.mark.parametrize("offset", [0, 3])
def test_the_register_that_is_written_overlaps_nothing_but_what_is_read_exactly(name, offset):
    bank = np.zeros((3, N, ELEMENTS), np.float32)
    row = Row(a=1.0, b=1.0, c=(0.0, 0.5), write=1, e_m=1.0)
    given = {"x": array(), "model_output": array(), "out": array(), name: shifted(bank.reshape(-1), N * ELEMENTS + offset)}
    if offset == 0 and name != "out":
        given["x"][:] = given["model_output"][:] = 2.0
        np.testing.assert_array_equal(step(**given, row=row, registers=bank)[0, 0], 2.0 + 2.0 + 0.5 * (2.0 if offset == 0 else 0.0))
        return
    with pytest.raises(ArgumentError, match="overlap"):
        step(**given, row=row, registers=bank)


def test_out_over_a_register_that_is_read():
    bank = np.ones((2, N, ELEMENTS), np.float32)
    row = Row(a=1.0, c=(0.5, 0.25))
    np.testing.assert_array_equal(step(array(), array(), row, registers=bank, out=bank[1]), 0.75)
    with pytest.raises(ArgumentError, match="out overlaps register 0 without being register 0"):
        step(array(), array(), row, registers=bank, out=shifted(bank.reshape(-1), 2))


@pytest.mark.parametrize("offset", [-2, 2])
@pytest.mark.parametrize(("read", "written"), [("x0", 0), ("x0", 1), ("noise", 0), ("noise", 1)])
def test_forward_refuses_an_overlap(read, written, offset):
    memory = np.zeros(4 * N * ELEMENTS, np.float32)
    given, out = {"x0": array(), "noise": array(), read: shifted(memory, 20 + offset)}, [array(), array()]
    out[written] = shifted(memory, 20)
    with pytest.raises(ArgumentError, match=rf"out\[{written}\] overlaps {read} without being {read}"):
        forward(given["x0"], 0.6, 0.8, target=(0.0, 1.0), noise=given["noise"], out=tuple(out))


@pytest.mark.parametrize("read", ["x0", "noise"])
@pytest.mark.parametrize("written", [0, 1])
def test_forward_may_write_over_what_it_reads(read, written):
    rng = np.random.default_rng(1)
    given = {n: rng.random((N, ELEMENTS)).astype(np.float32) for n in ("x0", "noise")}
    expected = forward(given["x0"], 0.6, 0.8, target=(-0.8, 0.6), noise=given["noise"])
    out = [array(), array()]
    out[written] = given[read]
    forward(given["x0"], 0.6, 0.8, target=(-0.8, 0.6), noise=given["noise"], out=tuple(out))
    for got, wanted in zip(out, expected, strict=True):
        np.testing.assert_array_equal(got, wanted)


# ---- coefficients -------------------------------------------------------------------------------------------


SCALARS = ("timestep", "p", "q", "r", "a", "b", "d", "s", "known_y", "known_z", "e_x", "e_m", "e_0")


@pytest.mark.parametrize("value", [1e39, -1e39, 3.4028235677973366e38, np.inf, np.nan, 10**400, None, "1", True, 1j, [1.0]])
def test_a_row_has_coefficients_that_float32_holds(value):
    for name in SCALARS:
        with pytest.raises(DiffuseFastError, match=f"a row's {name} is"):
            Row(**{name: value})
    for name in ("g", "c", "f"):
        with pytest.raises(DiffuseFastError, match=f"a row's {name} is"):
            Row(**{name: (0.0, value)})
    for values in ((value, 1.0), (0.5, value)):
        with pytest.raises(DiffuseFastError, match="finite"):
            Reduction("dynamic_threshold", values)
    with pytest.raises(DiffuseFastError, match="log_s"):
        Row(log_s=(0.0, value))
    if not isinstance(value, int | float) or isinstance(value, bool) or value != value:
        with pytest.raises(DiffuseFastError, match=r"a row's hi|clamps"):
            Row(hi=value)


@pytest.mark.parametrize("bounds", [{"lo": 1e39}, {"lo": np.inf}, {"hi": -1e39}, {"hi": -np.inf}, {"lo": 1e39, "hi": 1e40}])
def test_empty_ranges_are_refused(bounds):
    with pytest.raises(DiffuseFastError, match="lo must be below hi"):
        Row(**bounds)


def test_a_bound_beyond_float32_is_infinite():
    x = np.array([[-3e38, 0.0, 3e38]], np.float32)
    np.testing.assert_array_equal(step(x, x, Row(q=1.0, d=1.0, lo=-1e300, hi=1e39)), x)


@pytest.mark.parametrize("fields", [
    {"c": ""}, {"g": ""}, {"f": [1.0]}, {"g": (1.0,) * 4}, {"c": (0.0,) * 9}, {"log_s": ""}, {"log_s": (1.0,)},
    {"calls_network": 1}, {"write": 1.0}, {"write": True}, {"write": -1}, {"reduce": "langevin"},
    {"lo": 1.0, "hi": 1.0}, {"lo": np.nan}, {"lo": "0"},
])  # fmt: skip
def test_a_row_has_fields_of_the_right_types(fields):
    with pytest.raises(DiffuseFastError, match=f"a row's {next(iter(fields))}|clamps"):
        Row(**fields)


@pytest.mark.parametrize(("kind", "values"), [
    ("guidance_rescale", (1e39,)), ("guidance_rescale", (1.0001,)), ("guidance_rescale", (-0.1,)),
    ("dynamic_threshold", (1.1, 2.0)), ("guidance_rescale", ()), ("langevin", (0.1,)), ("langevin", [0.1, 1.0]),
    ("median", (1.0,)), (None, (1.0,)), ([], (1.0,)),
])  # fmt: skip
def test_a_reduction_has_values_of_its_kind(kind, values):
    with pytest.raises(DiffuseFastError, match="reduction"):
        Reduction(kind, values)


def test_errors_are_built_in_types_too():
    with pytest.raises(ArgumentTypeError):
        step(array(), array(), ROW, step=1.5)
    with pytest.raises(ArgumentError):
        step(array(), array(), ROW, step=-1)
