"""What clients send to draw images."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Finite = Annotated[float, Field(allow_inf_nan=False)]
Label = Annotated[int, Field(strict=True)] | Annotated[str, Field(max_length=200)]
Seed = Annotated[int, Field(ge=0, lt=1 << 64)]
Option = bool | int | Finite | Annotated[str, Field(max_length=100)] | Annotated[list[Finite], Field(max_length=10_000)]


class Drawing(BaseModel):
    """What to draw: the fields that generations and jobs have in common."""

    model_config = ConfigDict(extra="forbid")

    model: str | None = Field(default=None, description="A name of /v1/models; the first model if it is left out.")
    prompt: str | None = Field(
        default=None,
        max_length=10_000,
        description="For models without a text encoder: the name or number of a class, or empty beside class_label.",
    )
    class_label: Label | list[Label] | None = Field(
        default=None, description="A class by name or number, for all samples or for each."
    )
    conditioning: dict[str, Any] | None = Field(
        default=None,
        description="Conditioning by input name: numbers of the input's shape, for all samples or with an axis for each.",
    )
    negative_conditioning: dict[str, Any] | None = Field(
        default=None, description="The same for the negative condition of guidance."
    )
    n: int = Field(default=1, ge=1, description="Number of samples.")
    size: str | None = Field(default=None, max_length=40, description="WIDTHxHEIGHT or auto; a model has one size.")
    seed: Seed | None = Field(default=None, description="The samples are seed/0 to seed/n-1; a fresh seed if it is left out.")
    num_inference_steps: int | None = Field(default=None, ge=1, description="Steps of the solver.")
    guidance_scale: Finite | None = Field(default=None, description="Classifier-free guidance; 1 is none.")
    solver: str | None = Field(default=None, max_length=100, description="A solver; `diffuse-fast solvers` lists them.")
    options: dict[str, Option] = Field(
        default={}, description="Options of the solver and the grid, such as eta or timestep_spacing."
    )
    priority: int = Field(default=0, ge=-10, le=10, description="Higher goes first.")
    deadline: float | None = Field(
        default=None, gt=0, le=86_400, description="Seconds after which the answer is of no use: it is 504 then, and drawing stops."
    )
    partial_images: int = Field(default=0, ge=0, le=3, description="Intermediate images per sample, in a stream.")

    # Part of OpenAI's request. A model here has one way to draw, so they change nothing.
    response_format: Literal["b64_json", "url"] = "b64_json"
    output_format: Literal["png"] = "png"
    quality: str | None = Field(default=None, deprecated=True)
    style: str | None = Field(default=None, deprecated=True)
    background: str | None = Field(default=None, deprecated=True)
    moderation: str | None = Field(default=None, deprecated=True)
    output_compression: int | None = Field(default=None, deprecated=True)
    user: str | None = Field(default=None, deprecated=True)
    safety_identifier: str | None = Field(default=None, deprecated=True)


class GenerationBody(Drawing):
    """The body of ``POST /v1/images/generations``."""

    stream: bool = Field(default=False, description="Answer with server-sent events.")
