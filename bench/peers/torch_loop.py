"""DDIM as a good engineer writes it in torch: inference mode, tables computed before the loop, the state updated in place.

Under ``torch.compile`` the network alone is compiled, as PyTorch's documentation does; ``freezing`` makes its weights constants,
which allows inductor to lay them out for the convolutions of the CPU.
"""

from __future__ import annotations

import itertools
import os

import numpy as np
import torch

from ..modules import module
from ..networks import CLIP, FOLDER, NETWORKS
from .base import NUM_TRAIN_TIMESTEPS, Job


def make(job: Job, *, compiled: bool = False, freezing: bool = False) -> TorchLoop:
    torch.set_num_threads(job.threads)
    network = module(job.network)
    if compiled:
        import torch._inductor.config as inductor

        inductor.freezing = freezing
        # Compiled code has the number of threads in it.
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(FOLDER / "inductor" / f"{job.threads}")
        torch._dynamo.reset()
        network = torch.compile(network)
    return TorchLoop(job, network)


def timesteps(job: Job) -> list[int]:
    """The grid, falling: the times at which the network is called."""
    if job.spacing == "trailing":
        return [NUM_TRAIN_TIMESTEPS * (job.steps - i) // job.steps - 1 for i in range(job.steps)]
    return [NUM_TRAIN_TIMESTEPS // job.steps * (job.steps - 1 - i) for i in range(job.steps)]


def coefficients(job: Job, rederive: bool = False) -> list[tuple[float, ...]]:
    """For each step p, q, a, b, d: x0 = clip(p·x + q·m), then x' = a·x + b·m + d·x0 (Song et al. 2020, eq. 12)."""
    net = NETWORKS[job.network]
    times = timesteps(job)
    signal = [float(net.schedule.alphas_cumprod[t]) for t in times] + [1.0]
    rows = []
    for now, then in itertools.pairwise(signal):
        alpha, sigma, alpha_next, sigma_next = now**0.5, (1 - now) ** 0.5, then**0.5, (1 - then) ** 0.5
        if net.prediction_type == "v_prediction":
            p, q, noise_x, noise_m = alpha, -sigma, sigma, alpha
        else:
            p, q, noise_x, noise_m = 1 / alpha, -sigma / alpha, 0.0, 1.0
        if rederive:  # ε = (x − alpha·x0)/sigma
            rows.append((p, q, sigma_next / sigma, 0.0, alpha_next - sigma_next * alpha / sigma))
        else:
            rows.append((p, q, sigma_next * noise_x, sigma_next * noise_m, alpha_next))
    return rows


class TorchLoop:
    """A module on the CPU. ``dtype`` float64 makes it the reference that all results are held against."""

    def __init__(self, job: Job, network: torch.nn.Module, *, dtype: torch.dtype = torch.float32, rederive: bool = False):
        net = NETWORKS[job.network]
        self._network, self._dtype, self._shape = network, dtype, (job.batch, *net.shape)
        self._cond = {n: torch.from_numpy(v) for n, v in net.conditioning(job.batch).items()}
        self._cond = {n: v.to(dtype) if v.is_floating_point() else v for n, v in self._cond.items()}
        self._rows = coefficients(job, rederive)
        self._times = [torch.full((job.batch,), t) for t in timesteps(job)]
        self._x0 = torch.empty(self._shape, dtype=dtype)

    @torch.inference_mode()
    def network(self, x: np.ndarray, t: int) -> np.ndarray:
        return self._network(torch.from_numpy(x).to(self._dtype), torch.full((len(x),), t), **self._cond).numpy()

    @torch.inference_mode()
    def sample(self, noise: np.ndarray | None = None) -> np.ndarray:
        x = torch.randn(self._shape) if noise is None else torch.from_numpy(noise).to(self._dtype, copy=True)
        x0 = self._x0
        for t, (p, q, a, b, d) in zip(self._times, self._rows, strict=True):
            m = self._network(x, t, **self._cond)
            torch.mul(x, p, out=x0).add_(m, alpha=q).clamp_(*CLIP)
            if a:
                x.mul_(a).add_(x0, alpha=d)
            else:
                torch.mul(x0, d, out=x)
            if b:
                x.add_(m, alpha=b)
        return x.numpy()
