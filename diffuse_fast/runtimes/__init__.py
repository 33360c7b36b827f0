"""Runtimes: the ways to call a network. :func:`network` selects one. Importing this package loads none of them."""

from .base import BoundCall, Network
from .registry import RUNTIMES, Runtime, network, select

__all__ = ["RUNTIMES", "BoundCall", "Network", "Runtime", "network", "select"]
