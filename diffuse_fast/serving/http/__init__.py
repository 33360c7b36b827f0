"""HTTP in front of the workers: routes, limits, keys, metrics and a page. It needs the extra ``serve``."""

from __future__ import annotations

from .app import create_app
from .settings import Settings

__all__ = ["Settings", "create_app"]
