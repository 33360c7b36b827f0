"""``POST /v1/images/generations``: OpenAI's route, as JSON or as a stream."""

from __future__ import annotations

import base64
from typing import Any

from fastapi import APIRouter, Request, Response
from opentelemetry import trace

from .bodies import GenerationBody
from .compose import job_of
from .pictures import require_images
from .refusals import json_response, of_failure, refusal
from .rendering import events, failure, images
from .runs import Run
from .service import Service
from .waiting import EventStream, wait

_EVENTS = {"type": "string", "description": "Events image_generation.partial_image, image_generation.completed, error."}
_CONTENT: dict[str, Any] = {"application/json": {}, "image/png": {}, "text/event-stream": {"schema": _EVENTS}}
_ERRORS = {
    400: "Wrong argument",
    401: "No valid API key",
    404: "Unknown model",
    408: "The body came too slowly",
    413: "Body too large",
    422: "Wrong body, or a sample is not finite",
    429: "Queue full, or too many requests",
    503: "Stopping, or the worker died",
    504: "Past the deadline",
}
RESPONSES: dict[int | str, dict] = {status: {"description": text} for status, text in _ERRORS.items()}


def router(service: Service) -> APIRouter:
    """The route."""
    routes = APIRouter(tags=["images"])

    @routes.post("/v1/images/generations", responses={200: {"description": "The images", "content": _CONTENT}, **RESPONSES})
    async def generate(body: GenerationBody, request: Request) -> Response:
        """Draw images.

        With ``stream`` the answer is server-sent events, with ``partial_images`` intermediate images per sample. With
        ``Accept: image/png`` it is the file of a single image.
        """
        info = service.model(body.model)
        require_images(info)
        as_png = "image/png" in request.headers.get("accept", "")
        if as_png and (body.stream or body.n != 1):
            raise refusal(400, "invalid_argument", "Accept: image/png returns one image; it needs n = 1 and no stream.", param="n")
        previews = body.partial_images if body.stream else 0

        def start(linger: float) -> Run:
            return service.submit(job_of(body, info, service.settings, previews=previews), linger)

        run = await service.once.run(request, start, service.settings.linger)
        note(request, run)
        if body.stream:
            return EventStream(run, events(run, info))
        await settle(request, run)
        if as_png:
            (image,) = (await images(run, info))["data"]
            return Response(base64.b64decode(image["b64_json"]), media_type="image/png", headers={"X-Seed": str(image["seed"])})
        return json_response(await images(run, info))

    return routes


def note(request: Request, run: Run) -> None:
    """Put what a run is into the request's line of the log, and into its span where OpenTelemetry traces requests."""
    job = run.job
    found: dict[str, Any] = {"job": job.id, "model": job.model, "samples": len(job.samples)}
    found |= {"steps": job.steps, "solver": job.solver}
    request.state.notes.update(found)
    span = trace.get_current_span()
    for name, value in found.items():
        if value is not None:
            span.set_attribute(f"diffuse_fast.{name}", value)


async def settle(request: Request, run: Run) -> None:
    """Wait until a run has ended with at least one sample.

    Raises:
        HTTPException: no sample succeeded, or the client has left, who does not see it.
    """
    if not await wait(request, run):
        raise refusal(499, "client_left", "the client closed the connection.")
    if run.cancelled:
        raise refusal(503, "cancelled", "the request was cancelled; try again.", retry_after=1)
    failed = failure(run)
    if failed is not None:
        raise of_failure(failed)
