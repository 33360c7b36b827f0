"""How each ONNX operator becomes operations over views: one file per family.

A handler reads every attribute and every input of its node, or refuses the node. It adds at most a few operations; :mod:`..fuse`
makes them one.
"""

from . import attention, condition, convolution, elementwise, gather, norm, pad, pool, product, reduce, resize, shape
from .registry import HANDLERS

__all__ = [
    "HANDLERS",
    "attention",
    "condition",
    "convolution",
    "elementwise",
    "gather",
    "norm",
    "pad",
    "pool",
    "product",
    "reduce",
    "resize",
    "shape",
]
