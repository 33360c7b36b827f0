"""A run: the idle times, the capacity, and the load."""

from __future__ import annotations

import asyncio
import itertools
import json
import statistics
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ...console import silent
from ...errors import ArgumentError, LoadError
from .connections import Connections
from .outcomes import BROKEN, LOST, TIMEOUT, Outcome, summary
from .policy import Policy, Turns
from .trace import GUIDANCE, STEPS, Arrival, poisson

WAITING = 64  # requests that always wait while the capacity is measured
IDLE_CALLS = 5
TIMEOUT_SECONDS = 60.0
_ROUTE = "/v1/images/generations"

IdleTimes = Mapping[tuple[int, bool], float]


async def measure(
    connections: Connections,
    *,
    model: str | None = None,
    rate: float | None = None,
    load: float = 0.8,
    seconds: float = 30.0,
    requests: int | None = None,
    limit: int = 256,
    policy: Policy = Policy.server,
    batch: int = 32,
    seed: int = 0,
    progress: Callable[[str], None] = silent,
) -> dict[str, Any]:
    """Measure a server.

    First the idle time of each kind of request, alone, then the capacity if ``rate`` is None, then the load: requests are
    sent when the trace says so, however slow the server is. Each carries its deadline: 10 times its idle time + 100 ms.

    Args:
        connections: Connections to the server.
        model: A name of ``/v1/models``; None is the first.
        rate: Arrivals per second; None is ``load`` times the capacity.
        load: Share of the capacity, above 0; read only if ``rate`` is None.
        seconds: How long requests arrive. Measuring the capacity takes a third of it more.
        requests: Maximum number of arrivals; None is no limit.
        limit: Maximum number of connections. An arrival while all are in use is lost.
        policy: Which requests may be outstanding together. Others wait here; their latency counts from their arrival.
        batch: Most requests in a batch, for the policies that have one.
        seed: Seed of the trace.
        progress: Called with a line of text.

    Returns:
        The figures of :func:`.outcomes.summary`, with ``model``, ``policy``, ``seed``, ``rate`` and ``capacity`` in requests per
        second (None if not measured), and ``idle_ms`` by steps and guidance.

    Raises:
        LoadError: the server does not answer, or refuses a request that is alone.
        ArgumentError: there is no such model.
    """
    name, classes = await _model(connections, model)
    client = _Client(connections, name, Turns(policy, batch))
    progress("measuring requests that are alone")
    idle = await _idle_times(client, classes)
    capacity = None
    if rate is None:
        progress(f"measuring the capacity with {WAITING} requests waiting")
        capacity = await _capacity(client, min(WAITING, limit), seconds / 3, seed, classes)
        rate = load * capacity
    progress(f"sending {rate:.1f} requests per second")
    arrivals = itertools.takewhile(lambda a: a.at < seconds, itertools.islice(poisson(rate, seed, classes=classes), requests))
    outcomes, took = await _open_loop(client, arrivals, idle, limit)
    return {
        "model": name,
        "policy": policy.value,
        "seed": seed,
        "rate": rate,
        "capacity": capacity,
        "idle_ms": {f"{steps} steps{', guided' if guided else ''}": 1e3 * s for (steps, guided), s in idle.items()},
        **summary(outcomes, max(took, 1e-9)),
    }


class _Client:
    """Sends arrivals as requests, each when it is its turn."""

    def __init__(self, connections: Connections, model: str, turns: Turns) -> None:
        self._connections = connections
        self._model = model
        self._turns = turns

    async def send(self, arrival: Arrival, due: float | None = None) -> int | str:
        """Return the status, or what else became of the request.

        Args:
            arrival: The request.
            due: Its deadline by the clock of the event loop; None sends none.
        """
        body: dict[str, Any] = {
            "model": self._model,
            "seed": arrival.seed,
            "num_inference_steps": arrival.steps,
            "guidance_scale": arrival.guidance_scale,
        }
        if arrival.label is not None:
            body["class_label"] = arrival.label
        try:
            async with asyncio.timeout(TIMEOUT_SECONDS), self._turns.turn(arrival):
                if due is not None:  # it may have passed while the request waited here; the server takes no deadline of 0
                    body["deadline"] = max(due - asyncio.get_running_loop().time(), 1e-3)
                return (await self._connections.request("POST", _ROUTE, body))[0]
        except TimeoutError:
            return TIMEOUT
        except (OSError, EOFError, ValueError):
            return BROKEN


