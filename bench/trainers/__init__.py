"""The trainers that are timed: one file each, with ``train(run)``, which calls ``run.done()`` after every step.

All do the same: the digits UNet without classes, v-prediction on the cosine schedule, batches drawn without replacement, AdamW (or
the Adam that a library's trainer has), warm-up and half a cosine, the gradient clipped to norm 1, a moving average at every step.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

import diffuse_fast as df
from diffuse_fast.training import TrainConfig
from diffuse_fast.training.data import digits

from ..digits_recipe import CONFIG, NETWORK, SCHEDULE

# File of each trainer, by its name in tables.
TRAINERS = {"diffuse_fast": "diffuse_fast", "diffusers": "diffusers", "denoising-diffusion-pytorch": "denoising_diffusion_pytorch"}


@dataclass(frozen=True)
class Run:
    """What to train.

    Attributes:
        network: To be trained in place.
        data: (N, C, H, W) float32.
        schedule, config: Of the digits recipe.
        done: Called without arguments after every step.
    """

    network: nn.Module
    data: torch.Tensor
    schedule: df.Schedule
    config: TrainConfig
    done: Callable[[], None]


def digits_run(done: Callable[[], None]) -> Run:
    """The digits recipe without classes, which denoising-diffusion-pytorch's trainer does not support."""
    torch.manual_seed(0)
    network = df.nn.UNet(**{**NETWORK, "num_classes": None})
    return Run(network, torch.as_tensor(digits().images), SCHEDULE, CONFIG, done)
