"""The compile-time constants of a Triton step: which terms occur in a table of rows, and the shapes. NumPy only.

A kernel is compiled for the *union* of a table's rows: a term that no row has costs nothing, a term that every row has needs
no test, and only a term that some rows have is tested when the row runs.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from ..errors import ArgumentError
from ..plans.plan import MAX_OUTPUTS, MAX_REGISTERS
from .rows import REDUCE_CODES, ROW

# Offset of each field in a row, in 32-bit words.
WORD = {name: spec[1] // 4 for name, spec in (ROW.fields or {}).items()}
ROW_WORDS = ROW.itemsize // 4

# The terms of a row, as bits of `Variant.some` and `Variant.every`.
TERMS = ("g0", "g1", "g2", "p", "q", "a", "b", "d", "s", "learned_s", "known_y", "known_z", "write", "e_x", "e_m", "e_0",
         "x", "m", "noise", "prediction", "next", "known", "kept", "clamp", "r")  # fmt: skip
BIT = {name: 1 << number for number, name in enumerate(TERMS)}


@dataclass(frozen=True, slots=True)
class Variant:
    """The constants of a compiled kernel, and so of a captured launch.

    Attributes:
        some, every: Bits of the terms that at least one row has, and that all rows have (``TERMS``).
        history_some, history_every, keep_some, keep_every: The same for the registers read, one bit per register.
        reductions: Bits of the reductions that occur: 1 << code.
        state, output: Names of the dtypes of the state and of the network's output.
        masked: Whether there is a known region.
        samples, elements, output_stride, variance_offset, element_offset: As in ``bind``.
    """

    some: int
    every: int
    history_some: int
    history_every: int
    keep_some: int
    keep_every: int
    reductions: int
    state: str
    output: str
    masked: bool
    samples: int
    elements: int
    output_stride: int
    variance_offset: int
    element_offset: int

    def terms(self) -> dict[str, int]:
        """The constants by the names of the device code's parameters."""
        return {f.name.upper(): getattr(self, f.name) for f in fields(self)[:6]}


def canonicalize(table: np.ndarray) -> np.ndarray:
    """A copy in which a coefficient is nonzero exactly if the row has the term, by the rules of ``prepare_row()`` in
    ``csrc/step/step.h``. The device code then only tests whether a coefficient is 0."""
    table = table.copy()
    table["g"][table["calls_network"] == 0] = 0.0
    silent = table["write"] < 0
    for name in ("e_x", "e_m", "e_0", "f"):
        table[name][silent] = 0.0
    table["write"][silent] = -1
    unused = (table["d"] == 0.0) & (table["e_0"] == 0.0)
    for name, value in (("p", 0.0), ("q", 0.0), ("r", 1.0), ("lo", -np.inf), ("hi", np.inf)):
        table[name][unused] = value
    table["s"][table["learned_s"] != 0] = 0.0
    return table


def terms_of(table: np.ndarray, masked: bool) -> dict[str, np.ndarray]:
    """For each term, which rows of a canonical table have it: bool, one per row. ``c`` and ``f`` have an axis of registers."""
    has = {
        name: table[name] != 0
        for name in ("p", "q", "a", "b", "d", "s", "learned_s", "known_y", "known_z", "e_x", "e_m", "e_0", "c", "f")
    }
    has |= {f"g{j}": table["g"][:, j] != 0 for j in range(MAX_OUTPUTS)}
    if not masked:
        has["known_y"] = has["known_z"] = np.zeros(len(table), bool)
    has["write"] = table["write"] >= 0
    has["x"] = has["a"] | has["p"] | has["e_x"]
    has["m"] = has["g0"] | has["g1"] | has["g2"]
    has["noise"] = has["s"] | has["learned_s"]
    has["prediction"] = has["p"] | has["q"]
    has["next"] = has["a"] | has["b"] | has["d"] | has["c"].any(axis=1) | has["noise"]
    has["known"] = has["known_y"] | has["known_z"]
    has["kept"] = has["e_x"] | has["e_m"] | has["e_0"] | has["f"].any(axis=1)
    has["clamp"] = (table["lo"] > -np.inf) | (table["hi"] < np.inf)
    has["r"] = table["r"] != 1.0
    return has


