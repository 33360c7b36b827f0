"""The page at ``/``: plain files, read once and sent with a policy that lets the page load nothing from elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from fastapi import APIRouter, Response

from ..refusals import refusal

if TYPE_CHECKING:
    from ..service import Service

_FOLDER = Path(__file__).parent
_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data:; frame-ancestors 'none'; base-uri 'none'",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


def router(service: Service) -> APIRouter:
    """The routes."""
    routes = APIRouter(include_in_schema=False)
    files = {path.name: path for path in _FOLDER.iterdir() if path.suffix in _TYPES}
    contents = {name: path.read_bytes() for name, path in files.items()}

    def answer(name: str) -> Response:
        return Response(contents[name], headers=_HEADERS, media_type=_TYPES[files[name].suffix])

    @routes.get("/")
    async def index() -> Response:
        return answer("index.html")

    @routes.get("/page/{name}")
    async def part(name: str) -> Response:
        if name not in contents:
            raise refusal(404, "not_found", "there is no such file.")
        return answer(name)

    return routes
