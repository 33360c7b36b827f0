"""The networks that sampling is timed on: what their files say, and where they lie. Their modules are in :mod:`bench.modules`, so
that a peer without torch can be timed without it.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import numpy as np

import diffuse_fast as df

# What the files of a run are made by: with other code or other versions they are made anew.
SOURCES = ("bench/networks.py", "bench/modules.py", "bench/mnn.py", *(f"diffuse_fast/{path}" for path in (
    "exporting/*.py", "model.py", "nn/*.py", "artifact/*.py", "quantization/*.py", "runtimes/**/*.py", "rewrites/*.py",
    "bundled/digits.onnx",
)))  # fmt: skip
MAKERS = ("torch", "onnx", "onnxscript", "onnxruntime", "openvino", "MNN")


def _key() -> str:
    root, content = Path(__file__).parent.parent, hashlib.sha256()
    for path in sorted(path for pattern in SOURCES for path in root.glob(pattern)):
        content.update(path.read_bytes())
    for package in MAKERS:
        try:
            content.update(f"{package} {metadata.version(package)}".encode())
        except metadata.PackageNotFoundError:
            content.update(package.encode())
    return content.hexdigest()[:12]


FOLDER = Path(__file__).parent.parent / "out" / "bench" / _key()
CLIP = (-1.0, 1.0)


@dataclass(frozen=True)
class Net:
    """A network and what its artifact says of it.

    Attributes:
        shape: Shape of one sample.
        about: One line for the page.
        schedule, prediction_type: Of its training, had there been one.
        cond: Conditioning inputs: name to the value that every sample gets.
    """

    shape: tuple[int, ...]
    about: str
    schedule: df.Schedule
    prediction_type: str = "epsilon"
    cond: tuple[tuple[str, object], ...] = ()

    def conditioning(self, batch: int) -> dict[str, np.ndarray]:
        return {name: np.stack([np.asarray(value)] * batch) for name, value in self.cond}


_LINEAR, _COSINE = df.Schedule.linear(), df.Schedule.cosine()
_OBSERVATION = np.linspace(-1, 1, 20, dtype=np.float32)

NETWORKS = {
    "mlp": Net((2,), "MLP, 4 layers of 64, 2-D data", _LINEAR),
    "policy": Net((16, 2), "1-D UNet of Diffusion Policy, widths 64, 128, 256", _COSINE, cond=(("observation", _OBSERVATION),)),
    "digits": Net((1, 8, 8), "the bundled UNet of the digits", _COSINE, "v_prediction", cond=(("label", 3),)),
    "unet16": Net((1, 16, 16), "UNet, 16x16", _LINEAR),
    "unet28": Net((1, 28, 28), "UNet, 28x28", _LINEAR),
    "unet56": Net((1, 56, 56), "UNet, 56x56", _LINEAR),
    "cifar10": Net((3, 32, 32), "the UNet of DDPM on CIFAR-10", _LINEAR),
}

INT8 = ("digits", "unet28", "cifar10")  # those that are timed in int8 too


def artifact(name: str) -> Path:
    """Our file of the network."""
    return Path(df.load("digits").path) if name == "digits" else FOLDER / f"{name}.onnx"


def int8(name: str) -> Path:
    """Our file of the network with what it takes to run it in int8."""
    return FOLDER / f"{name}-int8.onnx"


def plain(name: str) -> Path:
    """The file that torch's own exporter makes with what it takes by default, as peers' documentation says."""
    return FOLDER / f"{name}-plain.onnx"
