"""How likely data is under a model: by the evidence lower bound, and by the probability-flow ODE."""

from .likelihood import Likelihood, likelihood

__all__ = ["Likelihood", "likelihood"]
