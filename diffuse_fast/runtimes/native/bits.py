"""What determines the bits of a network's results in the core besides its weights: instruction set, precision, algorithms."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from ... import _core
from ...errors import UnavailableError, suggest
from ...model import Model
from ...program.encoding import encode
from ...program.identity import layer_name, program_hash
from ...program.program import VERSION, Program
from .error_cache import measured
from .programs import program_of

ENVIRONMENT = "DIFFUSE_FAST_KERNEL"
_ISAS = ("avx512", "avx2", "neon", "scalar")


def instruction_set() -> str:
    """The instruction set of ``DIFFUSE_FAST_KERNEL`` if it names one, else the best of this machine.

    Raises:
        UnavailableError: it names one that this build does not have, or that this machine cannot run.
    """
    reasons = dict(_core.kernels())  # best first
    forced = _core.environment(ENVIRONMENT)
    if forced in _ISAS:
        if forced not in reasons:
            raise UnavailableError(f"{ENVIRONMENT} is {forced!r}, which this build does not have.{suggest(forced, list(reasons))}")
        if reasons[forced] is not None:
            raise UnavailableError(f"{ENVIRONMENT} is {forced!r} and cannot run: {reasons[forced]}.")
        return forced
    return next(name for name, reason in reasons.items() if reason is None)


def float32_layers(model: Model) -> tuple[str, ...]:
    """The layers that ``float32-fast`` computes as ``float32`` does, as the export of the model or ``doctor`` recorded them."""
    found = measured(model)
    return () if found is None else found.float32_layers


def algorithms(program: Program, precision: str, as_float32: Collection[str] = ()) -> dict[int, str]:
    """The algorithm of each convolution, by index of the operation: ``direct``, ``F(2,3)`` or ``F(4,3)``."""
    words = encode(program)
    exact = dict(_core.network_algorithms(words, "float32"))
    found = _core.network_algorithms(words, precision)
    return {index: exact[index] if layer_name(program, index) in as_float32 else name for index, name in found}


def identity(model: Model, precision: str) -> dict[str, Any]:
    """What determines the bits of a model's results besides its weights, as JSON data.

    ``algorithms`` names the algorithm of each convolution, in the order of the program.
    """
    program = program_of(model)
    return {
        "precision": precision,
        "instruction_set": instruction_set(),
        "program_version": VERSION,
        "program": program_hash(program),
        "algorithms": list(algorithms(program, precision, float32_layers(model)).values()),
    }
