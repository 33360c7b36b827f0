"""The torch modules of :mod:`bench.networks`.

The weights are random (seed 0), but for the bundled digits model, whose file holds them: how long a network takes does not
depend on them. What DDPM's initialisation leaves at zero is drawn too, so that equality of results says something.
"""

from __future__ import annotations

import contextlib
import functools
import io
import logging
import shutil
import warnings
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import diffuse_fast as df
from diffuse_fast.nn.embedding import frequencies, sinusoids

from .networks import CLIP, FOLDER, INT8, NETWORKS, artifact, int8, plain


class MLP(nn.Module):
    """Four layers of 64 on (x, t), for 2-D data."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(3, 64), nn.SiLU(), nn.Linear(64, 64), nn.SiLU(), nn.Linear(64, 64), nn.SiLU(), nn.Linear(64, 2)
        )

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return self.layers(torch.cat([x, t[:, None].to(x.dtype) / 1000], dim=1))


class PolicyBlock(nn.Module):
    """Two convolutions with GroupNorm and Mish; the condition scales and shifts between them (FiLM)."""

    def __init__(self, channels: int, out: int, cond: int) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv1d(channels, out, 5, padding=2), nn.GroupNorm(8, out), nn.Mish())
        self.film = nn.Sequential(nn.Mish(), nn.Linear(cond, 2 * out))
        self.second = nn.Sequential(nn.Conv1d(out, out, 5, padding=2), nn.GroupNorm(8, out), nn.Mish())
        self.shortcut = nn.Conv1d(channels, out, 1) if channels != out else nn.Identity()

    def forward(self, x: Tensor, cond: Tensor) -> Tensor:
        scale, shift = self.film(cond).unsqueeze(-1).chunk(2, dim=1)
        return self.second(self.first(x) * (1 + scale) + shift) + self.shortcut(x)


class PolicyUNet(nn.Module):
    """The conditional 1-D UNet of Diffusion Policy (Chi et al. 2023) over (B, horizon, actions), with ``observation`` (B, 20)."""

    def __init__(self, actions: int = 2, observation: int = 20, widths: tuple[int, ...] = (64, 128, 256), embedding: int = 128):
        super().__init__()
        self.register_buffer("frequencies", frequencies(embedding // 2))
        self.time = nn.Sequential(nn.Linear(embedding, 4 * embedding), nn.Mish(), nn.Linear(4 * embedding, embedding))
        cond = embedding + observation
        ins = (actions, *widths[:-1])
        self.down = nn.ModuleList(
            nn.ModuleList([PolicyBlock(a, b, cond), PolicyBlock(b, b, cond)]) for a, b in zip(ins, widths, strict=True)
        )
        self.smaller = nn.ModuleList(nn.Conv1d(w, w, 3, stride=2, padding=1) for w in widths[:-1])
        self.middle = nn.ModuleList(PolicyBlock(widths[-1], widths[-1], cond) for _ in range(2))
        back = list(zip(widths[:0:-1], widths[-2::-1], strict=True))
        self.up = nn.ModuleList(nn.ModuleList([PolicyBlock(2 * a, b, cond), PolicyBlock(b, b, cond)]) for a, b in back)
        self.larger = nn.ModuleList(nn.ConvTranspose1d(b, b, 4, stride=2, padding=1) for _, b in back)
        self.last = nn.Sequential(
            nn.Conv1d(widths[0], widths[0], 5, padding=2), nn.GroupNorm(8, widths[0]), nn.Mish(), nn.Conv1d(widths[0], actions, 1)
        )

    def forward(self, x: Tensor, t: Tensor, observation: Tensor) -> Tensor:
        cond = torch.cat([self.time(sinusoids(t, self.frequencies)), observation], dim=1)
        h, kept = x.transpose(1, 2), []
        for i, (one, two) in enumerate(self.down):
            h = two(one(h, cond), cond)
            kept.append(h)
            if i < len(self.smaller):
                h = self.smaller[i](h)
        for block in self.middle:
            h = block(h, cond)
        for (one, two), larger in zip(self.up, self.larger, strict=True):
            h = larger(two(one(torch.cat([h, kept.pop()], dim=1), cond), cond))
        return self.last(h).transpose(1, 2)


def _drawn(network: nn.Module) -> nn.Module:
    """The network in eval mode, with every weight that its initialisation left at zero drawn as torch draws it."""
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d) and not layer.weight.any():
            nn.init.kaiming_uniform_(layer.weight, a=5**0.5)
    return network.eval().requires_grad_(False)


def _digits() -> nn.Module:
    import onnx
    from onnx import numpy_helper

    from .digits_recipe import NETWORK

    network = df.nn.UNet(**NETWORK)
    file = onnx.load(df.load("digits").path)
    arrays = {w.name: numpy_helper.to_array(w) for w in file.graph.initializer}
    # The exporter keeps the names of parameters, but writes equal ones once: a bias is the one beside its weight.
    names = {node.input[1].replace(".weight", ".bias"): node.input[2] for node in file.graph.node if len(node.input) == 3}
    weights = {name: arrays[names.get(f"network.{name}", f"network.{name}")] for name in network.state_dict()}
    network.load_state_dict({name: torch.from_numpy(array.copy()) for name, array in weights.items()})
    return network


_SMALL = {"channels": 52, "multipliers": (1, 2, 2), "groups": 4}
_BUILD: dict[str, Callable[[], nn.Module]] = {
    "mlp": MLP,
    "policy": PolicyUNet,
    "digits": _digits,
    "unet16": lambda: df.nn.UNet(1, **_SMALL),
    "unet28": lambda: df.nn.UNet(1, **_SMALL),
    "unet56": lambda: df.nn.UNet(1, **_SMALL),
    "cifar10": lambda: df.nn.UNet(3, channels=128, multipliers=(1, 2, 2, 2), attention_levels=(1,)),
}


def module(name: str) -> nn.Module:
    """The network of that name in eval mode, always with the same weights."""
    torch.manual_seed(0)
    return _drawn(_BUILD[name]())


def parameters(name: str) -> int:
    return sum(p.numel() for p in module(name).parameters())


@functools.cache
def multiply_adds(name: str) -> int:
    """Multiply-adds of one call at batch 1, counted by torch (convolutions, matrix products, attention)."""
    net = NETWORKS[name]
    cond = map(torch.from_numpy, net.conditioning(1).values())
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        module(name)(torch.zeros(1, *net.shape), torch.zeros(1, dtype=torch.int64), *cond)
    return counter.get_total_flops() // 2


# ---- files --------------------------------------------------------------------------------------


@functools.cache
def prepare(name: str) -> None:
    """Write the files of a network that are not there yet."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    net = NETWORKS[name]
    _drop_other_folders()
    if not artifact(name).exists():
        arrays = net.conditioning(1).items()
        conditioning = [{"name": n, "dtype": str(v.dtype), "shape": list(v.shape[1:])} for n, v in arrays]
        df.export(
            module(name),
            artifact(name),
            shape=net.shape,
            schedule=net.schedule,
            prediction_type=net.prediction_type,
            clip=CLIP,
            conditioning=conditioning,
        )
    if not plain(name).exists():
        export_plainly(name)
    if name in INT8 and not int8(name).exists():
        df.quantize(artifact(name), int8(name), samples=4, steps=10)


def _drop_other_folders() -> None:
    """Those that other code made."""
    for other in FOLDER.parent.iterdir():
        if other != FOLDER and other.is_dir():
            shutil.rmtree(other)


def export_plainly(name: str) -> None:
    """Write the file :func:`~bench.networks.plain`."""
    net = NETWORKS[name]
    cond = {n: torch.from_numpy(v) for n, v in net.conditioning(2).items()}
    inputs = (torch.zeros(2, *net.shape), torch.zeros(2, dtype=torch.int64), *cond.values())
    batch = {0: torch.export.Dim.DYNAMIC}
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            module(name),
            inputs,
            dynamo=True,
            input_names=["x", "t", *cond],
            output_names=["output"],
            dynamic_shapes=(batch,) * len(inputs),
            external_data=False,
            verbose=False,
        )
        draft = plain(name).with_suffix(".draft")
        program.save(draft)
    draft.rename(plain(name))
