"""Images in a folder that Hugging Face ``datasets`` wrote with ``save_to_disk``."""

from __future__ import annotations

import os

import numpy as np

from ...errors import ArgumentError, MissingDependencyError, install_hint
from .decode import Framing, pillow
from .file_listing import natural
from .image_folder import Images


def from_disk(
    path: str | os.PathLike[str],
    *,
    split: str | None = None,
    image: str = "image",
    label: str | None = None,
    framing: Framing | None = None,
    on_error: str = "raise",
) -> Images:
    """Open the images of a data set on disk.

    Args:
        split: The split of a folder with several (``train``, ...).
        image: The column of images.
        label: The column of labels: integers from 0, or names, which are numbered in natural order (2 before 10); None for no
            labels.
        framing, on_error: As for :class:`Images`.

    Raises:
        ArgumentError: there is no such data set, split or column. MissingDependencyError: ``datasets`` is not installed.
    """
    try:
        import datasets
    except ImportError as error:
        raise MissingDependencyError(f"this needs datasets ({error}): {install_hint('datasets')}") from None
    try:
        data = datasets.load_from_disk(os.fspath(path))
    except (OSError, ValueError) as error:
        raise ArgumentError(f"{path} is not a folder of a Hugging Face data set: {error}.") from error
    if isinstance(data, datasets.DatasetDict):
        if split not in data:
            raise ArgumentError(f"split is {split!r}; it must be one of {', '.join(data)} of {path}.")
        data = data[split]
    for column in (image, *([] if label is None else [label])):
        if column not in data.column_names:
            raise ArgumentError(f"there is no column {column!r}; {path} has {', '.join(data.column_names)}.")
    labels = classes = None
    if label is not None:
        values = data[label][:]
        classes = getattr(data.features[label], "names", None)
        if values and isinstance(values[0], str):
            classes = sorted(set(values), key=natural)
            values = [classes.index(value) for value in values]
        labels = np.array(values)
    # Not decoded by datasets, so that we can name a broken image.
    images = data.cast_column(image, datasets.Image(decode=False)).select_columns(image)
    pil = pillow()

    def opened(index: int):
        import io

        row = images[index][image]
        return pil.open(io.BytesIO(row["bytes"]) if row["bytes"] is not None else row["path"])

    names = [f"row {i}" for i in range(len(data))]
    return Images(names, opened, labels, classes=classes, framing=framing, on_error=on_error)
