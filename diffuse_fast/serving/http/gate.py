"""What every request passes before its route: a request id, the API key, the rate, the length of the queue, and the log.

Plain ASGI: a refusal here costs no parsing of the body, and the route's ``receive`` still tells when the client leaves.
"""

from __future__ import annotations

import asyncio
import re
import secrets
import time
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from . import keys
from .log import LOG, write
from .rates import Rates
from .refusals import RETRY, code_of, error_response, refusal
from .service import Service

OPEN = frozenset({"/health", "/v2/health/live", "/v2/health/ready"})  # without a key
_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_CREATES = re.compile(r"/v1/images/generations|/v1/jobs|/sdapi/v1/txt2img|/v2/models/[^/]+/infer")


class Gate:
    """The middleware."""

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self._app = app
        self._service = service
        self._rates = Rates(service.settings.rate)
        self._warm = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        headers = Headers(scope=scope)
        given = headers.get("x-request-id", "")
        number = given if _ID.fullmatch(given) else secrets.token_hex(16)
        notes: dict[str, Any] = {"request_id": number}
        scope.setdefault("state", {}).update(request_id=number, owner="", notes=notes)
        status = 0

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                more = MutableHeaders(scope=message)
                more["X-Request-Id"] = number
                more.setdefault("X-Content-Type-Options", "nosniff")
                more.setdefault("Cache-Control", "no-store")
            await send(message)

        try:
            refused = self._refused(scope, headers)
            if refused is not None:
                notes["refused"] = code_of(refused)
                await error_response(scope["path"], refused)(scope, receive, answer)
            else:
                await self._app(scope, _in_time(receive, self._service.settings.body_seconds), answer)
        except Exception:  # a defect, whatever it is: the client gets an answer, and the log the details
            LOG.exception("request %s failed", number)
            if status:
                raise  # the response has begun: the server closes the connection
            error = refusal(500, "internal_error", "the server failed; its log has the details under this X-Request-Id.")
            await error_response(scope["path"], error)(scope, receive, answer)
        finally:
            if "refused" in notes and "job" not in notes and _CREATES.fullmatch(scope["path"]):
                self._service.metrics.rejected(notes["refused"])
            write(scope, status, time.perf_counter() - began, notes)

    def _refused(self, scope: Scope, headers: Headers) -> Any:
        """The refusal, or None."""
        path, method = scope["path"], scope["method"]
        settings = self._service.settings
        if settings.keys and path not in OPEN:
            key = keys.find(settings.keys, headers.get("authorization"))
            if key is None:
                error = refusal(401, "invalid_api_key", "this server needs an API key: send Authorization: Bearer KEY.")
                error.headers = {"WWW-Authenticate": 'Basic realm="diffuse_fast", charset="UTF-8"'}
                return error
            scope["state"]["owner"] = scope["state"]["notes"]["key"] = key.name
        # A browser says where a request comes from. Another site must not spend what this one, or its user's key, may.
        if method not in ("GET", "HEAD") and headers.get("sec-fetch-site") in ("cross-site", "same-site"):
            return refusal(403, "cross_site", "this server takes no requests from pages of other sites.")
        if headers.get("content-encoding", "identity") != "identity":
            return refusal(415, "content_encoding", "this server takes no compressed bodies; leave out Content-Encoding.")
        if method != "POST" or not _CREATES.fullmatch(path):
            return None
        self._warm = self._warm or self._service.workers.ready  # later a worker may be replaced; requests wait for that
        if not self._warm:
            return refusal(503, "unavailable", "the server warms up or stops; try again after Retry-After.", retry_after=RETRY)
        wait = self._rates.wait(scope["state"]["owner"])
        if wait > 0:
            return refusal(429, "rate_limit", "this API key sends too many requests; wait for Retry-After.", retry_after=wait)
        room = self._service.wait_for_room()
        if room is not None and "idempotency-key" not in headers:  # a request with one may join another
            return refusal(429, "queue_full", "the queue is full; try again after Retry-After.", retry_after=room)
        return None


def _in_time(receive: Receive, seconds: float) -> Receive:
    """``receive`` that raises the refusal 408 if the body has not arrived within some seconds. After the body there is no limit."""
    end = time.monotonic() + seconds
    whole = False

    async def receive_in_time() -> Message:
        nonlocal whole
        if whole:
            return await receive()
        try:
            message = await asyncio.wait_for(receive(), end - time.monotonic())
        except TimeoutError:
            raise refusal(408, "body_timeout", f"the body did not arrive within {seconds:g} s.") from None
        whole = message["type"] != "http.request" or not message.get("more_body", False)
        return message

    return receive_in_time
