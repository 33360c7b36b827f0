"""Networks for training: plain torch modules that can be exported to ONNX.

Every network is called ``network(x, t, label=None)`` and returns what it predicts, in the shape of ``x`` (or with ``out_channels``
channels). Each starts as its paper says; all of them predict zero before they are trained.
"""

from __future__ import annotations

from ..errors import MissingDependencyError, install_hint

try:
    import torch  # noqa: F401  (imported here, so that its absence is reported in one place)
except ImportError as error:
    raise MissingDependencyError(f"diffuse_fast.nn needs torch: {install_hint('train')}") from error

from .dit import DiT
from .mlp import MLP
from .unet import UNet, UNet1D, UNet3D

__all__ = ["MLP", "DiT", "UNet", "UNet1D", "UNet3D"]
