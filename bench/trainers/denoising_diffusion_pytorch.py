"""denoising-diffusion-pytorch: its ``GaussianDiffusion``, ``EMA`` and the body of ``Trainer.train``; its Trainer itself takes a
folder of pictures. The schedule of the rate, which it has not, is added."""

from __future__ import annotations

import torch
from accelerate import Accelerator
from ema_pytorch import EMA
from torch.optim import Adam
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader

from diffuse_fast.training.run.loop import rate_factor

from ..peers.denoising_diffusion_pytorch import library
from . import Run


class Network(torch.nn.Module):
    """The network, with what the library reads of its own."""

    self_condition = False

    def __init__(self, inner: torch.nn.Module, channels: int):
        super().__init__()
        self.inner, self.channels, self.out_dim = inner, channels, channels

    def forward(self, x, t, x_self_cond=None):
        return self.inner(x, t)


def train(run: Run) -> None:
    config = run.config
    _, channels, *size = run.data.shape
    diffusion = library()(
        Network(run.network, channels),
        image_size=tuple(size),
        timesteps=len(run.schedule.betas),
        objective="pred_v",
        beta_schedule="cosine",
        auto_normalize=False,
    )
    accelerator = Accelerator(split_batches=True, mixed_precision="no", cpu=True)
    loader = accelerator.prepare(DataLoader(run.data, batch_size=config.batch_size, shuffle=True, drop_last=True))
    optimizer = Adam(diffusion.parameters(), lr=config.learning_rate, betas=(0.9, 0.99))
    rates = LambdaLR(optimizer, lambda step: rate_factor(step + 1, config))
    average = EMA(diffusion, beta=config.ema_decay, update_every=1)
    model, optimizer = accelerator.prepare(diffusion, optimizer)
    batches = iter(loader)
    for _ in range(config.steps):
        try:
            data = next(batches)
        except StopIteration:
            batches = iter(loader)
            data = next(batches)
        model.train()
        with accelerator.autocast():
            loss = model(data)
            loss.item()
        accelerator.backward(loss)
        accelerator.wait_for_everyone()
        accelerator.clip_grad_norm_(model.parameters(), config.gradient_clip)
        optimizer.step()
        optimizer.zero_grad()
        accelerator.wait_for_everyone()
        rates.step()
        average.update()
        run.done()
