"""Waiting for a run on behalf of a client that may leave."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from fastapi.responses import StreamingResponse
from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from .runs import Run

PING = 15.0  # seconds between comments in a silent stream, so that proxies keep it open


async def wait(request: Request, run: Run) -> bool:
    """Wait until a run is done, and return True; or return False as soon as the client has left, and leave the run."""
    with run.client():
        left = asyncio.create_task(_left(request.receive))
        ended = asyncio.create_task(run.finished())
        try:
            await asyncio.wait((left, ended), return_when=asyncio.FIRST_COMPLETED)
        finally:
            left.cancel()
            ended.cancel()
    return run.done


class EventStream(StreamingResponse):
    """Server-sent events about a run. The client counts as one of the run's from the first byte to the last.

    Starlette listens for the client's leaving, and ends the stream then.
    """

    def __init__(self, run: Run, chunks: AsyncIterator[bytes], headers: dict[str, str] | None = None) -> None:
        super().__init__(chunks, 200, {**(headers or {}), "X-Accel-Buffering": "no"}, "text/event-stream")
        self._run = run

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._run.client():
            await super().__call__(scope, receive, send)


async def _left(receive: Receive) -> None:
    """Return when the client has closed the connection. The body was read before."""
    while (await receive())["type"] != "http.disconnect":
        pass
