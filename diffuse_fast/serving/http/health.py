"""``/health`` and ``/metrics``."""

from __future__ import annotations

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST

from .refusals import json_response
from .service import Service


def router(service: Service) -> APIRouter:
    """The routes."""
    routes = APIRouter(tags=["operation"])

    @routes.get("/health", responses={503: {"description": "Warming up or stopping"}})
    async def health() -> Response:
        """Whether requests are taken: 200, or 503 while the workers warm up or stop."""
        ready = service.workers.ready
        return json_response({"status": "ready" if ready else "unavailable"}, 200 if ready else 503)

    @routes.get("/metrics")
    async def metrics() -> Response:
        """Metrics in Prometheus' text format."""
        return Response(service.metrics.text(), media_type=CONTENT_TYPE_LATEST)

    return routes
