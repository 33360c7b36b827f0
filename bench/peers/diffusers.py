"""diffusers: its DDIMScheduler around the module, in the loop of its DDIMPipeline.

``channels_last`` and bfloat16 weights are what its documentation offers for speed on a CPU.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from diffusers import DDIMScheduler

from ..modules import module
from ..networks import NETWORKS
from .base import NUM_TRAIN_TIMESTEPS, Job


def make(job: Job, *, channels_last: bool = False, bf16: bool = False) -> Scheduled:
    torch.set_num_threads(job.threads)
    network = module(job.network)
    dtype = torch.bfloat16 if bf16 else torch.float32
    network = network.to(dtype)
    if channels_last:
        network = network.to(memory_format=torch.channels_last)
    cond = {n: torch.from_numpy(v) for n, v in NETWORKS[job.network].conditioning(job.batch).items()}
    cond = {n: v.to(dtype) if v.is_floating_point() else v for n, v in cond.items()}
    return Scheduled(job, lambda x, t: network(x, t, **cond), dtype, channels_last)


class Scheduled:
    """A network, as a function of tensors, driven by diffusers' scheduler."""

    def __init__(
        self, job: Job, call: Callable[[torch.Tensor, torch.Tensor], torch.Tensor], dtype=torch.float32, channels_last: bool = False
    ):
        net = NETWORKS[job.network]
        self._call, self._steps, self._dtype = call, job.steps, dtype
        self._shape = (job.batch, *net.shape)
        self._layout = torch.channels_last if channels_last else torch.contiguous_format
        self._scheduler = DDIMScheduler(
            NUM_TRAIN_TIMESTEPS,
            trained_betas=np.asarray(net.schedule.betas),
            prediction_type=net.prediction_type,
            timestep_spacing=job.spacing,
        )

    @classmethod
    def of_arrays(cls, job: Job, call: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> Scheduled:
        """A network that is a function of arrays."""
        return cls(job, lambda x, t: torch.from_numpy(call(x.numpy(), t.contiguous().numpy())))

    @torch.no_grad()
    def network(self, x: np.ndarray, t: int) -> np.ndarray:
        state = torch.from_numpy(x).to(self._dtype, memory_format=self._layout)
        return self._call(state, torch.full((len(x),), t)).float().numpy()

    @torch.no_grad()
    def sample(self, noise: np.ndarray | None = None) -> np.ndarray:
        x = torch.randn(self._shape) if noise is None else torch.from_numpy(noise)
        x = x.to(self._dtype, memory_format=self._layout)
        self._scheduler.set_timesteps(self._steps)
        for t in self._scheduler.timesteps:
            x = self._scheduler.step(self._call(x, t.expand(len(x))), t, x).prev_sample
        return x.float().numpy()