def variant_of(
    table: np.ndarray,
    *,
    state: str,
    output: str,
    masked: bool,
    samples: int,
    elements: int,
    output_stride: int,
    variance_offset: int,
    element_offset: int,
) -> Variant:
    """The variant of a canonical table on buffers of these dtypes and sizes."""
    has = terms_of(table, masked)
    some = {name: bool(has[name].any()) for name in TERMS}
    every = {name: bool(has[name].all()) for name in TERMS}
    kinds = set(table["reduce"].tolist()) - {0}
    if REDUCE_CODES["dynamic_threshold"] in kinds:
        some["clamp"] = some["r"] = True
    if REDUCE_CODES["langevin"] in kinds:  # it sets b and s, perhaps to 0
        some["b"] = some["s"] = some["noise"] = some["next"] = True
        every["b"] = every["s"] = every["noise"] = False
    history_every = has["c"].all(axis=0)
    if REDUCE_CODES["langevin_given"] in kinds:  # it sets b and the weight of a register, perhaps to 0
        some["b"] = some["next"] = True
        every["b"] = every["next"] = False
        history_every &= False
    return Variant(
        _bits(some.values()),
        _bits(every.values()),
        _bits(has["c"].any(axis=0)),
        _bits(history_every),
        _bits(has["f"].any(axis=0)),
        _bits(has["f"].all(axis=0)),
        sum(1 << code for code in kinds),
        state,
        output,
        masked,
        samples,
        elements,
        output_stride,
        variance_offset,
        element_offset,
    )


def check(table: np.ndarray, *, outputs: int, registers: int, variance: bool, masked: bool, known: bool) -> None:
    """Check that no row of a canonical table needs a missing tensor. After this no row can access memory outside the run's buffers.

    Args:
        outputs, registers: Their numbers.
        variance, masked, known: Whether there is a variance channel, a mask, and the values of the known region.

    Raises:
        ArgumentError: a tensor is missing, or a reduction's value is out of range; the message names the row.
    """
    has = terms_of(table, masked)
    compares = table["reduce"] == REDUCE_CODES["guidance_rescale"]
    needs = [(has[f"g{j}"] | (compares if j == 0 else False), f"network output {j}") for j in range(outputs, MAX_OUTPUTS)]
    needs.append(((table["reduce"] == REDUCE_CODES["langevin_given"]) & ~has["c"].any(axis=1), "a register with the noise"))
    if not variance:
        needs.append((has["learned_s"], "the network's variance channel"))
    if not known:
        needs.append((has["known_y"], "the known region"))
    needs += [(has["c"][:, k] | has["f"][:, k] | (table["write"] == k), f"register {k}") for k in range(registers, MAX_REGISTERS)]
    needs.append((table["write"] >= MAX_REGISTERS, f"a register above {MAX_REGISTERS - 1}"))
    for rows, what in needs:
        if rows.any():
            raise _misfit(f"row {int(rows.argmax())} needs {what}, which is missing")
    first = table["reduce_0"]
    fractions = {"dynamic_threshold": "a dynamic threshold at the quantile", "guidance_rescale": "a guidance rescale with phi"}
    for kind, name in fractions.items():
        wrong = (table["reduce"] == REDUCE_CODES[kind]) & ~((first >= 0.0) & (first <= 1.0))
        if wrong.any():
            at = int(wrong.argmax())
            raise _misfit(f"row {at} has {name} {first[at]:g}; it must be from 0 to 1")


def _misfit(reason: str) -> ArgumentError:
    return ArgumentError(f"the rows do not fit the buffers: {reason}.")


def _bits(flags) -> int:
    return sum(1 << number for number, flag in enumerate(flags) if flag)
