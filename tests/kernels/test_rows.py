"""The record of a row: its layout comes from C++, and everything in Python is derived from it."""

import dataclasses

import numpy as np
import pytest

from diffuse_fast import _core
from diffuse_fast.kernels.rows import ROW, pack
from diffuse_fast.kernels.triton_variant import ROW_WORDS, WORD
from diffuse_fast.plans.plan import MAX_OUTPUTS, MAX_REGISTERS, REDUCTIONS, Reduction, Row


def test_the_dtype_is_that_of_the_core():
    assert ROW is _core.ROW


def test_the_fields_cover_the_record_without_gaps():
    """A member of the C++ struct that is missing in the exported dtype would leave a gap."""
    at = 0
    for name in ROW.names:
        assert ROW.fields[name][1] == at, name
        at += ROW[name].itemsize
    assert at == ROW.itemsize


def test_every_member_has_four_bytes():
    assert {ROW[name].base for name in ROW.names} == {np.dtype("<f4"), np.dtype("<i4")}
    assert WORD["p"] == MAX_OUTPUTS and ROW.itemsize == 4 * ROW_WORDS


def test_weights_have_the_lengths_of_a_plan():
    assert (ROW["g"].shape, ROW["c"].shape, ROW["f"].shape) == ((MAX_OUTPUTS,), (MAX_REGISTERS,), (MAX_REGISTERS,))


def test_every_field_of_a_row_is_in_the_record():
    """Only the time, which is the network's, is not; log_s and reduce have fields of their own."""
    split = {"log_s": {"log_s_a", "log_s_b", "learned_s"}, "reduce": {"reduce", "reduce_0", "reduce_1"}}
    fields = {field.name for field in dataclasses.fields(Row)} - {"timestep"}
    assert set(ROW.names) == (fields - set(split)) | set.union(*split.values())


def test_a_row_is_packed_field_by_field():
    scalars = {
        name: float(n) for n, name in enumerate(("p", "q", "r", "hi", "a", "b", "d", "known_y", "known_z", "e_x", "e_m", "e_0"), 1)
    }
    weights = {"g": (0.5, 0.25), "c": (0.0, 20.0), "f": (21.0,)}
    row = Row(**scalars, **weights, lo=-4.0, log_s=(22.0, 23.0), write=2, reduce=Reduction("langevin_given", (0.5, -2.0)))
    (record,) = pack([row])
    for name in (*scalars, "lo", "s", "write"):
        assert record[name] == getattr(row, name), name
    for name, values in weights.items():
        assert record[name].tolist() == [*values, *[0.0] * (len(record[name]) - len(values))], name
    assert record[["log_s_a", "log_s_b", "learned_s"]].tolist() == (22.0, 23.0, 1)
    assert record[["reduce", "reduce_0", "reduce_1"]].tolist() == (4, 0.5, -2.0)
    assert record["calls_network"] == 1


@pytest.mark.parametrize(("code", "kind"), list(enumerate(REDUCTIONS, start=1)))
def test_the_code_of_a_reduction_is_its_place(code, kind):
    table = pack([Row(c=(1.0,), reduce=Reduction(kind, (0.5, 1.0)[: REDUCTIONS[kind]]))])
    assert table["reduce"][0] == code
    assert _core.cuda_variant(table, False) == ("general", True)
