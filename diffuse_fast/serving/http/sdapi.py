"""``/sdapi/v1/txt2img``: the request of AUTOMATIC1111's web UI, as far as these models have its parts."""

from __future__ import annotations

import json

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from .bodies import Drawing, Finite, Option
from .compose import job_of
from .generations import RESPONSES, note, settle
from .pictures import require_images
from .refusals import json_response, refusal
from .rendering import images
from .runs import Run
from .service import Service

# What that UI calls the solvers; any other name is taken for one of ours.
SOLVERS = {
    "Euler": "euler",
    "Euler a": "euler_ancestral",
    "Heun": "heun",
    "LMS": "lms",
    "DPM2": "dpm_2",
    "DPM++ 2M": "dpmpp_2m",
    "DPM++ 2M SDE": "dpmpp_2m_sde",
    "DPM++ 3M SDE": "dpmpp_3m_sde",
    "DDIM": "ddim",
    "DDPM": "ddpm",
    "PLMS": "pndm",
    "UniPC": "unipc",
    "LCM": "lcm",
}
SPACINGS = ("Karras", "Exponential")


class Txt2ImgBody(BaseModel):
    """The fields that are read. Others are ignored, size included: a model has one."""

    model_config = ConfigDict(extra="ignore")

    prompt: str = Field(default="", max_length=10_000)
    negative_prompt: str | None = Field(default=None, max_length=10_000)
    seed: int = Field(default=-1, ge=-1, lt=1 << 64)
    steps: int = Field(default=20, ge=1)
    cfg_scale: Finite | None = None
    sampler_name: str | None = Field(default=None, max_length=100)
    scheduler: str | None = Field(default=None, max_length=100)
    batch_size: int = Field(default=1, ge=1, le=1 << 20)
    n_iter: int = Field(default=1, ge=1, le=1 << 20)


def router(service: Service) -> APIRouter:
    """The route."""
    routes = APIRouter(tags=["images"])

    @routes.post("/sdapi/v1/txt2img", responses=RESPONSES)
    async def txt2img(body: Txt2ImgBody, request: Request) -> Response:
        """Draw images with the first model; the prompt is the name or number of a class, or empty."""
        if (body.negative_prompt or "").strip():
            raise refusal(400, "unsupported", "negative_prompt needs a text encoder; leave it empty.", param="negative_prompt")
        info = service.model(None)
        require_images(info)
        drawing = _drawing(body)

        def start(linger: float) -> Run:
            return service.submit(job_of(drawing, info, service.settings), linger)

        run = await service.once.run(request, start, service.settings.linger)
        note(request, run)
        await settle(request, run)
        drawn = await images(run, info)
        width, height = map(int, drawn["size"].split("x"))
        kept = [image for image in drawn["data"] if "b64_json" in image]
        info_text = {
            "seed": kept[0]["seed"],
            "all_seeds": [image["seed"] for image in kept],
            "width": width,
            "height": height,
            "sd_model_name": info.name,
            "sd_model_hash": info.checksum,
            "recipe": kept[0]["recipe"],
        }
        pictures = [image["b64_json"] for image in kept]
        return json_response({"images": pictures, "parameters": body.model_dump(), "info": json.dumps(info_text)})

    return routes


def _drawing(body: Txt2ImgBody) -> Drawing:
    name = body.sampler_name
    options: dict[str, Option] = {}
    for spacing in SPACINGS:
        if name is not None and name.endswith(f" {spacing}"):
            name, options["timestep_spacing"] = name.removesuffix(f" {spacing}"), spacing.lower()
        if (body.scheduler or "").lower() == spacing.lower():
            options["timestep_spacing"] = spacing.lower()
    return Drawing(
        prompt=body.prompt,
        n=body.batch_size * body.n_iter,
        seed=None if body.seed < 0 else body.seed,
        num_inference_steps=body.steps,
        guidance_scale=body.cfg_scale,
        solver=None if name is None else SOLVERS.get(name, name),
        options=options,
    )
