"""From a body to a job: defaults, class names, conditioning arrays, and the limits on what one request may ask for."""

from __future__ import annotations

import math
import secrets
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ...artifact.document import Conditioning
from ...errors import suggest
from ..job import Job, Sample
from .bodies import Drawing
from .pictures import size
from .refusals import refusal
from .settings import Settings

if TYPE_CHECKING:
    from ..workers import ModelInfo


def fresh_seed() -> int:
    """A random seed that a program with float64 numbers, such as JavaScript, reads without loss."""
    return secrets.randbits(53)


def job_of(body: Drawing, info: ModelInfo, settings: Settings, *, previews: int = 0) -> Job:
    """The job that a body asks for.

    Raises:
        HTTPException: 400, a field does not fit the model or passes a limit.
    """
    if body.response_format == "url":
        raise refusal(400, "unsupported", "response_format is 'url'; this server returns 'b64_json'.", param="response_format")
    if body.size not in (None, "auto") and body.size != size(info):
        raise refusal(400, "invalid_size", f"size is {body.size!r}; {info.name!r} draws {size(info)}.", param="size")
    check_limits(body.n, body.num_inference_steps, info, settings)
    seed = fresh_seed() if body.seed is None else body.seed
    cond = _conditioning("conditioning", body.conditioning, info, body.n)
    cond = _with_label(cond, body, info)
    negative = _conditioning("negative_conditioning", body.negative_conditioning, info, body.n)
    samples = (Sample(seed, i, _of(cond, i), _of(negative, i)) for i in range(body.n))
    return Job(
        id=secrets.token_hex(16),
        model=info.name,
        samples=tuple(samples),
        solver=body.solver,
        steps=body.num_inference_steps,
        options=body.options,
        guidance_scale=body.guidance_scale,
        priority=body.priority,
        deadline=None if body.deadline is None else time.monotonic() + body.deadline,
        previews=previews,
    )


def check_limits(n: int, steps: int | None, info: ModelInfo, settings: Settings) -> None:
    """Check a request's size before anything is allocated.

    Raises:
        HTTPException: 400, one of the limits is passed.
    """
    if n > settings.max_samples:
        raise refusal(400, "too_large", f"n is {n}; this server draws at most {settings.max_samples} samples a request.", param="n")
    steps = info.steps if steps is None else steps
    if steps > settings.max_steps:
        message = f"num_inference_steps is {steps}; this server takes at most {settings.max_steps}."
        raise refusal(400, "too_large", message, param="num_inference_steps")
    work = n * math.prod(info.shape) * steps
    if work > settings.max_work:
        message = f"samples x size x steps is {work}; the limit is {settings.max_work}. Ask for fewer samples or steps."
        raise refusal(400, "too_large", message, param="n")


def array_of(field: str, value: Any, wanted: Conditioning, n: int) -> list[np.ndarray]:
    """A conditioning input's value for each of n samples.

    Args:
        field: What errors call it.
        value: Numbers or an array of the input's shape, or with an axis of length n in front.
        wanted: The input.
        n: Number of samples.

    Raises:
        HTTPException: 400, it does not fit.
    """
    shape = tuple(wanted.shape)
    try:
        given = np.asarray(value)
    except (ValueError, OverflowError, RecursionError):
        given = np.array(None)
    kinds = {"b": "b", "i": "iub", "f": "iufb"}["b" if wanted.dtype == "bool" else "i" if wanted.dtype.startswith("int") else "f"]
    if given.dtype.kind not in kinds or not np.isfinite(given).all():
        raise _invalid(field, f"must be finite numbers of type {wanted.dtype}.")
    if given.shape not in (shape, (n, *shape)):
        raise _invalid(field, f"has shape {given.shape}; it must be {shape}, or {(n, *shape)} for each sample.")
    if wanted.classes is not None and ((given < 0) | (given >= wanted.classes) & (given != wanted.null)).any():
        raise _invalid(field, f"must be a class from 0 to {wanted.classes - 1}.")
    if wanted.dtype != "bool" and wanted.dtype.startswith("int"):
        limits = np.iinfo(wanted.dtype)
        if ((given < limits.min) | (given > limits.max)).any():
            raise _invalid(field, f"is out of the range of {wanted.dtype}.")
    with np.errstate(over="ignore"):
        given = given.astype(wanted.dtype)
    if not np.isfinite(given).all():
        raise _invalid(field, f"is out of the range of {wanted.dtype}.")
    return list(given) if given.shape != shape else [given] * n


def label_input(info: ModelInfo) -> Conditioning | None:
    """The input that takes a class, or None."""
    return next((c for c in info.conditioning if c.classes is not None), None)


def _with_label(cond: dict[str, list[np.ndarray]], body: Drawing, info: ModelInfo) -> dict[str, list[np.ndarray]]:
    """Add the class that ``prompt`` or ``class_label`` names."""
    prompt = (body.prompt or "").strip()
    given = body.class_label
    if prompt and given is not None:
        message = "prompt and class_label are both given; this model has no text encoder, so leave the prompt empty."
        raise refusal(400, "invalid_argument", message, param="prompt")
    field = "class_label" if given is not None else "prompt"
    given = prompt or None if given is None else given
    if given is None:
        return cond
    wanted = label_input(info)
    if wanted is None:
        raise refusal(400, "invalid_argument", f"{info.name!r} has no classes; leave {field} empty.", param=field)
    if wanted.name in cond:
        raise _invalid(field, f"and conditioning[{wanted.name!r}] are the same input; give one of them.")
    labels = given if isinstance(given, list) else [given] * body.n
    if len(labels) != body.n:
        raise _invalid(field, f"has {len(labels)} values for {body.n} samples.")
    numbers = [_class(field, label, wanted) for label in labels]
    return {**cond, wanted.name: array_of(field, numbers, wanted, body.n)}


def _class(field: str, label: int | str, wanted: Conditioning) -> int:
    names: Sequence[str] = wanted.class_names or ()
    if isinstance(label, str) and label in names:
        return names.index(label)
    if isinstance(label, str) and label.isascii() and label.isdigit() and len(label) < 10:
        label = int(label)
    if isinstance(label, str):
        known = suggest(label, names) if names else f" Give a number from 0 to {(wanted.classes or 1) - 1}."
        raise _invalid(field, f"is {label!r}, which is no class of this model.{known}")
    if not 0 <= label < (wanted.classes or 0):
        raise _invalid(field, f"is {label}; it must be a class from 0 to {(wanted.classes or 1) - 1}.")
    return label


def _conditioning(field: str, given: Mapping[str, Any] | None, info: ModelInfo, n: int) -> dict[str, list[np.ndarray]]:
    inputs = {c.name: c for c in info.conditioning}
    for name in given or {}:
        if name not in inputs:
            raise _invalid(f"{field}[{name!r}]", f"is no input of {info.name!r}.{suggest(name, inputs)}")
    return {name: array_of(f"{field}[{name!r}]", value, inputs[name], n) for name, value in (given or {}).items()}


def _of(cond: Mapping[str, list[np.ndarray]], i: int) -> dict[str, np.ndarray] | None:
    return {name: values[i] for name, values in cond.items()} or None


def _invalid(field: str, rest: str) -> Exception:
    return refusal(400, "invalid_argument", f"{field} {rest}", param=field.partition("[")[0])
