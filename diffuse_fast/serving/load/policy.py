"""How requests are batched: by the server, or as other servers do it, by sending it only what may share a batch there."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import enum
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .trace import Arrival


class Policy(enum.StrEnum):
    """Which requests may be outstanding together. All but the first are first-in-first-out."""

    server = "server"  # all
    one_at_a_time = "one-at-a-time"
    equal_guidance = "equal-guidance"  # those of one guidance scale; they join and leave at any time
    whole_request = "whole-request"  # those that waited when the batch before had ended as a whole


class Turns:
    """Lets requests wait for their turn.

    Args:
        policy: The policy.
        size: Most requests in a batch, for the last two policies.
    """

    def __init__(self, policy: Policy, size: int) -> None:
        self._policy = policy
        self._size = size
        self._waiting: collections.deque[tuple[Arrival, asyncio.Future[None]]] = collections.deque()
        self._running: list[Arrival] = []

    @contextlib.asynccontextmanager
    async def turn(self, arrival: Arrival) -> AsyncIterator[None]:
        """Wait until the request may be sent; it is outstanding inside the block."""
        admitted = asyncio.get_running_loop().create_future()
        place = (arrival, admitted)
        self._waiting.append(place)
        self._admit()
        try:
            await admitted
            yield
        finally:
            if admitted.cancelled():
                with contextlib.suppress(ValueError):
                    self._waiting.remove(place)
            else:
                self._running.remove(arrival)
            self._admit()

    def _admit(self) -> None:
        new_batch = not self._running
        while self._waiting:
            arrival, admitted = self._waiting[0]
            if not admitted.cancelled():
                if not self._may_join(arrival, new_batch):
                    return
                self._running.append(arrival)
                admitted.set_result(None)
            self._waiting.popleft()

    def _may_join(self, arrival: Arrival, new_batch: bool) -> bool:
        if self._policy is Policy.server or not self._running:
            return True
        if self._policy is Policy.one_at_a_time or len(self._running) >= self._size:
            return False
        if self._policy is Policy.equal_guidance:
            return arrival.guidance_scale == self._running[0].guidance_scale
        return new_batch
