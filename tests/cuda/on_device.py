"""NumPy arrays copied to the device."""

from __future__ import annotations

from typing import Any

import numpy as np

from diffuse_fast.kernels.device_array import DeviceArray


def on_device(array: np.ndarray, dtype: Any = None, *, device: int = 0, stream: int = 0) -> DeviceArray:
    """A DeviceArray of a NumPy array; ``dtype``: bfloat16, whose bits these are."""
    new = DeviceArray(array.shape, dtype or array.dtype, device)
    new.copy_from_host(np.asarray(array, order="C"), stream)
    return new
