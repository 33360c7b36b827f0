"""Samples as PNG files that say how they were drawn."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import ArgumentError
from ...image_grid import check_shape, png
from ...model import to_uint8
from ..job import Finished, Job
from .refusals import refusal

if TYPE_CHECKING:
    from ..workers import ModelInfo

INLINE = 64 * 64  # pixels up to which encoding takes less time than handing it to a thread


def require_images(info: ModelInfo) -> None:
    """Check that a model draws images.

    Raises:
        HTTPException: 400, it does not.
    """
    try:
        check_shape(info.shape)
    except ArgumentError:
        found = None
    else:
        found = info.value_range
    if found is None:
        message = f"the samples of {info.name!r} are not images; POST /v2/models/{info.name}/infer returns tensors."
        raise refusal(400, "not_images", message, param="model")


def size(info: ModelInfo) -> str:
    """``WIDTHxHEIGHT`` of a model's images."""
    height, width = info.shape[-2:]
    return f"{width}x{height}"


def recipe(job: Job, end: Finished) -> dict[str, Any]:
    """How a sample was drawn, as JSON data: the arguments of ``df.sample``, and what made it. :func:`plan` says the rest."""
    record = end.record
    arguments = {
        "solver": record["solver"],
        "steps": record["steps"],
        **job.options,
        "guidance_scale": record["guidance_scale"],
        "seed": record["seed"],
        "first_index": record["index"],
        "cond": record["cond"],
        "negative_cond": record["negative_cond"],
    }
    return {
        "model": job.model,
        "sha256": record["model_sha256"],
        "sample": {name: value for name, value in arguments.items() if value is not None},
        "calls": end.calls,
        "made_by": {"diffuse_fast": record["diffuse_fast"], "network": record["network"]},
    }


def plan(end: Finished) -> str:
    """The plan that a sample followed, as JSON text."""
    return end.record["plan"]


async def encoded(x: np.ndarray, info: ModelInfo, text: dict[str, Any] | None) -> str:
    """A sample as a PNG in base64.

    Args:
        x: Of the model's shape.
        info: The model.
        text: Stored in the PNG's text field ``recipe``; None stores nothing.
    """
    if info.shape[-1] * info.shape[-2] <= INLINE:
        await asyncio.sleep(0)  # other requests have their turn between the samples of this one
        return _encode(x, info, text)
    return await asyncio.to_thread(_encode, x, info, text)


def _encode(x: np.ndarray, info: ModelInfo, text: dict[str, Any] | None) -> str:
    assert info.value_range is not None  # `require_images`
    levels = to_uint8(x, info.value_range)
    picture = levels if levels.ndim == 2 else levels[0] if len(levels) == 1 else levels.transpose(1, 2, 0)
    return base64.b64encode(png(picture, None if text is None else json.dumps(text))).decode()
