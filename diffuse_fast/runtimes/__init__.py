"""Runtimes: how a network is called. ``network`` picks one and returns it; importing this loads none of them."""

from .base import BoundCall, Network
from .registry import RUNTIMES, Runtime, network, select

__all__ = ["RUNTIMES", "BoundCall", "Network", "Runtime", "network", "select"]
