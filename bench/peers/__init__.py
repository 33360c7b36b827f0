"""The peers that are timed: one file per library, and this table. A peer that is missing or fails is listed with its reason."""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

from ..networks import INT8, NETWORKS
from .base import Job, Peer


@dataclass(frozen=True)
class Entry:
    """One peer.

    Attributes:
        name: Its name in tables.
        module: The file here that makes it.
        options: Arguments of that file's ``make``.
        precision: Precision of the network.
        images: Whether it supports only networks on (C, H, W).
        ours: Whether it is this project.
        measures: Whether its setup measures times, so that nothing else may run then.
        rederives: Whether its DDIM can only take ε from the clipped x0, as in guided-diffusion.
    """

    name: str
    module: str
    options: dict[str, Any] = field(default_factory=dict)
    precision: str = "float32"
    images: bool = False
    ours: bool = False
    rederives: bool = False
    measures: bool = False

    def plays(self, network: str) -> bool:
        """Whether the peer supports this network."""
        return (not self.images or len(NETWORKS[network].shape) == 3) and (self.precision != "int8" or network in INT8)

    def make(self, job: Job) -> Peer:
        return import_module(f".{self.module}", __package__).make(job, **self.options)


BF16 = "bfloat16"

PEERS = (
    Entry("diffuse_fast", "diffuse_fast", ours=True),
    Entry("diffuse_fast, openvino", "diffuse_fast", {"runtime": "openvino"}, ours=True),
    Entry("diffuse_fast, tuned", "diffuse_fast", {"tuned": True}, ours=True, measures=True),
    Entry("diffuse_fast, bfloat16", "diffuse_fast", {"precision": BF16, "runtime": "openvino"}, BF16, ours=True),
    Entry("diffuse_fast, float32-fast", "diffuse_fast", {"precision": "float32-fast"}, "float32-fast", ours=True),
    Entry("diffuse_fast, int8", "diffuse_fast", {"precision": "int8"}, "int8", ours=True),
    Entry("torch loop", "torch_loop"),
    Entry("torch.compile", "torch_loop", {"compiled": True}),
    Entry("torch.compile, freezing", "torch_loop", {"compiled": True, "freezing": True}),
    Entry("diffusers", "diffusers"),
    Entry("diffusers, channels-last", "diffusers", {"channels_last": True}, images=True),
    Entry("diffusers, bf16", "diffusers", {"bf16": True}, BF16),
    Entry("onnxruntime + diffusers", "onnxruntime"),
    Entry("onnxruntime loop", "onnxruntime", {"loop": True}),
    Entry("OpenVINO + diffusers", "openvino"),
    Entry("OpenVINO loop", "openvino", {"loop": True}),
    Entry("OpenVINO + diffusers, bf16", "openvino", {"precision": "bf16"}, BF16),
    Entry("MNN + diffusers", "mnn"),
    Entry("denoising-diffusion-pytorch", "denoising_diffusion_pytorch", images=True, rederives=True),
)

__all__ = ["PEERS", "Entry", "Job", "Peer"]
