"""What identifies a program, and the names of its layers."""

from __future__ import annotations

import hashlib

from .encoding import encode
from .program import Program


def program_hash(program: Program) -> str:
    """The SHA-256 of a program in hex: its words and folded constants. Weights do not count, so fine-tuning does not change it."""
    digest = hashlib.sha256(encode(program).astype("<i8").tobytes())
    for buffer in program.buffers:
        if buffer.values is not None:
            digest.update(buffer.values.astype("<f4").tobytes())
    return digest.hexdigest()


def layer_name(program: Program, operation: int) -> str:
    """The name of a convolution or linear: that of its weight, or of its ONNX nodes if the weight is computed."""
    op = program.operations[operation]
    return program.buffers[op.inputs[1].buffer].initializer or op.source
