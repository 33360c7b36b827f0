"""Servers for the tests of the HTTP side."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

for package in ("fastapi", "uvicorn", "prometheus_client", "httpx", "PIL"):
    pytest.importorskip(package)

from tests.serving.http.servers import Server, serving  # noqa: E402  (after what may skip the file)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """A server with the default settings."""
    with serving() as running:
        yield running


@pytest.fixture
def openai_client(server: Server) -> Iterator[Any]:
    openai = pytest.importorskip("openai")
    client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="unused", max_retries=0, timeout=30)
    yield client
    client.close()
