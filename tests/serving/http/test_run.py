"""The server's life: warming up, draining on SIGTERM, and the errors at its start."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator

import httpx
import pytest

from diffuse_fast.errors import StartError
from diffuse_fast.serving.http import Settings
from diffuse_fast.serving.http.run import is_loopback, listen, run
from tests.serving.http.fake_workers import FakeWorkers
from tests.serving.http.servers import until


@contextlib.contextmanager
def asking(client: Callable[[str], None]) -> Iterator[int]:
    """A client in a thread beside the server, which must be in the main thread for its signals. It gets the address."""
    failed: list[BaseException] = []

    def ask() -> None:
        try:
            client(url)
        except BaseException as error:
            failed.append(error)
            os.kill(os.getpid(), signal.SIGINT)

    with socket.create_server(("127.0.0.1", 0)) as found:
        port = found.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    thread = threading.Thread(target=ask)
    thread.start()
    yield port
    thread.join(60)
    assert not thread.is_alive() and not failed, failed


def status(url: str) -> int | None:
    try:
        return httpx.get(f"{url}/health", timeout=20).status_code
    except httpx.ConnectError:
        return None


def test_it_warms_up_serves_and_drains():
    seen, answers, said = [], [], []

    def client(url: str) -> None:
        until(lambda: status(url) is not None)
        seen.append(status(url))
        refused = httpx.post(f"{url}/v1/images/generations", json={})
        assert refused.status_code == 503 and "retry-after" in refused.headers
        until(lambda: status(url) == 200)
        body = {"num_inference_steps": 100}
        request = threading.Thread(target=lambda: answers.append(httpx.post(f"{url}/v1/images/generations", json=body, timeout=60)))
        request.start()
        until(lambda: workers.running == 1)
        os.kill(os.getpid(), signal.SIGTERM)
        request.join(60)

    async def serve(port: int) -> None:
        await run(workers, Settings(), host="127.0.0.1", port=port, drain=20.0, started=said.append)

    workers = FakeWorkers(ready=False, warm_seconds=1.0, step_seconds=0.01)
    with asking(client) as port:
        asyncio.run(serve(port))
    assert seen == [503] and said == [f"http://127.0.0.1:{port}"]
    assert answers[0].status_code == 200 and workers.running == 0  # it ran for a second after the signal


def test_a_signal_while_warming_up_ends_it():
    def client(url: str) -> None:
        until(lambda: status(url) == 503)
        os.kill(os.getpid(), signal.SIGINT)

    workers = FakeWorkers(ready=False, warm_seconds=60.0)
    with asking(client) as port:
        asyncio.run(run(workers, Settings(), host="127.0.0.1", port=port, drain=20.0))
    assert workers.draining


@pytest.mark.parametrize("broken", [False, True])
def test_a_hangup_reads_the_models_again(broken):
    def client(url: str) -> None:
        until(lambda: status(url) == 200)
        os.kill(os.getpid(), signal.SIGHUP)
        until(lambda: workers.reloaded)
        assert httpx.post(f"{url}/v1/images/generations", json={}, timeout=60).status_code == 200
        os.kill(os.getpid(), signal.SIGTERM)

    workers = FakeWorkers(broken_file=broken)
    with asking(client) as port:
        asyncio.run(run(workers, Settings(), host="127.0.0.1", port=port, drain=20.0))
    assert workers.reloaded == ["digits"]


def test_a_worker_that_does_not_start_ends_it():
    async def broken() -> None:
        workers = FakeWorkers(ready=False, broken=True)
        await run(workers, Settings(), host="127.0.0.1", port=0, drain=1)

    with pytest.raises(StartError, match="does not load"):
        asyncio.run(broken())


def test_an_address_in_use_is_an_error():
    with listen("127.0.0.1", 0) as taken, pytest.raises(StartError, match="--port"):
        listen("127.0.0.1", taken.getsockname()[1])
    with pytest.raises(StartError, match="cannot listen"):
        listen("192.0.2.1", 0)  # an address that no machine has


def test_answers_are_sent_at_once():
    """asyncio sets TCP_NODELAY only where a socket says its protocol; without it a small answer waits for 40 ms."""
    with listen("127.0.0.1", 0) as listener:
        assert listener.proto == socket.IPPROTO_TCP


@pytest.mark.parametrize(
    ("host", "found"), [("127.0.0.1", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("::", False)]
)
def test_loopback(host, found):
    assert is_loopback(host) == found
