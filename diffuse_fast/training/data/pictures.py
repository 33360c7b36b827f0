"""A picture file as an array: decoded, resized, cropped, in the channels asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import ArgumentError, RuntimeUnavailableError, install_hint

if TYPE_CHECKING:
    from PIL.Image import Image

CROPS = ("center", "none")
MODES = {1: "L", 3: "RGB"}
TRANSPARENT = ("RGBA", "LA", "PA")


def pillow() -> Any:
    """``PIL.Image``.

    Raises:
        RuntimeUnavailableError: Pillow is not installed.
    """
    try:
        from PIL import Image
    except ImportError as error:
        raise RuntimeUnavailableError(f"images need Pillow ({error}): {install_hint('train')}") from None
    return Image


@dataclass(frozen=True)
class Framing:
    """How pictures are brought to one shape.

    Attributes:
        size: Height and width; None leaves them as they are, and then all must be alike.
        channels: 1 (grey) or 3 (colour); None takes them as they are, and then all must be alike.
        crop: ``center`` scales the shorter side to ``size`` and cuts the middle; ``none`` scales both sides.

    Raises:
        ArgumentError: a value is none of these.
    """

    size: int | None = None
    channels: int | None = None
    crop: str = "center"

    def __post_init__(self) -> None:
        if self.size is not None and self.size < 1:
            raise ArgumentError(f"size is {self.size}; it must be at least 1.")
        if self.channels is not None and self.channels not in MODES:
            raise ArgumentError(f"channels is {self.channels}; it must be 1 or 3.")
        if self.crop not in CROPS:
            raise ArgumentError(f"crop is {self.crop!r}; it must be one of {', '.join(CROPS)}.")

    def shape(self, image: Image) -> tuple[int, int, int]:
        """The (C, H, W) that :meth:`frame` will give; the file's header is enough."""
        channels = self.channels or (1 if image.mode in ("1", "L", "LA", "I", "I;16", "F") else 3)
        height, width = (self.size, self.size) if self.size else (image.height, image.width)
        return channels, height, width

    def frame(self, image: Image) -> np.ndarray:
        """(C, H, W) uint8. What is transparent is white.

        Raises:
            OSError: the file ends early or is damaged.
        """
        channels = self.shape(image)[0]
        pil = pillow()
        if image.mode in TRANSPARENT or "transparency" in image.info:
            image = image.convert("RGBA")
            image = pil.alpha_composite(pil.new("RGBA", image.size, "white"), image)
        image = image.convert(MODES[channels])
        if self.size is not None:
            image = self._sized(image, self.size)
        levels = np.asarray(image, dtype=np.uint8)
        return levels[None] if channels == 1 else np.ascontiguousarray(levels.transpose(2, 0, 1))

    def _sized(self, image: Image, size: int) -> Image:
        box = None
        if self.crop == "center":
            side = min(image.width, image.height)
            left, top = (image.width - side) / 2, (image.height - side) / 2
            box = (left, top, left + side, top + side)
        return image.resize((size, size), pillow().Resampling.BICUBIC, box=box)
