"""What the network's output says about the data and the noise, as weights of the state and the output.

With ``x = alpha·x0 + sigma·ε`` every prediction type is linear in the state x and the output m:

============  ============================  ============================  ==============================
predicts      x0                            ε                             where
============  ============================  ============================  ==============================
epsilon       (x − sigma·m)/alpha           m
sample        m                             (x − alpha·m)/sigma
denoised      as sample: EDM's D(x; sigma)  as sample
v_prediction  alpha·x − sigma·m             sigma·x + alpha·m             alpha² + sigma² = 1
flow          (x − sigma·m)/(alpha+sigma)   (x + alpha·m)/(alpha+sigma)   m = ε − x0
============  ============================  ============================  ==============================

(v is alpha·ε − sigma·x0: Salimans & Ho 2022, "Progressive Distillation", section 4. The flow's velocity: Lipman et al. 2023.)
"""

from __future__ import annotations

# What a network can predict on a discrete variance-preserving schedule.
VP_PREDICTION_TYPES = ("epsilon", "sample", "v_prediction")


def data_prediction(prediction_type: str, alpha: float, sigma: float) -> tuple[float, float]:
    """``(p, q)`` with x0 = p·x + q·m. For epsilon, alpha must not be 0."""
    if prediction_type == "epsilon":
        return 1.0 / alpha, -sigma / alpha
    if prediction_type in ("sample", "denoised"):
        return 0.0, 1.0
    if prediction_type == "flow":
        return 1.0 / (alpha + sigma), -sigma / (alpha + sigma)
    return alpha, -sigma


def noise_prediction(prediction_type: str, alpha: float, sigma: float) -> tuple[float, float]:
    """``(p, q)`` with ε = p·x + q·m. For sample and denoised, sigma must not be 0."""
    if prediction_type == "epsilon":
        return 0.0, 1.0
    if prediction_type in ("sample", "denoised"):
        return 1.0 / sigma, -alpha / sigma
    if prediction_type == "flow":
        return 1.0 / (alpha + sigma), alpha / (alpha + sigma)
    return sigma, alpha
