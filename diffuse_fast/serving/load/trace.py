"""When requests arrive, and what they ask for."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

STEPS = (5, 10, 20, 50)
GUIDANCE = (1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 7.5)


@dataclass(frozen=True, slots=True)
class Arrival:
    """One request, for one sample.

    Attributes:
        at: Seconds from the beginning of the trace.
        seed: Seed of the sample.
        steps: Steps of the solver.
        guidance_scale: Classifier-free guidance; 1 is none.
        label: Class; None for models without classes.
    """

    at: float
    seed: int
    steps: int
    guidance_scale: float
    label: int | None


def poisson(rate: float, seed: int, *, classes: int | None) -> Iterator[Arrival]:
    """Arrivals without end, whose gaps are exponential and independent of each other and of the server.

    Steps, guidance and class are uniform over :data:`STEPS`, :data:`GUIDANCE` and the classes. The same seed gives the same
    requests; another rate gives the same requests with all gaps scaled.

    Args:
        rate: Arrivals per second, above 0.
        seed: Seed of the trace.
        classes: Number of classes; None for a model without, whose requests have no guidance either.
    """
    chance = random.Random(seed)
    at = 0.0
    number = 0
    while True:
        at += chance.expovariate(1.0) / rate
        steps, guidance = chance.choice(STEPS), chance.choice(GUIDANCE)
        yield Arrival(
            at, number, steps, 1.0 if classes is None else guidance, None if classes is None else chance.randrange(classes)
        )
        number += 1
