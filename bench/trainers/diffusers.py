"""diffusers, as its tutorial "Train a diffusion model" and ``examples/unconditional_image_generation`` write the loop: accelerate,
``DDPMScheduler.add_noise``, AdamW, its cosine schedule with warm-up, ``EMAModel``."""

from __future__ import annotations

import sys

try:
    import torchvision  # noqa: F401  # to see whether it can be
except ImportError:
    pass
except RuntimeError:  # one that was built for another torch, which stops diffusers; what is imported here does not need it
    sys.modules["torchvision"] = None  # Python's way to say that there is none

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from diffusers import DDPMScheduler
from diffusers.optimization import get_cosine_schedule_with_warmup
from diffusers.training_utils import EMAModel
from torch.utils.data import DataLoader, TensorDataset

from . import Run


def train(run: Run) -> None:
    config, model = run.config, run.network
    accelerator = Accelerator(cpu=True)
    scheduler = DDPMScheduler(len(run.schedule.betas), trained_betas=np.asarray(run.schedule.betas), prediction_type="v_prediction")
    loader = DataLoader(TensorDataset(run.data), config.batch_size, shuffle=True, drop_last=True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
    rates = get_cosine_schedule_with_warmup(optimizer, config.warmup, config.steps)
    model, optimizer, loader, rates = accelerator.prepare(model, optimizer, loader, rates)
    average = EMAModel(model.parameters(), decay=config.ema_decay, use_ema_warmup=True, foreach=True)
    model.train()
    step = 0
    while step < config.steps:
        for (clean,) in loader:
            noise = torch.randn(clean.shape)
            timesteps = torch.randint(0, scheduler.config.num_train_timesteps, (len(clean),)).long()
            noisy = scheduler.add_noise(clean, noise, timesteps)
            target = scheduler.get_velocity(clean, noise, timesteps)
            loss = F.mse_loss(model(noisy, timesteps), target)
            accelerator.backward(loss)
            accelerator.clip_grad_norm_(model.parameters(), config.gradient_clip)
            optimizer.step()
            rates.step()
            optimizer.zero_grad()
            average.step(model.parameters())
            loss.detach().item()  # it goes to the progress bar and the log
            run.done()
            step += 1
            if step == config.steps:
                break