async def _model(connections: Connections, name: str | None) -> tuple[str, int | None]:
    """The model's name and its number of classes."""
    try:
        status, body = await connections.request("GET", "/v1/models")
        if status != 200:
            raise LoadError(f"the server answers /v1/models with status {status}.")
        models = {entry["id"]: entry for entry in json.loads(body)["data"]}
    except (OSError, EOFError, ValueError, KeyError, TypeError) as error:
        raise LoadError(f"the server does not answer as diffuse-fast serve does: {error or type(error).__name__}.") from None
    if name is None:
        name = next(iter(models))
    if name not in models:
        raise ArgumentError(f"the server has no model {name!r}; it has {', '.join(models)}.")
    return name, next((c["classes"] for c in models[name]["conditioning"] if c.get("classes")), None)


async def _idle_times(client: _Client, classes: int | None) -> IdleTimes:
    """Seconds of a request that is alone, by steps and whether it is guided: the median of some calls, after one more."""
    loop = asyncio.get_running_loop()
    label = None if classes is None else 0
    found = {}
    for steps, guided in itertools.product(STEPS, (False,) if classes is None else (False, True)):
        times = []
        for call in range(IDLE_CALLS + 1):
            began = loop.time()
            result = await client.send(Arrival(0.0, call, steps, GUIDANCE[-1] if guided else 1.0, label))
            if result != 200:
                raise LoadError(f"a request that was alone ended with {result}; the server must be ready and take {steps} steps.")
            times.append(loop.time() - began)
        found[steps, guided] = statistics.median(times[1:])
    return found


async def _capacity(client: _Client, waiting: int, seconds: float, seed: int, classes: int | None) -> float:
    """Requests per second, where a new one is sent for each that has ended.

    The time runs to the end of the last request. Counting to a fixed moment would favour a server that does short ones first.
    """
    loop = asyncio.get_running_loop()
    arrivals = poisson(1.0, seed, classes=classes)
    began = loop.time()
    done = 0

    async def user() -> None:
        nonlocal done
        while loop.time() < began + seconds:
            if await client.send(next(arrivals)) == 200:
                done += 1
            else:
                await asyncio.sleep(0.05)

    await asyncio.gather(*(user() for _ in range(waiting)))
    if not done:
        raise LoadError(f"no request was completed with {waiting} waiting; give a --rate.")
    return done / (loop.time() - began)


async def _open_loop(client: _Client, arrivals: Iterable[Arrival], idle: IdleTimes, limit: int) -> tuple[list[Outcome], float]:
    """The outcome of each arrival, and the seconds to the last."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    outcomes: list[Outcome] = []
    tasks: set[asyncio.Task[None]] = set()

    async def follow(arrival: Arrival, deadline: float) -> None:
        result = await client.send(arrival, began + arrival.at + deadline)
        outcomes.append(Outcome(result, loop.time() - began - arrival.at, deadline))

    for arrival in arrivals:
        await asyncio.sleep(began + arrival.at - loop.time())
        deadline = 10 * idle[arrival.steps, arrival.guidance_scale != 1] + 0.1
        if len(tasks) >= limit:
            outcomes.append(Outcome(LOST, 0.0, deadline))
            continue
        task = asyncio.create_task(follow(arrival, deadline))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
    await asyncio.gather(*tasks)
    return outcomes, loop.time() - began
