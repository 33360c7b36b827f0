"""Quantize a model to int8: choose the layers, calibrate the ranges, measure the error, and write them into the artifact."""

from __future__ import annotations

from .quantize import quantize

__all__ = ["quantize"]
