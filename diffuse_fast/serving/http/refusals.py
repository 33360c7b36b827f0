"""Errors as responses: which status an error has, and its body in the form of the route's protocol."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from fastapi import HTTPException, Response

from ...errors import (
    ArgumentError,
    ArgumentTypeError,
    DiffuseFastError,
    DrainingError,
    PlanError,
    QueueFullError,
    UnknownModelError,
)
from ..job import Failed

RETRY = 2.0  # seconds, where nothing better is known

_TYPES = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 429: "rate_limit_error"}
_KINDS = {  # of Failed: status and code
    "non_finite": (422, "non_finite"),
    "argument": (400, "invalid_argument"),
    "network": (500, "network_error"),
    "deadline": (504, "deadline_exceeded"),
    "worker": (503, "worker_lost"),
}


def refusal(status: int, code: str, message: str, *, param: str | None = None, retry_after: float | None = None) -> HTTPException:
    """An exception that :func:`error_response` answers.

    Args:
        status: The status.
        code: A short word for programs.
        message: What was given, what is allowed, what to do.
        param: The field of the body that is wrong.
        retry_after: Seconds after which another try makes sense; rounded up, at least 1.
    """
    headers = None if retry_after is None else {"Retry-After": str(max(1, math.ceil(retry_after)))}
    return HTTPException(status, {"code": code, "message": message, "param": param}, headers)


def of_error(error: DiffuseFastError) -> HTTPException:
    """The refusal for an error of the library that was raised before anything was queued."""
    if isinstance(error, UnknownModelError):
        return refusal(404, "model_not_found", str(error), param="model")
    if isinstance(error, QueueFullError):
        return refusal(429, "queue_full", str(error), retry_after=error.retry_after)
    if isinstance(error, DrainingError):
        return refusal(503, "unavailable", str(error), retry_after=RETRY)
    if isinstance(error, ArgumentError | ArgumentTypeError | PlanError):
        return refusal(400, "invalid_argument", str(error))
    return refusal(500, "internal_error", "the server failed; its log has the details under this X-Request-Id.")


def of_failure(failure: Failed) -> HTTPException:
    """The refusal for a sample that failed while it ran."""
    status, code = _KINDS[failure.kind]
    return refusal(status, code, failure.message, retry_after=RETRY if status == 503 else None)


def code_of(error: HTTPException) -> str:
    """The code of an error that :func:`refusal` made."""
    detail: Any = error.detail  # declared as text
    return detail["code"]


def error_object(error: HTTPException) -> dict[str, Any]:
    """The error as OpenAI's clients expect it: message, type, param, code."""
    detail = error.detail if isinstance(error.detail, Mapping) else {"code": "http_error", "message": str(error.detail)}
    kind = _TYPES.get(error.status_code, "invalid_request_error" if error.status_code < 500 else "server_error")
    return {"message": detail["message"], "type": kind, "param": detail.get("param"), "code": detail["code"]}


def error_response(path: str, error: HTTPException) -> Response:
    """The response: ``{"error": TEXT}`` for the Open Inference Protocol, ``{"error": {...}}`` elsewhere."""
    found = error_object(error)
    body = {"error": found["message"], "code": found["code"]} if path.startswith("/v2") else {"error": found}
    return json_response(body, error.status_code, error.headers)


def json_response(content: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A JSON response in ASCII: text of a client may hold half a surrogate pair, which UTF-8 cannot."""
    return Response(json.dumps(content, allow_nan=False), status, headers, "application/json")
