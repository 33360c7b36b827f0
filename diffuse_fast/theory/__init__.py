"""The equations of diffusion models as functions: NumPy, float64, no torch. Tests check each against its theorem.

``docs/theory/`` explains the theory and names the function of every equation. x0 is data (batch, ...). Times are in the unit of the
schedule, one number or one per sample (batch,). ``s=None`` is the data without noise, DDPM's x_0; ``t=0`` of a discrete schedule is
DDPM's x_1.

==========================  =====================================================================================
:class:`Gaussian`           a normal distribution with independent elements
:func:`kl`                  the KL divergence of two of them
:func:`transition`          q(x_t | x_s)
:func:`marginal`            q(x_t | x_0)
:func:`posterior`           q(x_s | x_t, x_0)
:func:`snr`                 signal to noise
:func:`reverse`             p(x_s | x_t), from a network's output
:func:`prior_term`          L_T of the ELBO
:func:`diffusion_term`      L_{t−1}
:func:`decoder_term`        L_0, of discretised or of continuous data
:func:`simple_loss_weight`  the weight of the simple loss in L_{t−1}
:func:`elbo`                the sum of these terms
:func:`probability_flow`    the velocity of the probability-flow ODE
:func:`score`               ∇ log q(x_t | x_0)
==========================  =====================================================================================

:func:`diffuse_fast.convert_prediction` converts between ε, x0, v, score and velocity.
"""

from .bound import Bound, decoder_term, diffusion_term, elbo, prior_term, simple_loss_weight
from .flow import probability_flow
from .forward import marginal, posterior, score, snr, transition
from .gaussian import Gaussian, kl
from .reverse import REVERSE_VARIANCES, reverse

__all__ = [
    "REVERSE_VARIANCES", "Bound", "Gaussian", "decoder_term", "diffusion_term", "elbo", "kl", "marginal", "posterior",
    "prior_term", "probability_flow", "reverse", "score", "simple_loss_weight", "snr", "transition",
]  # fmt: skip
