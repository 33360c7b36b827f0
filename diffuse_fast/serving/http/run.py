"""Run the server in this process until a signal stops it."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import signal
import socket
from collections.abc import Callable, Iterator
from types import FrameType
from typing import TYPE_CHECKING

import uvicorn

from ...errors import DiffuseFastError, StartError
from .app import create_app
from .log import LOG
from .settings import Settings

if TYPE_CHECKING:
    from ..workers import Workers


async def run(
    workers: Workers, settings: Settings, *, host: str, port: int, drain: float, started: Callable[[str], None] = lambda url: None
) -> None:
    """Listen, start the workers, and serve until SIGTERM or SIGINT.

    While the workers warm up, ``/health`` answers 503. A signal closes the socket and refuses new requests; what runs may end
    within ``drain`` seconds. A second signal stops at once. SIGHUP reads the models' files again; no request fails by that.

    Args:
        workers: The workers, not started.
        settings: Limits and keys.
        host, port: Where to listen; port 0 takes a free one.
        drain: Seconds.
        started: Called with the address when the workers are warm.

    Raises:
        StartError: the address is taken, or a worker does not become ready.
    """
    listener = listen(host, port)
    url = f"http://{f'[{host}]' if ':' in host else host}:{listener.getsockname()[1]}"
    stopping = asyncio.Event()
    config = uvicorn.Config(
        create_app(workers, settings),
        log_config=None,
        access_log=False,
        lifespan="on",  # FastAPI sets up its exporter of OpenTelemetry there, if the environment names one
        server_header=False,
        timeout_graceful_shutdown=max(1, round(drain)),
    )
    server = _Server(config, stopping.set)
    with contextlib.closing(listener):
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        starting = asyncio.create_task(workers.start())
        stopped = asyncio.create_task(stopping.wait())
        left = 0.0
        try:
            await asyncio.wait((starting, stopped, serving), return_when=asyncio.FIRST_COMPLETED)
            if starting.done():
                await starting
                started(url)
                with _reloading(workers):
                    await asyncio.wait((stopped, serving), return_when=asyncio.FIRST_COMPLETED)
                left = drain
        finally:
            server.should_exit = True
            for task in (starting, stopped):
                task.cancel()
            ended = asyncio.create_task(workers.stop(left))
            await asyncio.gather(serving, ended)


@contextlib.contextmanager
def _reloading(workers: Workers) -> Iterator[None]:
    """Reload the models at SIGHUP, one after the other: both networks of a model are in memory for a moment."""
    tasks: set[asyncio.Task[None]] = set()

    async def reload() -> None:
        for name in workers.models:
            try:
                await workers.reload(name)
                LOG.info("model %r was reloaded", name)
            except DiffuseFastError as error:
                LOG.error("model %r stays as it was: %s", name, error)

    def on_signal() -> None:
        task = asyncio.create_task(reload())
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGHUP, on_signal)
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGHUP)
        for task in tasks:
            task.cancel()


def listen(host: str, port: int) -> socket.socket:
    """A listening socket.

    Raises:
        StartError: the address cannot be used.
    """
    # With the protocol said: asyncio switches Nagle's algorithm off only where it is, and each answer would wait for 40 ms.
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(2048)
        return listener
    except (OSError, OverflowError) as error:
        listener.close()
        raise StartError(f"cannot listen on {host}:{port}: {error}. Choose another --host or --port.") from None


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class _Server(uvicorn.Server):
    """Does not raise the signal again at its end, as uvicorn does, which would kill the process before the workers have ended.

    Args:
        stopping: Called on the event loop at the first signal.
    """

    def __init__(self, config: uvicorn.Config, stopping: Callable[[], None]) -> None:
        super().__init__(config)
        self._stopping = stopping
        self._loop = asyncio.get_running_loop()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self.force_exit = self.should_exit
        self.should_exit = True
        self._loop.call_soon_threadsafe(self._stopping)
