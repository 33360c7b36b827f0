"""Open Inference Protocol v2: samples as tensors, for clients of Triton and KServe."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Any

import numpy as np
from fastapi import APIRouter, Request, Response
from pydantic import ValidationError

from ... import __version__
from ..job import Failed, Finished, Job
from . import tensors
from .bodies import Drawing
from .compose import job_of
from .generations import RESPONSES, note, settle
from .pictures import plan, recipe
from .refusals import json_response, of_failure, refusal
from .runs import Run
from .service import Service

if TYPE_CHECKING:
    from ..workers import ModelInfo

SAMPLE, SEED, INDEX = "sample", "seed", "index"
# Parameters of a request that say what to draw; any other is an option of the solver.
_FIELDS = {"n": "n", "seed": "seed", "steps": "num_inference_steps", "solver": "solver", "guidance_scale": "guidance_scale"}
_FIELDS |= {"priority": "priority", "deadline": "deadline"}


def router(service: Service) -> APIRouter:
    """The routes."""
    routes = APIRouter(tags=["tensors"])

    @routes.get("/v2")
    async def server() -> Response:
        """What this server is."""
        return json_response({"name": "diffuse_fast", "version": __version__, "extensions": ["binary_tensor_data"]})

    @routes.get("/v2/health/live")
    async def live() -> Response:
        """200 as long as the process answers."""
        return json_response({"live": True})

    @routes.get("/v2/health/ready", responses={503: {"description": "Warming up or stopping"}})
    async def ready() -> Response:
        """200 if requests are taken, else 503."""
        return json_response({"ready": service.workers.ready}, 200 if service.workers.ready else 503)

    @routes.get("/v2/models/{model}", responses={404: {"description": "Unknown model"}})
    async def metadata(model: str) -> Response:
        """The inputs and outputs of a model. Every input may be left out."""
        return json_response(_metadata(service.model(model)))

    @routes.get("/v2/models/{model}/ready", responses={404: {"description": "Unknown model"}, 503: {"description": "Not ready"}})
    async def model_ready(model: str) -> Response:
        """200 if the model takes requests, else 503."""
        info, is_ready = service.model(model), service.workers.ready
        return json_response({"name": info.name, "ready": is_ready}, 200 if is_ready else 503)

    # The body is read here: it is JSON, or JSON and bytes.
    schema = {"requestBody": {"content": {"application/json": {"schema": tensors.InferBody.model_json_schema()}}}}
    answers: dict[int | str, Any] = {
        200: {"description": "The samples", "content": {"application/json": {}, "application/octet-stream": {}}}
    }

    @routes.post(
        "/v2/models/{model}/infer",
        max_body_size=service.settings.max_tensor_body,
        openapi_extra=schema,
        responses={**answers, **RESPONSES},
    )
    async def infer(model: str, request: Request) -> Response:
        """Draw samples.

        Inputs, all optional: ``seed`` and ``index`` (one per sample), and the model's conditioning inputs with a batch axis.
        Parameters: ``n``, ``seed``, ``steps``, ``solver``, ``guidance_scale``, ``priority``, ``deadline`` in seconds,
        ``timeout`` in microseconds, and options of the solver.
        """
        info = service.model(model)
        body, inputs = tensors.read(await request.body(), request.headers.get(tensors.HEADER))
        binary = _wanted(body)

        def start(linger: float) -> Run:
            return service.submit(_job(body.parameters, inputs, info, service), linger)

        run = await service.once.run(request, start, service.settings.linger)
        note(request, run)
        await settle(request, run)
        ends = run.outcomes()
        for end in ends:
            if isinstance(end, Failed):  # a tensor has no place for a missing sample
                raise of_failure(end)
        content, headers = tensors.write(*_answer(run, info, ends, body.id, binary))
        return Response(content, 200, headers)

    return routes


def _metadata(info: ModelInfo) -> dict[str, Any]:
    inputs = [{"name": name, "datatype": "UINT64", "shape": [-1]} for name in (SEED, INDEX)]
    for c in info.conditioning:
        inputs.append({"name": c.name, "datatype": tensors.datatype(c.dtype), "shape": [-1, *c.shape]})
    outputs = [{"name": SAMPLE, "datatype": "FP32", "shape": [-1, *info.shape]}]
    outputs += [{"name": name, "datatype": "UINT64", "shape": [-1]} for name in (SEED, INDEX)]
    return {"name": info.name, "versions": [], "platform": "diffuse_fast", "inputs": inputs, "outputs": outputs}


def _wanted(body: tensors.InferBody) -> dict[str, bool]:
    """The outputs that are asked for, and whether as bytes."""
    default = body.parameters.get("binary_data_output") is True
    if not body.outputs:
        return dict.fromkeys((SAMPLE, SEED, INDEX), default)
    for wanted in body.outputs:
        if wanted.name not in (SAMPLE, SEED, INDEX):
            raise refusal(400, "invalid_argument", f"there is no output {wanted.name!r}; known are {SAMPLE}, {SEED} and {INDEX}.")
    return {wanted.name: wanted.parameters.get("binary_data", default) is True for wanted in body.outputs}


def _job(parameters: dict[str, Any], inputs: dict[str, np.ndarray], info: ModelInfo, service: Service) -> Job:
    fields: dict[str, Any] = {"options": {}}
    for name, value in parameters.items():
        if name == "timeout":
            fields["deadline"] = value / 1e6 if isinstance(value, int | float) else value
        elif name in _FIELDS:
            fields[_FIELDS[name]] = value
        elif name != "binary_data_output":
            fields["options"][name] = value
    if any(value.ndim == 0 for value in inputs.values()):
        raise refusal(400, "invalid_argument", "an input has no batch axis.")
    lengths = {name: len(value) for name, value in inputs.items()}
    fields.setdefault("n", max(lengths.values(), default=1))
    for name, length in lengths.items():
        if length != fields["n"]:
            raise refusal(400, "invalid_argument", f"input {name!r} has {length} values for {fields['n']} samples.")
    try:
        drawing = Drawing(**fields)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise refusal(400, "invalid_argument", f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    keys = {name: _numbers(name, inputs.pop(name)) for name in (SEED, INDEX) if name in inputs}
    drawing.conditioning = inputs
    job = job_of(drawing, info, service.settings)
    if not keys:
        return job
    seeds = keys.get(SEED) or [sample.seed for sample in job.samples]
    indices = keys.get(INDEX) or [0] * len(seeds)  # a list of seeds gives each its index 0
    samples = (dataclasses.replace(s, seed=seed, index=i) for s, seed, i in zip(job.samples, seeds, indices, strict=True))
    return dataclasses.replace(job, samples=tuple(samples))


def _numbers(name: str, value: np.ndarray) -> list[int]:
    if value.ndim != 1 or value.dtype.kind not in "iu" or (value < 0).any():
        raise refusal(400, "invalid_argument", f"input {name!r} must be one integer of at least 0 per sample.")
    return [int(v) for v in value]


def _answer(
    run: Run, info: ModelInfo, ends: list[Finished | Failed], number: str, binary: dict[str, bool]
) -> tuple[dict[str, Any], dict[str, np.ndarray], dict[str, bool]]:
    finished = [end for end in ends if isinstance(end, Finished)]
    every: dict[str, np.ndarray] = {
        SAMPLE: np.stack([end.x for end in finished]).astype(np.float32, copy=False),
        SEED: np.array([s.seed for s in run.job.samples], np.uint64),
        INDEX: np.array([s.index for s in run.job.samples], np.uint64),
    }
    said = {"model_sha256": info.checksum, "recipe": json.dumps(recipe(run.job, finished[0])), "plan": plan(finished[0])}
    fields = {"model_name": info.name, "parameters": said, **({"id": number} if number else {})}
    return fields, {name: every[name] for name in binary}, binary
