"""Structured logs: one JSON object per request and line, without bodies and keys."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping
from typing import Any

from starlette.types import Scope

LOG = logging.getLogger("diffuse_fast.serving")


class JsonLines(logging.Formatter):
    """A record as one line of JSON: time, level, message, and what the record carries under ``fields``."""

    def format(self, record: logging.LogRecord) -> str:
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line: dict[str, Any] = {"time": f"{moment}.{int(record.msecs):03}Z", "level": record.levelname.lower()}
        line |= {"message": record.getMessage(), **getattr(record, "fields", {})}
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def write(scope: Scope, status: int, seconds: float, notes: Mapping[str, Any]) -> None:
    """Log a request. ``notes`` are what its route found out, such as model, samples and steps."""
    route = getattr(scope.get("route"), "path", scope["path"][:200])
    quiet = scope["path"] in ("/health", "/metrics") or scope["path"].startswith("/v2/health")
    fields = {"method": scope["method"], "route": route, "status": status, "seconds": round(seconds, 6), **notes}
    LOG.log(logging.DEBUG if quiet else logging.INFO, "request", extra={"fields": fields})
