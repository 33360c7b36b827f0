"""The likelihood of data under a model, from the evidence lower bound or the probability-flow ODE."""

from .likelihood import Likelihood, likelihood

__all__ = ["Likelihood", "likelihood"]
