"""The load tool: its arrivals, its figures, and a run against a server with fake workers."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import socket
import sys
import threading
from collections.abc import Iterator

import numpy as np
import pytest

from diffuse_fast.errors import ArgumentError, LoadError
from diffuse_fast.serving.load import run as load_run
from diffuse_fast.serving.load.connections import Connections
from diffuse_fast.serving.load.local_server import local_server
from diffuse_fast.serving.load.outcomes import BROKEN, LOST, TIMEOUT, Outcome, summary
from diffuse_fast.serving.load.policy import Policy, Turns
from diffuse_fast.serving.load.run import measure
from diffuse_fast.serving.load.trace import GUIDANCE, STEPS, Arrival, poisson

MANY = 40_000


def first(count: int, rate: float = 50.0, seed: int = 3, classes: int | None = 10):
    return list(itertools.islice(poisson(rate, seed, classes=classes), count))


def test_arrivals_are_seeded():
    assert first(500) == first(500)
    assert first(500) != first(500, seed=4)
    slow, fast = first(500, rate=1.0), first(500, rate=8.0)
    assert [a.at for a in fast] == pytest.approx([a.at / 8 for a in slow])
    assert [(a.steps, a.guidance_scale, a.label) for a in fast] == [(a.steps, a.guidance_scale, a.label) for a in slow]


def test_arrivals_are_a_poisson_process():
    """Gaps are exponential and independent; the number per window has its variance equal to its mean. Bounds are 5 sigma."""
    at = np.array([a.at for a in first(MANY)])
    gaps = np.diff(at, prepend=0.0) * 50.0
    assert abs(gaps.mean() - 1) < 5 / MANY**0.5
    assert abs(gaps.var() - 1) < 5 * (8 / MANY) ** 0.5  # the fourth central moment of the exponential distribution is 9
    assert abs(np.corrcoef(gaps[:-1], gaps[1:])[0, 1]) < 5 / MANY**0.5
    quantiles = np.quantile(gaps, [0.1, 0.5, 0.9])
    assert quantiles == pytest.approx(-np.log([0.9, 0.5, 0.1]), rel=0.04)
    counts = np.histogram(at, bins=np.arange(0.0, at[-1], 0.2))[0]
    assert abs(counts.var() / counts.mean() - 1) < 5 * (2 / len(counts)) ** 0.5


def test_the_mix_is_uniform():
    assert len(GUIDANCE) == 8 and GUIDANCE.count(1.0) == 1
    arrivals = first(MANY)
    for values, seen in (
        (STEPS, [a.steps for a in arrivals]),
        (GUIDANCE, [a.guidance_scale for a in arrivals]),
        (range(10), [a.label for a in arrivals]),
    ):
        expected = MANY / len(values)
        assert all(abs(seen.count(value) - expected) < 5 * expected**0.5 for value in values)
    assert all(a.guidance_scale == 1 and a.label is None for a in first(100, classes=None))


def test_figures_against_numpy():
    chance = np.random.default_rng(0)
    seconds = chance.exponential(0.1, 997)
    outcomes = [Outcome(200, float(s), 0.2) for s in seconds]
    outcomes += [Outcome(429, 0.004, 0.2), Outcome(503, 0.006, 0.2), Outcome(504, 9.0, 0.2)]
    outcomes += [Outcome(LOST, 0.0, 0.2)] * 3 + [Outcome(BROKEN, 0.1, 0.2), Outcome(TIMEOUT, 60.0, 0.2)]
    chance.shuffle(outcomes)  # type: ignore[arg-type]  # it shuffles lists too, which its stub does not say
    found = summary(outcomes, 10.0)
    assert found["latency_ms"] == pytest.approx({f"p{p}": 1e3 * np.quantile(seconds, p / 100) for p in (50, 95, 99)})
    assert found["refusal_ms"]["p50"] == pytest.approx(5.0)
    assert found["not_completed"] == {"429": 1, "503": 1, "504": 1, "broken": 1, "lost": 3, "timeout": 1}
    assert (found["arrivals"], found["completed"], found["lost"]) == (1005, 997, 3)
    assert found["within_deadline"] == (seconds <= 0.2).sum()
    assert found["goodput"] == found["within_deadline"] / 10 and found["throughput"] == 99.7


def test_figures_of_nothing():
    found = summary([], 1.0)
    assert found["latency_ms"] == {"p50": None, "p95": None, "p99": None} and found["goodput"] == 0


@pytest.mark.parametrize("url", ["http://192.0.2.1:80", "http://[2001:db8::1]:80", "http://0.0.0.0:80", "http://[::ffff:8.8.8.8]"])
def test_only_this_machine_gets_load(url):
    with pytest.raises(ArgumentError, match="--allow-remote"):
        Connections(url)
    Connections(url, allow_remote=True)


def test_a_name_is_remote_if_one_of_its_addresses_is(monkeypatch):
    entries = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 80)) for address in ("127.0.0.1", "192.0.2.7")]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *a, **k: entries)
    with pytest.raises(ArgumentError, match=r"192\.0\.2\.7"):
        Connections("http://localhost:80")


@pytest.mark.parametrize(
    "url", ["ftp://127.0.0.1", "http://", "http://127.0.0.1:99999", "http://127.0.0.1/v1", "http://a@127.0.0.1"]
)
def test_a_malformed_url(url):
    with pytest.raises(ArgumentError, match=r"URL|http://HOST:PORT"):
        Connections(url)


@contextlib.contextmanager
def raw_server(*answers: bytes) -> Iterator[str]:
    """A server that gives each connection one of the answers in turn and closes it."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            for answer in answers:
                connection, _ = listener.accept()
                with connection:
                    connection.recv(65536)
                    connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        thread.join(20)
        assert not thread.is_alive()


