"""``diffuse-fast bench-serve``: measure a server under load."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from ..serving.load.policy import Policy


def bench_serve(
    target: Annotated[
        str,
        typer.Argument(metavar="URL|MODEL", help="A running server, http://127.0.0.1:8000, or a model to start one for: digits."),
    ],
    rate: Annotated[
        float | None, typer.Option(min=0.001, help="Arrivals per second. [default: --load times the measured capacity]")
    ] = None,
    load: Annotated[
        float, typer.Option(min=0.001, help="Rate as a share of the capacity, measured with 64 requests waiting.")
    ] = 0.8,
    seconds: Annotated[float, typer.Option(min=0.1, help="How long requests arrive.")] = 30.0,
    requests: Annotated[int | None, typer.Option(min=1, help="Most arrivals. [default: no limit]")] = None,
    connections: Annotated[int, typer.Option(min=1, help="Most connections; an arrival without one is lost.")] = 256,
    policy: Annotated[
        Policy, typer.Option(help="What may be outstanding together. server: all; the others batch as other servers do.")
    ] = Policy.server,
    model: Annotated[str | None, typer.Option(help="A model of the server at URL. [default: its first]")] = None,
    capacity: Annotated[int, typer.Option(min=1, help="Samples in a batch: of a server started here, of other policies.")] = 32,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the arrivals.")] = 0,
    key: Annotated[str | None, typer.Option(envvar="DIFFUSE_FAST_API_KEY", help="API key; better in the variable.")] = None,
    allow_remote: Annotated[bool, typer.Option("--allow-remote", help="Send load to another machine.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Send requests at random moments (Poisson) with mixed steps and guidance; print latencies and goodput.

    Example: diffuse-fast bench-serve digits --seconds 20
    """
    import asyncio
    import contextlib
    import json

    from ..console import say
    from ..serving.load.connections import Connections
    from ..serving.load.local_server import local_server
    from ..serving.load.run import measure

    remote = "://" in target
    if model is not None and not remote:
        raise typer.BadParameter("--model chooses a model of a running server; give its URL.")

    async def run(url: str) -> dict[str, Any]:
        server = Connections(url, key=key if remote else None, allow_remote=allow_remote)
        async with contextlib.aclosing(server):
            return await measure(
                server,
                model=model,
                rate=rate,
                load=load,
                seconds=seconds,
                requests=requests,
                limit=connections,
                policy=policy,
                batch=capacity,
                seed=seed,
                progress=say,
            )

    with contextlib.nullcontext((target, "not pinned")) if remote else local_server(target, capacity) as (url, cores):
        figures = {"url": url, "processors": cores, **asyncio.run(run(url))}
    if as_json:
        print(json.dumps(figures, indent=2))
    else:
        _show(figures)


def _show(figures: dict[str, Any]) -> None:
    from .tables import show

    arrivals = figures["arrivals"]
    measured = figures["capacity"]
    rows: list[tuple[str, str]] = [
        ("processors", figures["processors"]),
        ("policy", figures["policy"]),
        ("a request that is alone", f"{min(figures['idle_ms'].values()):.1f} to {max(figures['idle_ms'].values()):.1f} ms"),
        ("capacity", "not measured" if measured is None else f"{measured:.1f} requests/s"),
        ("offered", f"{figures['rate']:.1f} requests/s, {arrivals} in {figures['seconds']:.1f} s"),
        ("throughput", f"{figures['throughput']:.1f} requests/s, {_share(figures['completed'], arrivals)} of the arrivals"),
        ("goodput", f"{figures['goodput']:.1f} requests/s, {_share(figures['within_deadline'], arrivals)} within the deadline"),
        ("latency", _percentiles(figures["latency_ms"])),
        ("not completed", ", ".join(f"{what}: {count}" for what, count in figures["not_completed"].items()) or "none"),
        ("latency of refusals", _percentiles(figures["refusal_ms"])),
    ]
    show(f"{figures['model']} on {figures['url']}", rows)


def _percentiles(ms: dict[str, float | None]) -> str:
    return ", ".join(f"{name} {value:.1f} ms" for name, value in ms.items() if value is not None) or "none"


def _share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} %" if whole else "none"
