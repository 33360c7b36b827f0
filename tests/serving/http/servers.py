"""A real uvicorn on 127.0.0.1, in a thread, in front of workers that the tests choose."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx
import uvicorn

from diffuse_fast.serving.http import Settings, create_app
from diffuse_fast.serving.http.run import listen
from tests.serving.http.fake_workers import FakeWorkers


@dataclasses.dataclass
class Server:
    """A running server: its address, the workers, and its event loop."""

    url: str
    workers: Any
    loop: asyncio.AbstractEventLoop

    def client(self, **options: Any) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=30, **options)

    def metric(self, line: str) -> float:
        """The value of a metric, 0 where there is none yet."""
        text = httpx.get(f"{self.url}/metrics").text
        found = [float(row.rsplit(" ", 1)[1]) for row in text.splitlines() if row.rsplit(" ", 1)[0] == line]
        return found[0] if found else 0.0


def until(condition: Any, seconds: float = 20.0) -> None:
    """Wait for a condition; fail if it does not come true."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "the condition did not come true"
        time.sleep(0.005)


@contextlib.contextmanager
def serving(settings: Settings | None = None, **fake: Any) -> Iterator[Server]:
    """A server with fake workers."""
    ready = threading.Event()
    found: dict[str, Any] = {}

    async def run() -> None:
        workers = FakeWorkers(**fake)
        config = uvicorn.Config(create_app(workers, settings), log_config=None, lifespan="off", timeout_graceful_shutdown=5)
        server = uvicorn.Server(config)
        found.update(server=server, workers=workers, loop=asyncio.get_running_loop())
        ready.set()
        await server.serve(sockets=[listener])

    listener = listen("127.0.0.1", 0)
    port = listener.getsockname()[1]
    thread = threading.Thread(target=asyncio.run, args=(run(),))
    thread.start()
    try:
        assert ready.wait(30)
        until(lambda: found["server"].started)
        yield Server(f"http://127.0.0.1:{port}", found["workers"], found["loop"])
    finally:
        found["server"].should_exit = True
        thread.join(30)
    assert not thread.is_alive()
