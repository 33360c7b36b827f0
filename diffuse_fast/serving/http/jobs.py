"""``/v1/jobs``: requests that outlive their connection."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from fastapi import APIRouter, Depends, Request, Response
from fastapi.sse import EventSourceResponse, ServerSentEvent

from ..job import Admitted, Failed, Finished, Preview
from .bodies import Drawing
from .compose import job_of
from .generations import RESPONSES, note
from .pictures import encoded, require_images
from .refusals import error_object, json_response, of_failure, refusal
from .rendering import failure, images
from .runs import FOREVER, Run
from .service import Service


def router(service: Service) -> APIRouter:
    """The routes."""
    routes = APIRouter(tags=["jobs"])

    async def found(job: str, request: Request) -> Run:
        run = service.jobs.get((request.state.owner, job))
        if run is None:
            raise refusal(
                404, "job_not_found", f"there is no job {job[:100]!r}; finished jobs are kept for a while only.", param="job"
            )
        return run

    depends = Depends(found)  # before the response starts, so that an unknown job is 404 also where the answer is a stream

    @routes.post("/v1/jobs", status_code=202, responses=RESPONSES)
    async def create(body: Drawing, request: Request) -> Response:
        """Queue a job and return at once."""
        info = service.model(body.model)
        require_images(info)

        def start(_: float) -> Run:
            return service.submit(job_of(body, info, service.settings, previews=body.partial_images), FOREVER)

        run = await service.once.run(request, start, FOREVER)
        service.jobs.put((request.state.owner, run.job.id), run)
        note(request, run)
        return json_response(await _state(run, service), 202, {"Location": f"/v1/jobs/{run.job.id}"})

    @routes.get("/v1/jobs")
    async def own(request: Request) -> Response:
        """The jobs of this API key, without their images."""
        runs = [run for key, run in service.jobs.items() if key[0] == request.state.owner]
        return json_response({"object": "list", "data": [_summary(run) for run in runs]})

    @routes.get("/v1/jobs/{job}", responses={404: {"description": "No such job"}})
    async def state(run: Run = depends) -> Response:
        """A job, with its images once it has completed."""
        return json_response(await _state(run, service))

    @routes.post("/v1/jobs/{job}/cancel", responses={404: {"description": "No such job"}})
    async def cancel(run: Run = depends) -> Response:
        """End a job within one step. It stays readable."""
        run.cancel()
        return json_response(_summary(run))

    @routes.delete("/v1/jobs/{job}", status_code=204, responses={404: {"description": "No such job"}})
    async def delete(request: Request, run: Run = depends) -> Response:
        """End a job and forget it."""
        run.cancel()
        service.jobs.remove((request.state.owner, run.job.id))
        return Response(status_code=204)

    @routes.get("/v1/jobs/{job}/events", response_class=EventSourceResponse, responses={404: {"description": "No such job"}})
    async def progress(run: Run = depends) -> AsyncIterator[ServerSentEvent]:
        """What happens to a job, from its beginning: admitted, preview, finished, failed; at the end ``done`` with its state."""
        info = service.workers.models[run.job.model]
        async for event in run.follow():
            if isinstance(event, Admitted):
                yield ServerSentEvent(event="admitted", data={"index": event.sample})
            elif isinstance(event, Preview):
                data = {"index": event.sample, "partial_image_index": event.number, "step": event.step, "steps": event.steps}
                yield ServerSentEvent(event="preview", data={**data, "b64_json": await encoded(event.x, info, None)})
            elif isinstance(event, Finished):
                yield ServerSentEvent(event="finished", data={"index": event.sample, "steps": event.steps})
            elif isinstance(event, Failed):
                yield ServerSentEvent(event="failed", data={"index": event.sample, "error": error_object(of_failure(event))})
        yield ServerSentEvent(event="done", data=_summary(run))

    return routes


def _summary(run: Run) -> dict[str, Any]:
    job = run.job
    finished = sum(isinstance(event, Finished) for event in run.events)
    out = {"id": job.id, "object": "job", "created": run.created, "model": job.model, "status": _status(run)}
    return {**out, "samples": len(job.samples), "finished": finished, "estimated_seconds": round(run.ticket.estimate, 3)}


def _status(run: Run) -> str:
    if run.cancelled and (not run.done or any(isinstance(end, Failed) for end in run.outcomes())):
        return "cancelled"
    if run.done:
        return "completed" if failure(run) is None else "failed"
    return "running" if any(isinstance(event, Admitted) for event in run.events) else "queued"


async def _state(run: Run, service: Service) -> dict[str, Any]:
    out = _summary(run)
    if out["status"] == "completed":
        out["result"] = await images(run, service.workers.models[run.job.model])
    elif out["status"] == "failed":
        failed = failure(run)
        out["error"] = failed and error_object(of_failure(failed))
    return out
