"""What an operator sets: limits, API keys, and how long results are kept."""

from __future__ import annotations

from dataclasses import dataclass

from .keys import Key

MIB = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Limits of the HTTP side.

    Attributes:
        keys: The API keys; without any, every client is served.
        max_samples: Largest number of samples of one request.
        max_steps: Largest number of steps of one request.
        max_work: Largest product of samples, elements of a sample and steps of one request.
        max_body: Largest request body in bytes.
        max_tensor_body: The same for tensors (``/v2/models/.../infer``).
        body_seconds: How long a body may take to arrive.
        rate: Requests that create work per second and key; None is no limit. Short bursts of ten seconds' worth are served.
        keep_seconds: How long finished jobs and answers with an ``Idempotency-Key`` are kept.
        keep_bytes: How many bytes of them are kept; the oldest go first.
        linger: Seconds that a request with an ``Idempotency-Key`` runs on after its last client left.
    """

    keys: tuple[Key, ...] = ()
    max_samples: int = 64
    max_steps: int = 1000
    max_work: int = 1 << 31
    max_body: int = MIB
    max_tensor_body: int = 64 * MIB
    body_seconds: float = 30.0
    rate: float | None = None
    keep_seconds: float = 600.0
    keep_bytes: int = 256 * MIB
    linger: float = 30.0
