"""Where training data come from. Each source has a shape and hands out float32 batches by number; pictures come in [-1, 1].

==================  =========================================================================
:func:`digits`      scikit-learn's digits (arrays)
:func:`emoji`       Twemoji's drawings, out of an npm package
:class:`Arrays`     arrays in memory, or ``.npy`` and ``.npz`` files, which stay on the disk
:class:`Images`     a folder of image files, or a Hugging Face ``datasets`` folder
:class:`Generated`  what a generator function yields
==================  =========================================================================
"""

from .arrays import Arrays
from .decode import Framing
from .digits import Split, digits
from .emoji import emoji
from .generated import Generated
from .hugging_face import from_disk
from .image_folder import Images
from .part import Part, hold_out
from .source import Source

__all__ = ["Arrays", "Framing", "Generated", "Images", "Part", "Source", "Split", "digits", "emoji", "from_disk", "hold_out"]
