"""The application."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException as AnyHTTPException

from ... import __version__
from . import generations, health, inference, jobs, models, page, sdapi
from .gate import Gate
from .metrics import Metrics
from .once import Once
from .refusals import error_response, refusal
from .runs import Shelf
from .service import Service
from .settings import Settings

if TYPE_CHECKING:
    from ..workers import Workers

_CODES = {404: ("not_found", "there is no such route."), 405: ("method_not_allowed", "this route does not take this method.")}
_CODES |= {413: ("body_too_large", "the body is larger than this server takes.")}


def create_app(workers: Workers, settings: Settings | None = None) -> FastAPI:
    """The ASGI application in front of the workers. It neither starts nor stops them.

    Args:
        workers: The workers.
        settings: Limits and keys.
    """
    settings = Settings() if settings is None else settings
    shelves = [Shelf(settings.keep_seconds, settings.keep_bytes // 2) for _ in range(2)]
    service = Service(workers, settings, Metrics(workers), shelves[0], Once(shelves[1]))
    app = FastAPI(
        title="diffuse_fast",
        version=__version__,
        summary="Samples of diffusion models, batched by the step.",
        docs_url=None,  # these pages load scripts from other sites
        redoc_url=None,
        max_body_size=settings.max_body,
    )
    app.add_middleware(Gate, service=service)
    app.add_exception_handler(AnyHTTPException, _on_http_error)
    app.add_exception_handler(RequestValidationError, _on_invalid_body)
    for module in (generations, models, jobs, inference, sdapi, health, page):
        app.include_router(module.router(service))
    return app


async def _on_http_error(request: Request, error: Any) -> Response:
    if not isinstance(error.detail, dict):  # of the framework
        code, message = _CODES.get(error.status_code, ("http_error", str(error.detail)))
        error = HTTPException(error.status_code, {"code": code, "message": message}, error.headers)
    request.state.notes.setdefault("refused", error.detail["code"])
    return error_response(request.url.path, error)


async def _on_invalid_body(request: Request, error: Any) -> Response:
    """Say which field is wrong and why, and not what was in it."""
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"] if part != "body")
    more = "" if len(error.errors()) == 1 else f" ({len(error.errors())} fields are wrong)"
    message = f"{place or 'the body'}: {first['msg']}{more}"
    request.state.notes.setdefault("refused", "invalid_body")
    return error_response(request.url.path, refusal(422, "invalid_body", message, param=place[:200] or None))