def ask(url: str, times: int = 1):
    async def asked():
        async with contextlib.aclosing(Connections(url)) as server:
            return [await server.request("GET", "/") for _ in range(times)]

    return asyncio.run(asked())


def test_bodies_with_a_length_and_in_chunks_and_a_connection_that_was_closed():
    plain = b"HTTP/1.1 404 Not Found\r\nContent-Length: 3\r\n\r\nabc"
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4;x=1\r\nabcd\r\na\r\n0123456789\r\n0\r\nTrailer: 1\r\n\r\n"
    with raw_server(plain, chunked) as url:
        assert ask(url, 2) == [(404, b"abc"), (200, b"abcd0123456789")]


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc", b"nonsense\r\n\r\n"])
def test_a_broken_answer(answer):
    with raw_server(answer) as url, pytest.raises((OSError, EOFError, ValueError)):
        ask(url)


def load(url: str, **options):
    async def run():
        async with contextlib.aclosing(Connections(url)) as server:
            return await measure(server, **options)

    return asyncio.run(run())


def test_a_server_that_is_no_server():
    with socket.create_server(("127.0.0.1", 0)) as found:
        port = found.getsockname()[1]
    with pytest.raises(LoadError, match="does not answer"):
        load(f"http://127.0.0.1:{port}")


@pytest.fixture
def serving(monkeypatch):
    for package in ("fastapi", "uvicorn", "prometheus_client", "httpx", "PIL"):
        pytest.importorskip(package)
    monkeypatch.setattr(load_run, "IDLE_CALLS", 1)
    from tests.serving.http.servers import serving

    return serving


@pytest.fixture
def without_idle_times(monkeypatch):
    """Idle times are given, for servers that are slow on purpose."""

    async def given(client, classes):
        return dict.fromkeys(itertools.product(STEPS, (False, True)), 0.01)

    monkeypatch.setattr(load_run, "_idle_times", given)


