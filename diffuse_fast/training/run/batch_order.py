"""Which samples make a batch: a function of the seed and the step alone, so that nothing need be kept to go on."""

from __future__ import annotations

import numpy as np
import torch

from ..data.generated import Generated
from ..data.source import Batch, Source

ORDER, BATCH, PART = 0, 1, 2  # what a seed is for


def derived_seed(*parts: int) -> int:
    """A seed for each combination of numbers, below 2**63."""
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] >> 1)


class Feed:
    """The endless sequence of samples of a run: every one once per pass, each pass in a new order, no remainder thrown away.
    What a generator yields keeps its order."""

    def __init__(self, data: Source | Generated, seed: int):
        self._data, self._seed = data, seed
        self._orders: dict[int, torch.Tensor] = {}

    def take(self, start: int, stop: int) -> Batch:
        """Samples ``start`` to ``stop`` of the sequence."""
        if isinstance(self._data, Generated):
            return self._data.take(start, stop)
        return self._data.fetch(self.indices(start, stop).tolist())

    def indices(self, start: int, stop: int) -> torch.Tensor:
        """Their numbers in the data."""
        samples = len(self._data)  # type: ignore[arg-type]  # only a generated source has no length
        passes = range(start // samples, (stop - 1) // samples + 1)
        known = self._orders
        self._orders = {number: known[number] if number in known else self._order(number, samples) for number in passes}
        whole = torch.cat(list(self._orders.values()))
        return whole[start - passes[0] * samples : stop - passes[0] * samples]

    def _order(self, number: int, samples: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(derived_seed(self._seed, ORDER, number))
        return torch.randperm(samples, generator=generator)
