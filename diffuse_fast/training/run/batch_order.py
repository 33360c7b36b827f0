"""The order of the samples of a run: a function of the seed and the step alone, so that a checkpoint need not store it."""

from __future__ import annotations

import numpy as np
import torch

from ..data.generated import Generated
from ..data.source import Batch, Source

ORDER, BATCH, PART = 0, 1, 2  # purposes of a derived seed


def derived_seed(*parts: int) -> int:
    """Derive a seed below 2**63 from a combination of integers."""
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] >> 1)


class BatchOrder:
    """The endless sequence of samples of a run: every sample once per pass, each pass in a new order, without dropping a
    remainder. The samples of a generator keep their order."""

    def __init__(self, data: Source | Generated, seed: int):
        self._data, self._seed = data, seed
        self._orders: dict[int, torch.Tensor] = {}

    def take(self, start: int, stop: int) -> Batch:
        """Return samples ``start`` to ``stop`` of the sequence."""
        if isinstance(self._data, Generated):
            return self._data.take(start, stop)
        return self._data.fetch(self.indices(start, stop).tolist())

    def indices(self, start: int, stop: int) -> torch.Tensor:
        """The indices in the data of samples ``start`` to ``stop``."""
        samples = len(self._data)  # type: ignore[arg-type]  # only a generated source has no length
        passes = range(start // samples, (stop - 1) // samples + 1)
        known = self._orders
        self._orders = {number: known[number] if number in known else self._order(number, samples) for number in passes}
        order = torch.cat(list(self._orders.values()))
        return order[start - passes[0] * samples : stop - passes[0] * samples]

    def _order(self, number: int, samples: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(derived_seed(self._seed, ORDER, number))
        return torch.randperm(samples, generator=generator)
