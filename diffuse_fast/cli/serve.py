"""``diffuse-fast serve``: put models behind HTTP."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer


def serve(
    models: Annotated[
        list[str],
        typer.Argument(metavar="MODEL...", help="Artifacts (.onnx) or bundled models: digits. NAME=FILE serves it under a name."),
    ],
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 is every network of this machine.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.")] = 8000,
    capacity: Annotated[int, typer.Option(min=1, help="Samples in the batch of a model.")] = 32,
    queue: Annotated[int, typer.Option(min=1, help="Samples that may wait for a model; further requests get status 429.")] = 256,
    max_samples: Annotated[int, typer.Option(min=1, help="Samples of one request.")] = 64,
    max_steps: Annotated[int, typer.Option(min=1, help="Steps of one request.")] = 1000,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Threads per network call. [default: the choice of `tune`, else physical cores]")
    ] = None,
    keys: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="API keys, one a line: KEY or NAME:KEY. The variable DIFFUSE_FAST_API_KEYS has more."),
    ] = None,
    rate: Annotated[float | None, typer.Option(min=0.001, help="Requests per second of one API key. [default: no limit]")] = None,
    drain: Annotated[float, typer.Option(min=0, help="Seconds that running requests may take after SIGTERM.")] = 30.0,
    warm_timeout: Annotated[float, typer.Option(min=1, help="Seconds that a model may take to load and warm up.")] = 120.0,
) -> None:
    """Serve models over HTTP: OpenAI's images, tensors by the Open Inference Protocol, jobs, metrics and a page.

    Example: diffuse-fast serve digits --port 8000
    """
    import asyncio
    import logging

    from ..console import say
    from ..errors import MissingDependencyError, install_hint

    try:
        import fastapi  # noqa: F401  (only checks that it is installed)
        import prometheus_client  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError(f"serving needs {error.name}: {install_hint('serve')}") from None
    from ..image_grid import require_pillow
    from ..serving.http import Settings
    from ..serving.http.keys import read_keys
    from ..serving.http.log import JsonLines
    from ..serving.http.run import is_loopback, run
    from ..serving.workers import Workers

    require_pillow()
    if max_samples > queue:
        raise typer.BadParameter(f"--max-samples is {max_samples} and --queue {queue}; a request must find room in the queue.")
    files = _files(models)
    settings = Settings(keys=read_keys(keys), max_samples=max_samples, max_steps=max_steps, rate=rate)
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines())
    for name, level in (("diffuse_fast.serving", logging.INFO), ("uvicorn", logging.WARNING)):
        log = logging.getLogger(name)
        log.addHandler(handler)
        log.propagate = False
        if log.level == logging.NOTSET:
            log.setLevel(level)
    if not (settings.keys or is_loopback(host)):
        say(f"diffuse-fast: {host} is open to the network, and no API key is set (--keys): everyone there can draw.")
    workers = Workers(files, capacity=capacity, queue=queue, max_samples=max_samples, threads=threads, warm_timeout=warm_timeout)

    def started(url: str) -> None:
        shown = url.replace("0.0.0.0", "127.0.0.1").replace("[::]", "[::1]")
        key = ' -H "Authorization: Bearer KEY"' if settings.keys else ""
        print(f"Serving {', '.join(files)} on {url}")
        call = f"""curl {shown}/v1/images/generations{key} --json '{{"seed": 1}}' -H "Accept: image/png" -o sample.png"""
        print(f"Try it: {call}", flush=True)

    asyncio.run(run(workers, settings, host=host, port=port, drain=drain, started=started))


def _files(models: list[str]) -> dict[str, Path]:
    """The files of the models by the names under which they are served."""
    from ..model import find

    files: dict[str, Path] = {}
    for text in models:
        name, equals, where = text.partition("=")
        path = find(where if equals else text)
        name = name if equals else path.stem
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", name):
            raise typer.BadParameter(f"the name {name!r} does not fit a URL: letters, digits, '.', '_' and '-'; give NAME=FILE.")
        if name in files:
            raise typer.BadParameter(f"two models have the name {name!r}; give one of them another: NAME=FILE.")
        files[name] = path
    return files
