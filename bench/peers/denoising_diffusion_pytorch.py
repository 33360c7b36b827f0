"""denoising-diffusion-pytorch: its ``GaussianDiffusion.ddim_sample`` around our network.

Its loop takes ε from the clipped x0, so its result is held against a reference that does so too.
"""

from __future__ import annotations

import sys
from types import ModuleType
from unittest import mock

import numpy as np
import torch

from ..modules import module
from ..networks import NETWORKS
from .base import NUM_TRAIN_TIMESTEPS, Job

OBJECTIVES = {"epsilon": "pred_noise", "v_prediction": "pred_v"}


def make(job: Job) -> Wrapped:
    torch.set_num_threads(job.threads)
    return Wrapped(job)


def library():
    """``GaussianDiffusion``."""
    try:
        import torchvision  # noqa: F401  (asked first: a build for another torch fails in the middle of its import)
    except Exception:
        # Its trainer loads pictures with torchvision; its sampler does not need it.
        for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        stand_in = ModuleType("torchvision")
        stand_in.transforms = stand_in.utils = ModuleType("torchvision.nothing")
        sys.modules["torchvision"] = stand_in
    from denoising_diffusion_pytorch.denoising_diffusion_pytorch import GaussianDiffusion

    return GaussianDiffusion


class Network(torch.nn.Module):
    """Our network, with what the library reads of its own."""

    self_condition = False

    def __init__(self, job: Job):
        super().__init__()
        net = NETWORKS[job.network]
        self.inner = module(job.network)
        self.channels = self.out_dim = net.shape[0]
        self.cond = {n: torch.from_numpy(v) for n, v in net.conditioning(job.batch).items()}

    def forward(self, x, t, x_self_cond=None):
        return self.inner(x, t, **self.cond)


class Wrapped:
    def __init__(self, job: Job):
        net = NETWORKS[job.network]
        diffusion = library()
        self._shape, self._network = (job.batch, *net.shape), Network(job)
        betas = torch.tensor(net.schedule.betas, dtype=torch.float64)
        globals_of = sys.modules[diffusion.__module__]
        # It makes its schedule by name; the network's own takes that place. Its progress bar is left out of the time.
        with mock.patch.object(globals_of, "linear_beta_schedule", lambda timesteps: betas):
            self._diffusion = diffusion(
                self._network,
                image_size=net.shape[1:],
                timesteps=NUM_TRAIN_TIMESTEPS,
                sampling_timesteps=job.steps,
                objective=OBJECTIVES[net.prediction_type],
                beta_schedule="linear",
                auto_normalize=False,
            )
        globals_of.tqdm = lambda pairs, **_: pairs

    @torch.inference_mode()
    def network(self, x: np.ndarray, t: int) -> np.ndarray:
        return self._network(torch.from_numpy(x), torch.full((len(x),), t)).numpy()

    @torch.inference_mode()
    def sample(self, noise: np.ndarray | None = None) -> np.ndarray:
        if noise is None:
            return self._diffusion.ddim_sample(self._shape).numpy()
        with mock.patch.object(torch, "randn", lambda *_, **__: torch.from_numpy(noise)):
            return self._diffusion.ddim_sample(self._shape).numpy()
