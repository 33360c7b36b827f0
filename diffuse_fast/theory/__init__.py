"""The equations of diffusion models as functions: NumPy, float64, no torch. What they say, a test holds against its theorem.

``docs/theory/`` tells the theory and names the function of every equation. Everywhere x0 is data (batch, ...), a time is in the
schedule's own unit and one number or one per sample (batch,), and ``s=None`` is the data itself, before any noise: DDPM's x_0,
where ``t=0`` of a discrete schedule is its x_1.

==========================  =====================================================================================
:class:`Gaussian`           a normal distribution with independent elements
:func:`kl`                  the KL divergence of two of them
:func:`transition`          q(x_t | x_s)
:func:`marginal`            q(x_t | x_0)
:func:`posterior`           q(x_s | x_t, x_0)
:func:`snr`                 signal to noise
:func:`reverse`             p(x_s | x_t), from what a network says
:func:`prior_term`          L_T of the ELBO
:func:`diffusion_term`      L_{t−1}
:func:`decoder_term`        L_0, of discretised or of continuous data
:func:`simple_loss_weight`  what L_{t−1} is of the simple loss
:func:`elbo`                all of them, summed
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
