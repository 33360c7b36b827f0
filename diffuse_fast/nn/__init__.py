"""Networks for the training wing: plain torch modules that export whole.

Every network is called ``network(x, t, label=None)`` and returns what it predicts, in the shape of ``x``.
"""

from __future__ import annotations

from ..errors import RuntimeUnavailableError

try:
    import torch  # noqa: F401  (asked for here, so that its absence is told in one place)
except ImportError as error:
    raise RuntimeUnavailableError("diffuse_fast.nn needs torch: pip install 'diffuse-fast[train]'") from error

from .unet import UNet

__all__ = ["UNet"]
