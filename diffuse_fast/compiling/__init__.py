"""Compile a model and a plan into one file, for the library without Python."""

from .write_compiled import compile_model

__all__ = ["compile_model"]
