"""The stochastic solvers on a mixture of Gaussians, whose optimal network is known in closed form: the samples have its mode
weights, means and covariances, within the Monte-Carlo error, once there are enough steps.

Not here: LCM, TCD and consistency sampling, which are for distilled networks.
"""

from __future__ import annotations

import numpy as np
import pytest

import diffuse_fast as df

LINEAR = df.Schedule.linear()


class Mixture:
    """Σ w_k·N(mean_k, covariance_k), its modes so far apart that a sample tells which it is from.

    Args:
        weights: (modes,).
        means: (modes, dimensions).
        covariances: (modes, dimensions, dimensions).
    """

    def __init__(self, weights, means, covariances):
        self.weights, self.means, self.covariances = map(np.asarray, (weights, means, covariances))

    def network(self, schedule):
        """E[ε | x_t]: x_t is of mode k with covariance alpha²·covariance_k + sigma²·1."""
        unit = np.eye(self.means.shape[1])

        def predict(x, t):
            t = float(np.ravel(t)[0])
            alpha, sigma = schedule.alpha(t), schedule.sigma(t)
            x = np.asarray(x, np.float64)
            logs, pulls = [], []
            for weight, mean, covariance in zip(self.weights, self.means, self.covariances, strict=True):
                spread = alpha**2 * covariance + sigma**2 * unit
                away = x - alpha * mean
                pull = away @ np.linalg.inv(spread)
                logs.append(np.log(weight) - 0.5 * np.linalg.slogdet(spread)[1] - 0.5 * np.einsum("bi,bi->b", away, pull))
                pulls.append(pull)
            share = np.exp(np.array(logs) - np.max(logs, axis=0))
            share /= share.sum(0)
            return (sigma * np.einsum("kb,kbi->bi", share, np.array(pulls))).astype(np.float32)

        return predict

    def scores(self, samples):
        """How many standard errors the samples' worst weight, mean and covariance are off."""
        samples = np.asarray(samples, np.float64)
        distances = [
            np.einsum("bi,ij,bj->b", samples - m, np.linalg.inv(c), samples - m)
            for m, c in zip(self.means, self.covariances, strict=True)
        ]
        mode, worst = np.argmin(distances, axis=0), [0.0, 0.0, 0.0]
        for k, (weight, mean, covariance) in enumerate(zip(self.weights, self.means, self.covariances, strict=True)):
            own = samples[mode == k]
            variance = np.diag(covariance)
            off = (
                (len(own) / len(samples) - weight) / np.sqrt(weight * (1 - weight) / len(samples)),
                (own.mean(0) - mean) / np.sqrt(variance / len(own)),
                (np.cov(own.T) - covariance) / np.sqrt((np.outer(variance, variance) + covariance**2) / len(own)),
            )
            worst = [max(w, np.abs(o).max()) for w, o in zip(worst, off, strict=True)]
        return worst


PLANE = Mixture(
    weights=[0.2, 0.5, 0.3],
    means=[[-2.0, 1.0], [1.5, 1.5], [0.0, -2.0]],
    covariances=[[[0.06, 0.02], [0.02, 0.03]], [[0.04, -0.02], [-0.02, 0.08]], [[0.1, 0.0], [0.0, 0.02]]],
)
# The corrector's step is 2·(snr·|z|/|score|)², of a sample's own norms, which vary much in two dimensions.
DIMENSIONS = 4
SPACE = Mixture(
    weights=[0.4, 0.6],
    means=[np.full(DIMENSIONS, -1.8), np.full(DIMENSIONS, 1.2)],
    covariances=[0.3 * np.eye(DIMENSIONS), np.diag(np.linspace(0.15, 0.4, DIMENSIONS))],
)
CASES = {
    "ddpm": (PLANE, {}),
    "ddpm-fixed_large": (PLANE, {"variance_type": "fixed_large"}),
    "ddim": (PLANE, {"eta": 1.0}),
    "euler": (PLANE, {"s_churn": 5.0, "s_tmin": 0.05, "s_tmax": 20.0}),  # of first order: more churn needs more steps
    "euler_ancestral": (PLANE, {}),
    "dpm_2": (PLANE, {"eta": 1.0}),
    "dpmpp_2m_sde": (PLANE, {}),
    "dpmpp_3m_sde": (PLANE, {}),
    "euler_maruyama": (PLANE, {}),
    "heun": (PLANE, {"s_churn": 20.0, "s_tmin": 0.05, "s_tmax": 20.0}),
    "langevin_pc": (SPACE, {}),
}
SECOND_ORDER = ("dpm_2", "dpmpp_2m_sde", "dpmpp_3m_sde", "heun")


def draw(case, steps, count):
    mixture, options = CASES[case]
    if case == "langevin_pc":  # the error of the corrector does not fall with the steps, but with the snr
        options = {"snr": 0.5 / steps}
    times = LINEAR.timestep_at_log_snr(np.linspace(LINEAR.log_snr(999), LINEAR.log_snr(0), steps))
    return df.sample(
        mixture.network(LINEAR),
        count,
        solver=case.partition("-")[0],
        seed=3,
        shape=mixture.means.shape[1:],
        schedule=LINEAR,
        prediction_type="epsilon",
        timesteps=times,
        clip=False,
        **options,
    )


@pytest.mark.parametrize("case", CASES)
def test_samples_of_a_mixture(case):
    mixture, _ = CASES[case]
    assert max(mixture.scores(draw(case, 60 if case in SECOND_ORDER else 200, 10_000))) < 5.0


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_samples_of_a_mixture_as_the_steps_grow(case):
    mixture, _ = CASES[case]
    enough = 200 if case in SECOND_ORDER else 1000 if case == "langevin_pc" else 500
    fewer, more = (mixture.scores(draw(case, steps, 100_000)) for steps in (20, enough))
    assert max(more) < 4.5, more
    assert max(more) < max(fewer), (fewer, more)
