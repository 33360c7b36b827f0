"""Conversions between what networks predict: the data, the noise, and combinations of them.

With the state x = alpha·x0 + sigma·ε, every prediction type is a combination m = u·x0 + w·ε. The two equations determine x0 and ε:

============  ==================================  ====================================================================
predicts      m                                   where
============  ==================================  ====================================================================
epsilon       ε                                   Ho et al. 2020
sample        x0
denoised      x0                                  EDM's D(x; σ)
v_prediction  sigma_data·alpha·ε −                v = alpha·ε − sigma·x0 (Salimans & Ho 2022, section 4), of data scaled
              sigma/sigma_data·x0                 to unit variance: sigma_data is 1 except in EDM
flow          ε − x0                              the velocity of a straight path (Liu et al. 2022)
score         −ε/sigma                            ∇ log p(x) of the state (Song et al. 2021)
edm           −v                                  EDM's raw network F: D = c_skip·x + c_out·F (Karras et al. 2022, eq. 7)
============  ==================================  ====================================================================

EDM's F is −v because c_skip/c_in = sigma_data²·c_in and c_out = sigma_data·sigma: with alpha = c_in and sigma = c_in·σ,
D = sigma_data²·alpha·(c_in·x) + sigma_data·sigma·F. What diffusers' EDM schedulers call "epsilon" is this F, and what they
call "v_prediction" is v.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from ..checks import require_positive, to_float64
from ..errors import ArgumentError, ArgumentTypeError, suggest
from ..plans.plan import PREDICTION_TYPES

DATA, NOISE = (1.0, 0.0), (0.0, 1.0)


def data_prediction(prediction_type: str, alpha: float, sigma: float, sigma_data: float = 1.0) -> tuple[float, float]:
    """``(p, q)`` with x0 = p·x + q·m. For epsilon and score, alpha must not be 0."""
    return _between(target_weights(prediction_type, alpha, sigma, sigma_data), DATA, alpha, sigma)


def noise_prediction(prediction_type: str, alpha: float, sigma: float, sigma_data: float = 1.0) -> tuple[float, float]:
    """``(p, q)`` with ε = p·x + q·m. For sample and denoised, sigma must not be 0."""
    return _between(target_weights(prediction_type, alpha, sigma, sigma_data), NOISE, alpha, sigma)


def convert_prediction(model_output: Any, x: Any, *, from_: str, to: str, alpha: Any, sigma: Any, sigma_data: float = 1.0) -> Any:
    """Convert a network's output to another prediction type.

    Args:
        model_output: (batch, ...) floating, a NumPy array or a torch tensor.
        x: The state ``alpha·x0 + sigma·ε`` that the network was called with, of the same kind and shape.
        from_, to: ``epsilon``, ``sample``, ``denoised``, ``v_prediction``, ``flow``, ``score`` or ``edm``; defined in
            the table of ``solver/prediction.py``.
        alpha, sigma: Marginal of the state (``schedule.alpha(t)``, ``schedule.sigma(t)``): numbers, or one per sample (batch,).
        sigma_data: ``schedule.sigma_data``: only ``v_prediction`` and ``edm`` depend on it.

    Returns:
        The kind, dtype and shape of ``model_output``. The weights are computed in float64.

    Raises:
        ArgumentError: an unknown type, mismatched shapes, or a conversion that does not exist at this marginal: x0 from ε without
            data (alpha 0), ε or the score from x0 without noise (sigma 0).
        ArgumentTypeError: arrays of different kinds, or not floating-point.

    Example:
        >>> import numpy as np, diffuse_fast as df
        >>> schedule, x0, noise = df.Schedule.cosine(), np.array([[0.5, -1.0]]), np.array([[1.0, 2.0]])
        >>> alpha, sigma = schedule.alpha(400), schedule.sigma(400)
        >>> found = df.convert_prediction(noise, alpha * x0 + sigma * noise, from_="epsilon", to="sample", alpha=alpha, sigma=sigma)
        >>> found.round(12)
        array([[ 0.5, -1. ]])
    """
    for name, value in (("from_", from_), ("to", to)):
        if value not in PREDICTION_TYPES:
            raise ArgumentError(f"{name} is {value!r}, an unknown prediction type.{suggest(str(value), PREDICTION_TYPES)}")
    _check_arrays(model_output, x)
    alphas, sigmas = (_per_sample(name, v, model_output.shape) for name, v in (("alpha", alpha), ("sigma", sigma)))
    unit = require_positive("sigma_data", sigma_data)
    with np.errstate(divide="ignore", invalid="ignore"):
        parts, target = (target_weights(name, alphas, sigmas, unit) for name in (from_, to))
        weights = [np.asarray(v, np.float64) for v in _between(parts, target, alphas, sigmas)]
    if not all(np.isfinite(v).all() for v in weights):
        raise ArgumentError(
            f"{to} cannot be computed from {from_} at alpha {alpha!r} and sigma {sigma!r}: if alpha or sigma is 0, the "
            f"state carries no information about the data or the noise."
        )
    if isinstance(model_output, np.ndarray):
        p, q = (v.astype(model_output.dtype) for v in weights)
    else:
        p, q = (sys.modules["torch"].as_tensor(v).to(model_output) for v in weights)
    # A term of weight 0 is left out, because 0·NaN is NaN and −0 + 0 is 0.
    return p * x + q * model_output if weights[0].any() else q * model_output


def target_weights(prediction_type: str, alpha: Any, sigma: Any, sigma_data: float) -> tuple[Any, Any]:
    """``(u, w)`` with m = u·x0 + w·ε; numbers, arrays or tensors, as alpha and sigma are."""
    if prediction_type == "epsilon":
        return NOISE
    if prediction_type in ("sample", "denoised"):
        return DATA
    if prediction_type == "v_prediction":
        return -sigma / sigma_data, sigma_data * alpha
    if prediction_type == "flow":
        return -1.0, 1.0
    if prediction_type == "score":
        return 0.0, -1.0 / sigma
    return sigma / sigma_data, -sigma_data * alpha


def _between(parts: tuple[Any, Any], target: tuple[Any, Any], alpha: Any, sigma: Any) -> tuple[Any, Any]:
    """``(p, q)`` with target = p·x + q·m, by Cramer's rule from x = alpha·x0 + sigma·ε and m = u·x0 + w·ε."""
    (u, w), (u_target, w_target) = parts, target
    if parts is target:
        return 0.0 * alpha, 0.0 * alpha + 1.0
    determinant = alpha * w - sigma * u
    return (u_target * w - w_target * u) / determinant + 0.0, (alpha * w_target - sigma * u_target) / determinant


