"""Sources of training data. Each has a shape and returns float32 batches by index; images have values in [-1, 1].

==================  =========================================================================
:func:`digits`      scikit-learn's digits (arrays)
:func:`emoji`       Twemoji's drawings, from an npm package
:class:`Arrays`     arrays in memory, or ``.npy`` and ``.npz`` files, which are read as needed
:class:`Images`     a folder of image files, or a Hugging Face ``datasets`` folder
:class:`Generated`  the samples that a generator function yields
==================  =========================================================================

Names are loaded on first use, so that a configuration is checked before torch is loaded.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

_HOME = {
    "Arrays": "arrays",
    "Framing": "decode",
    "Generated": "generated",
    "Images": "image_folder",
    "Part": "part",
    "Source": "source",
    "Split": "sklearn_digits",
    "digits": "sklearn_digits",
    "emoji": "twemoji",
    "from_disk": "hugging_face",
    "hold_out": "part",
}

__all__ = ["Arrays", "Framing", "Generated", "Images", "Part", "Source", "Split", "digits", "emoji", "from_disk", "hold_out"]

if TYPE_CHECKING:
    from .arrays import Arrays
    from .decode import Framing
    from .generated import Generated
    from .hugging_face import from_disk
    from .image_folder import Images
    from .part import Part, hold_out
    from .sklearn_digits import Split, digits
    from .source import Source
    from .twemoji import emoji


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)
    globals()[name] = value
    return value