def test_a_run(serving):
    with serving(capacity=8, queue=64) as server:
        found = load(server.url, rate=100.0, seconds=0.3, seed=1)
        jobs = server.workers.jobs[16:]  # after two alone of each of 8 kinds
    expected = [a for a in first(200, rate=100.0, seed=1) if a.at < 0.3]
    assert found["arrivals"] == len(expected) == len(jobs)
    asked = sorted((job.samples[0].seed, job.steps, job.guidance_scale, int(job.samples[0].cond["label"])) for job in jobs)
    assert asked == [(a.seed, a.steps, a.guidance_scale, a.label) for a in expected]
    assert all(job.deadline is not None for job in jobs)
    assert found["completed"] + sum(found["not_completed"].values()) == found["arrivals"]
    assert found["completed"] > 0 and found["lost"] == 0 and found["model"] == "digits"
    assert len(found["idle_ms"]) == 8 and min(found["idle_ms"].values()) > 5 * 0.5


def test_arrivals_without_a_connection_are_lost(serving, without_idle_times):
    with serving(capacity=3, queue=64, step_seconds=0.01) as server:
        found = load(server.url, rate=2000.0, seconds=30.0, requests=50, limit=3)
        sent = len(server.workers.jobs)
    assert found["arrivals"] == 50
    assert found["lost"] == found["not_completed"]["lost"] == 50 - sent and 3 <= sent < 25


def test_a_full_queue_refuses_and_refusals_are_told(serving, without_idle_times):
    with serving(capacity=1, queue=2, step_seconds=0.002) as server:
        found = load(server.url, rate=400.0, seconds=30.0, requests=60)
    assert found["not_completed"]["429"] > 10 and found["lost"] == 0
    assert 0 < found["refusal_ms"]["p50"] <= found["refusal_ms"]["p99"]


def test_one_at_a_time_never_has_two_requests_outstanding(serving):
    most = 0
    with serving(capacity=8, queue=64, step_seconds=0.0) as server:
        submit = server.workers.submit

        def counted(job):
            nonlocal most
            ticket = submit(job)
            most = max(most, server.workers.running + server.workers.waiting)
            return ticket

        server.workers.submit = counted
        found = load(server.url, rate=400.0, requests=30, policy=Policy.one_at_a_time)
        assert found["policy"] == "one-at-a-time" and most == 1
        load(server.url, rate=4000.0, requests=30)
        assert most > 1


def together(policy: Policy, size: int, *requests: tuple[float, int]) -> list[tuple[float, ...]]:
    """Run requests of (guidance, ticks) that arrive at once; which guidance scales were outstanding, tick by tick."""

    async def run():
        turns = Turns(policy, size)
        running: list[float] = []
        seen = []

        async def request(number: int, guidance: float, ticks: int) -> None:
            async with turns.turn(Arrival(0.0, number, 5, guidance, None)):
                running.append(guidance)
                for _ in range(ticks):
                    await tick.wait()
                    await asyncio.sleep(0)
                running.remove(guidance)

        tick = asyncio.Event()
        tasks = [asyncio.create_task(request(i, *r)) for i, r in enumerate(requests)]
        while True:
            for _ in range(10):
                await asyncio.sleep(0)
            if all(task.done() for task in tasks):
                return seen
            seen.append(tuple(running))
            tick.set()
            await asyncio.sleep(0)
            tick.clear()

    return asyncio.run(run())


def test_policies_decide_what_is_outstanding():
    requests = ((1, 1), (1, 3), (2, 1), (1, 1))
    assert together(Policy.server, 2, *requests) == [(1, 1, 2, 1), (1,), (1,)]
    assert together(Policy.one_at_a_time, 2, *requests) == [(1,), (1,), (1,), (1,), (2,), (1,)]
    assert together(Policy.equal_guidance, 2, *requests) == [(1, 1), (1,), (1,), (2,), (1,)]
    assert together(Policy.equal_guidance, 2, (1, 1), (1, 3), (1, 1)) == [(1, 1), (1, 1), (1,)]
    # The first comes alone, as the batch starts at once; the next two leave together.
    assert together(Policy.whole_request, 2, *requests) == [(1,), (1, 2), (1,), (1,), (1,)]


