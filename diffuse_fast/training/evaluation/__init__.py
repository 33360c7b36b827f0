"""How good a model's images are: :func:`evaluate` measures them for each solver, number of steps and guidance scale."""

from .image_quality import REAL, Quality, evaluate

__all__ = ["REAL", "Quality", "evaluate"]
