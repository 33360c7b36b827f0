"""``Idempotency-Key``: the same request sent again joins the first, or gets its result."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from starlette.requests import Request

from .refusals import of_failure, refusal
from .rendering import failure
from .runs import Run, Shelf

MAX_KEY = 255


class Once:
    """Runs by API key, route and ``Idempotency-Key``.

    Args:
        shelf: Where they are kept.
    """

    def __init__(self, shelf: Shelf) -> None:
        self._shelf = shelf

    async def run(self, request: Request, start: Callable[[float], Run], linger: float) -> Run:
        """The run of a request: a new one, or that of an equal request with the same ``Idempotency-Key``.

        Args:
            request: The request.
            start: Submits the job; it is told how long it lingers.
            linger: Seconds that a run with a key lingers.

        Raises:
            HTTPException: 400, the key is too long. 422, it was used with another body.
        """
        given = request.headers.get("idempotency-key")
        if given is None:
            return start(0.0)
        if not 0 < len(given) <= MAX_KEY:
            raise refusal(400, "invalid_argument", f"Idempotency-Key must have 1 to {MAX_KEY} characters.")
        key = request.state.owner, request.url.path, given
        digest = hashlib.sha256(await request.body()).digest()
        known = self._shelf.get(key)
        if known is not None and not _again(known):
            if known.digest != digest:
                raise refusal(422, "idempotency_key_reused", "this Idempotency-Key was used with another body; take a new one.")
            return known
        run = start(linger)
        run.digest = digest
        self._shelf.put(key, run)
        return run


def _again(run: Run) -> bool:
    """Whether a finished run is not to be returned again: it was cancelled, or the server failed."""
    if not run.done:
        return False
    if run.cancelled:
        return True
    failed = failure(run)
    return failed is not None and of_failure(failed).status_code >= 500
