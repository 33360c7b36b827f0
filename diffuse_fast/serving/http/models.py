"""``/v1/models``: what is served, with all that a client must know to ask for samples."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import time
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Response

from ...errors import DiffuseFastError
from ...schedule import Schedule
from ...solver import SOLVERS, plan
from .refusals import json_response
from .service import Service

if TYPE_CHECKING:
    from ..workers import ModelInfo


def router(service: Service) -> APIRouter:
    """The routes."""
    routes = APIRouter(tags=["models"])
    created = int(time.time())

    @routes.get("/v1/models")
    async def models() -> Response:
        """All models."""
        data = [await asyncio.to_thread(_described, info, created) for info in service.workers.models.values()]
        return json_response({"object": "list", "data": data})

    @routes.get("/v1/models/{model}", responses={404: {"description": "Unknown model"}})
    async def model(model: str) -> Response:
        """One model."""
        return json_response(await asyncio.to_thread(_described, service.model(model), created))

    return routes


@functools.cache
def _solvers(schedule: Schedule, prediction_type: str) -> tuple[str, ...]:
    """The solvers that a model can be drawn with, in the order of ``df.solvers()``."""
    found = []
    for name in SOLVERS:
        if name == "ddim_inverse":  # from data to noise
            continue
        with contextlib.suppress(DiffuseFastError):
            plan(schedule, name, 4, prediction_type=prediction_type)
            found.append(name)
    return tuple(found)


def _described(info: ModelInfo, created: int) -> dict[str, Any]:
    return {
        "id": info.name,
        "object": "model",
        "created": created,
        "owned_by": "diffuse_fast",
        "shape": list(info.shape),
        "value_range": None if info.value_range is None else list(info.value_range),
        "conditioning": [c.to_json(names=True) for c in info.conditioning],
        "prediction_type": info.prediction_type,
        "solvers": list(_solvers(info.schedule, info.prediction_type)),
        "default_solver": info.solver,
        "default_steps": info.steps,
        "sha256": info.checksum,
        "runtime": info.runtime,
        "precision": info.precision,
    }
