"""The server's life: warming up, draining on SIGTERM, and the errors at its start."""

from __future__ import annotations

import asyncio
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import pytest

from diffuse_fast.errors import StartError
from diffuse_fast.serving.http import Settings
from diffuse_fast.serving.http.run import is_loopback, listen, run
from tests.serving.http.fake_workers import FakeWorkers

ROOT = Path(__file__).parents[3]
SCRIPT = """
import asyncio, sys
from diffuse_fast.serving.http import Settings
from diffuse_fast.serving.http.run import run
from tests.serving.http.fake_workers import FakeWorkers

async def main():
    workers = FakeWorkers(ready=False, warm_seconds=float(sys.argv[2]), step_seconds=0.01)
    say = lambda url: print(url, flush=True)
    await run(workers, Settings(), host="127.0.0.1", port=int(sys.argv[1]), drain=float(sys.argv[3]), started=say)
    print("drained" if workers.running == 0 else "left")

asyncio.run(main())
"""


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return found.getsockname()[1]


def started(port: int, warm: float, drain: float) -> subprocess.Popen:
    command = [sys.executable, "-W", "error", "-c", SCRIPT, str(port), str(warm), str(drain)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_it_warms_up_serves_and_drains():
    port = free_port()
    process = started(port, 1.0, 20.0)
    url = f"http://127.0.0.1:{port}"
    try:
        statuses = []
        while 200 not in statuses:
            try:
                statuses.append(httpx.get(f"{url}/health", timeout=20).status_code)
            except httpx.ConnectError:
                assert process.poll() is None
            time.sleep(0.02)
        assert statuses[0] == 503
        assert process.stdout.readline() == f"{url}\n"
        answers = []

        def ask() -> None:
            answers.append(httpx.post(f"{url}/v1/images/generations", json={"num_inference_steps": 100}, timeout=60))

        asking = threading.Thread(target=ask)
        asking.start()
        while 'diffuse_fast_samples_running{model="digits"} 1.0' not in httpx.get(f"{url}/metrics", timeout=20).text:
            time.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        asking.join(60)
        said, errors = process.communicate(timeout=60)
        assert answers[0].status_code == 200  # it ran for a second after the signal
        assert (process.returncode, said) == (0, "drained\n"), errors
    finally:
        process.kill()
        process.communicate()


def test_a_signal_while_warming_up_ends_it():
    port = free_port()
    process = started(port, 60.0, 20.0)
    try:
        while True:
            try:
                httpx.get(f"http://127.0.0.1:{port}/health", timeout=20)
                break
            except httpx.ConnectError:
                assert process.poll() is None
                time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        said, errors = process.communicate(timeout=60)
        assert (process.returncode, said) == (0, "drained\n"), errors
    finally:
        process.kill()
        process.communicate()


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
