"""Decode an image file: resized, cropped, with the requested channels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ...checks import require_int
from ...errors import ArgumentError, MissingDependencyError, install_hint
from .value_range import HINT, Range, parse_range, scaled

if TYPE_CHECKING:
    from PIL.Image import Image

ON_ERROR = ("raise", "skip")
CROPS = ("center", "none")
MODES = {1: "L", 3: "RGB"}
TRANSPARENT = ("RGBA", "LA", "PA")
DEEP = ("I", "F", "I;16", "I;16L", "I;16B", "I;16N")  # one-channel modes with more than 8 bits
ORIENTATION = 0x0112  # EXIF tag: how to rotate the image
WIDTH, HEIGHT, BITS, PHOTOMETRIC = 256, 257, 258, 262  # of TIFF


def pillow() -> Any:
    """``PIL.Image``.

    Raises:
        MissingDependencyError: Pillow is not installed.
    """
    try:
        from PIL import Image
    except ImportError as error:
        raise MissingDependencyError(f"images need Pillow ({error}): {install_hint('train')}") from None
    return Image


@dataclass(frozen=True)
class Framing:
    """How images are brought to one shape and to [-1, 1].

    They are rotated by their EXIF orientation, and transparent pixels become white. The values of 8-bit images go from 0 to 255,
    of 16-bit images from 0 to 65535, and of float images from 0 to 1.

    Attributes:
        size: Height and width; None does not resize, and all images must have the same size.
        channels: 1 (grey) or 3 (colour); None does not convert, and all images must have the same channels.
        crop: ``center`` scales the shorter side to ``size`` and crops the centre; ``none`` scales both sides.
        data_range: For images with more than 8 bits: the values that become -1 and 1. None is as above; 32-bit integers need it,
            because their maximum is unknown.

    Raises:
        ArgumentError, ArgumentTypeError: a value is invalid.
    """

    size: int | None = None
    channels: int | None = None
    crop: str = "center"
    data_range: Range | None = None

    def __post_init__(self) -> None:
        for name in ("size", "channels"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, require_int(name, getattr(self, name), 1))
        if self.channels is not None and self.channels not in MODES:
            raise ArgumentError(f"channels is {self.channels}; it must be 1 or 3.")
        if self.crop not in CROPS:
            raise ArgumentError(f"crop is {self.crop!r}; it must be one of {', '.join(CROPS)}.")
        given = parse_range(self.data_range)
        if isinstance(given, bool):
            raise ArgumentError("data_range is False, which is for arrays: images are always scaled to [-1, 1].")
        object.__setattr__(self, "data_range", given)  # a list from a configuration becomes a pair

    def shape(self, image: Image) -> tuple[int, int, int]:
        """The (C, H, W) of the result of :meth:`frame`, from the file's header.

        Raises:
            ArgumentError: the maximum of its values is unknown.
        """
        if image.mode in DEEP:
            self._range(image)
        channels = self._channels(image)
        if self.size:
            return channels, self.size, self.size
        width, height = _upright_size(image)
        return channels, height, width

    def frame(self, image: Image) -> np.ndarray:
        """Decode an image to (C, H, W): uint8 levels for 8 bits, float32 in [-1, 1] for more.

        Raises:
            OSError: the file is truncated or damaged. ArgumentError: values are outside their range.
        """
        size = _upright_size(image)
        image.load()
        if image.format == "TIFF" and image.size != size:
            raise OSError("this version of Pillow misreads rotated uncompressed TIFF images; save it upright")
        channels = self._channels(image)
        turn = _turn(image)
        image = self._scaled(image) if image.mode in DEEP else _opaque(image).convert(MODES[channels])
        if turn is not None:
            image = image.transpose(turn)
        if self.size is not None:
            image = self._sized(image, self.size)
        if image.mode == "F":
            # Resizing overshoots at edges; for 8 bits Pillow clips this itself.
            return np.repeat(np.clip(np.asarray(image), -1.0, 1.0)[None], channels, axis=0)
        levels = np.array(image, dtype=np.uint8)  # a copy: Pillow's memory is read-only
        return levels[None] if channels == 1 else np.ascontiguousarray(levels.transpose(2, 0, 1))

    def _channels(self, image: Image) -> int:
        return self.channels or (1 if image.mode in ("1", "L", "LA", *DEEP) else 3)

    def _scaled(self, image: Image) -> Image:
        """Scale an image of more than 8 bits to [-1, 1], with the mode F."""
        values = np.asarray(image)
        x = scaled(values, self._range(image))
        if _tags(image).get(PHOTOMETRIC) == 0:  # TIFF's "white is zero"
            x = -x
        if (transparent := image.info.get("transparency")) is not None:
            x[values == transparent] = 1.0
        made: Image = pillow().fromarray(x)
        return made

    def _range(self, image: Image) -> Range:
        if self.data_range is not None:
            return self.data_range
        if image.mode == "F":
            return 0.0, 1.0
        if image.mode == "I" and image.format not in ("PNG", "PPM"):
            raise ArgumentError(f"its values are signed or have 32 bits, and their maximum is unknown; {HINT}.")
        bits = _tags(image).get(BITS, (16,))[0]
        return 0.0, float((1 << bits) - 1)

    def _sized(self, image: Image, size: int) -> Image:
        box = None
        if self.crop == "center":
            side = min(image.width, image.height)
            left, top = (image.width - side) / 2, (image.height - side) / 2
            box = (left, top, left + side, top + side)
        return image.resize((size, size), pillow().Resampling.BICUBIC, box=box)


def _opaque(image: Image) -> Image:
    """Put transparent pixels on white."""
    if image.mode in TRANSPARENT or "transparency" in image.info:
        image = image.convert("RGBA")
        pil = pillow()
        image = pil.alpha_composite(pil.new("RGBA", image.size, "white"), image)
    return image


def _tags(image: Image) -> Any:
    """The tags of a TIFF file."""
    return getattr(image, "tag_v2", {})


def _turn(image: Image) -> Any:
    """The transposition that turns a loaded image upright, or None. For TIFF files Pillow has done it."""
    way = pillow().Transpose
    turns: dict[Any, Any] = {
        2: way.FLIP_LEFT_RIGHT, 3: way.ROTATE_180, 4: way.FLIP_TOP_BOTTOM, 5: way.TRANSPOSE, 6: way.ROTATE_270, 7: way.TRANSVERSE,
        8: way.ROTATE_90,
    }  # fmt: skip
    return turns.get(_orientation(image))


def _orientation(image: Image) -> Any:
    try:
        return image.getexif().get(ORIENTATION)
    except Exception:  # damaged EXIF raises errors of many kinds; the pixels are intact
        return None


def _upright_size(image: Image) -> tuple[int, int]:
    """The (width, height), upright, of an image that is not loaded yet."""
    if image.format == "TIFF":  # versions of Pillow differ in whether ``size`` is before or after rotation
        size, orientation = (_tags(image)[WIDTH], _tags(image)[HEIGHT]), _tags(image).get(ORIENTATION)
    elif image.format == "PNG" and not {"exif", "Raw profile type exif"} & set(image.info):
        return image.size  # looking for EXIF at its end would read the whole file
    else:
        size, orientation = image.size, _orientation(image)
    return (size[1], size[0]) if orientation in (5, 6, 7, 8) else size
