"""The network in the compiled core: the ONNX graph lowered to a program of fused operations. Needs no other package."""

from .bits import algorithms, float32_layers, identity, instruction_set
from .loading import constants_of, exact_operations, load
from .programs import program_of, unsuitable
from .runtime import NativeCall, NativeNetwork, network

__all__ = [
    "NativeCall",
    "NativeNetwork",
    "algorithms",
    "constants_of",
    "exact_operations",
    "float32_layers",
    "identity",
    "instruction_set",
    "load",
    "network",
    "program_of",
    "unsuitable",
]
