"""What a run looks like to a client: the fields of an image, a response, and the events of a stream."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from fastapi.sse import KEEPALIVE_COMMENT, format_sse_event

from ..job import Cancelled, Failed, Finished, Preview
from .pictures import encoded, plan, recipe, size
from .refusals import error_object, of_failure
from .runs import Run
from .waiting import PING

if TYPE_CHECKING:
    from ..workers import ModelInfo

_NO_TOKENS: dict[str, Any] = {
    "input_tokens": 0,
    "output_tokens": 0,
    "total_tokens": 0,
    "input_tokens_details": {"image_tokens": 0, "text_tokens": 0},
}


async def images(run: Run, info: ModelInfo) -> dict[str, Any]:
    """A finished run in the shape of OpenAI's ``ImagesResponse``. A sample that failed has ``error`` in place of ``b64_json``."""
    ends = run.outcomes()
    data = [await _image(run, info, end, i) for i, end in enumerate(ends)]
    return {
        "id": run.job.id,
        "created": run.created,
        "model": info.name,
        "model_sha256": info.checksum,
        "plan": next((plan(end) for end in ends if isinstance(end, Finished)), None),
        "output_format": "png",
        "size": size(info),
        "data": data,
        "usage": _NO_TOKENS,
    }


def failure(run: Run) -> Failed | None:
    """The first failure, if no sample of a finished run succeeded."""
    ends = run.outcomes()
    return None if any(isinstance(end, Finished) for end in ends) else next(end for end in ends if isinstance(end, Failed))


async def events(run: Run, info: ModelInfo) -> AsyncIterator[bytes]:
    """A run as the server-sent events of OpenAI's images, as they happen. Clients stop at an error, so errors come last."""
    failures: list[Failed] = []
    common = {"output_format": "png", "size": size(info), "background": "opaque", "quality": "auto", "created_at": run.created}
    async for event in run.follow(PING):
        if event is None:
            yield KEEPALIVE_COMMENT
        elif isinstance(event, Preview):
            kind = "image_generation.partial_image"
            picture = await encoded(event.x, info, None)
            place = {"partial_image_index": event.number, "index": event.sample, "step": event.step, "steps": event.steps}
            yield sse(kind, {"type": kind, "b64_json": picture, **place, **common})
        elif isinstance(event, Finished):
            kind = "image_generation.completed"
            fields: dict[str, Any] = {"index": event.sample, "model": info.name, "model_sha256": info.checksum}
            fields |= {"plan": plan(event), "usage": _NO_TOKENS}
            yield sse(kind, {"type": kind, **await _image(run, info, event, event.sample), **fields, **common})
        elif isinstance(event, Failed):
            failures.append(event)
        elif isinstance(event, Cancelled):
            error = {"message": "the request was cancelled.", "type": "invalid_request_error", "param": None, "code": "cancelled"}
            yield sse("error", {"type": "error", "error": error})
    for failed in failures:
        yield sse("error", {"type": "error", "index": failed.sample, "error": error_object(of_failure(failed))})


def sse(event: str, data: Any) -> bytes:
    """A server-sent event with JSON data."""
    return format_sse_event(event=event, data_str=json.dumps(data, allow_nan=False))


async def _image(run: Run, info: ModelInfo, end: Finished | Failed, i: int) -> dict[str, Any]:
    sample = run.job.samples[i]
    address = {"seed": sample.seed, "seed_index": sample.index}
    if isinstance(end, Failed):
        return {**address, "error": error_object(of_failure(end))}
    how = recipe(run.job, end)
    picture = await encoded(end.x, info, {**how, "plan": plan(end)})
    return {"b64_json": picture, **address, "steps": end.steps, "recipe": how}