def _check_arrays(model_output: Any, x: Any) -> None:
    for name, value in (("model_output", model_output), ("x", x)):
        torch = sys.modules.get("torch") if type(value).__module__.partition(".")[0] == "torch" else None
        floating = value.is_floating_point() if torch else isinstance(value, np.ndarray) and value.dtype.kind == "f"
        if not floating:
            raise ArgumentTypeError(
                f"{name} is a {type(value).__name__} of {getattr(value, 'dtype', 'no dtype')}; it must be a floating-point "
                f"NumPy array or torch tensor."
            )
    if isinstance(model_output, np.ndarray) != isinstance(x, np.ndarray):
        raise ArgumentTypeError("model_output and x must both be NumPy arrays or both torch tensors.")
    if model_output.shape != x.shape:
        raise ArgumentError(f"model_output has shape {tuple(model_output.shape)} and x {tuple(x.shape)}; they must be equal.")


def _per_sample(name: str, value: Any, shape: tuple[int, ...]) -> np.ndarray:
    """A number, or one per sample, as a float64 array that broadcasts over the samples."""
    level = to_float64(name, value)
    if level.ndim > 1 or (level.ndim == 1 and level.shape != tuple(shape[:1])):
        raise ArgumentError(f"{name} has shape {level.shape}; it must be a number, or one per sample of {tuple(shape)}.")
    if not (np.isfinite(level).all() and (level >= 0.0).all()):
        raise ArgumentError(f"{name} is {value!r}; it must be finite, and not negative.")
    return level.reshape(level.shape + (1,) * (len(shape) - 1)) if level.ndim else level