def test_a_request_that_gives_up_leaves_its_turn_to_the_next():
    async def run():
        turns = Turns(Policy.one_at_a_time, 1)
        ended = []

        async def request(number: int, seconds: float) -> None:
            async with asyncio.timeout(seconds), turns.turn(Arrival(0.0, number, 5, 1.0, None)):
                await asyncio.sleep(0.1 if number == 0 else 0)
                ended.append(number)

        found = await asyncio.gather(request(0, 5), request(1, 0.01), request(2, 5), return_exceptions=True)
        return ended, found

    ended, found = asyncio.run(run())
    assert ended == [0, 2] and isinstance(found[1], TimeoutError)


def test_without_a_rate_it_is_a_share_of_the_capacity(serving, without_idle_times):
    with serving(capacity=8, queue=64) as server:
        found = load(server.url, load=0.5, seconds=0.3, requests=10)
    # 8 slots, 21.25 steps of at least 0.5 ms in the mean
    assert 0 < found["capacity"] < 8 / (21.25 * 0.5e-3) * 1.2
    assert found["rate"] == 0.5 * found["capacity"] and found["arrivals"] <= 10


def test_a_model_that_is_not_there(serving):
    with serving() as server, pytest.raises(ArgumentError, match="'faces'; it has digits"):
        load(server.url, model="faces")


def test_a_server_that_refuses_everything(serving):
    with serving(ready=False) as server, pytest.raises(LoadError, match="503"):
        load(server.url)


def test_the_command(serving, without_idle_times):
    pytest.importorskip("typer")
    from typer.testing import CliRunner

    from diffuse_fast.cli.app import app

    def run(*arguments: str):
        return CliRunner().invoke(app, ["bench-serve", *arguments])

    with serving(capacity=8, queue=64, step_seconds=0.0) as server:
        found = json.loads(run(server.url, "--rate", "100", "--seconds", "0.2", "--json").stdout)
        table = run(server.url, "--rate", "100", "--seconds", "0.2", "--policy", "one-at-a-time").stdout
    assert found["url"] == server.url and found["rate"] == 100 and found["processors"] == "not pinned"
    assert "goodput" in table and "one-at-a-time" in table
    remote = run("http://192.0.2.1:80")
    assert remote.exit_code == 1 and "--allow-remote" in remote.stderr


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="the system does not pin processes")
def test_a_server_of_its_own_runs_on_other_cores_and_ends(tmp_path, monkeypatch):
    program = tmp_path / "python"
    program.write_text(f"""#!{sys.executable}
import os, pathlib, sys, time
pathlib.Path({str(tmp_path / "seen")!r}).write_text(repr((os.getpid(), os.sched_getaffinity(0), sys.argv[1:])))
print("Serving digits on http://127.0.0.1:1", flush=True)
time.sleep(60)
""")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    before = os.sched_getaffinity(0)
    with local_server("digits", 4) as (url, where):
        mine = os.sched_getaffinity(0)
    number, its, arguments = eval((tmp_path / "seen").read_text())
    assert url == "http://127.0.0.1:1" and os.sched_getaffinity(0) == before
    assert arguments == ["-m", "diffuse_fast", "serve", "digits", "--port", "0", "--capacity", "4"]
    if mine == before:  # one core
        assert its == before and "share" in where
    else:
        assert its and not its & mine and its | mine == before and f"generator on CPU {min(mine)}" in where
    with pytest.raises(ProcessLookupError):
        os.kill(number, 0)


def test_a_server_of_its_own_that_does_not_start(tmp_path):
    with pytest.raises(LoadError, match=r"did not start: .*none\.onnx"), local_server(str(tmp_path / "none.onnx"), 4):
        pass
