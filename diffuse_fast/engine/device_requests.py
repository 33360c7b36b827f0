"""Requests on a device: one static batch, one table with a plan for each sample, and no waiting between the first row and the last.

Every sample goes on by one row per tick, whether that row calls the network or not; one that is done stays at rows that keep its
state. So all ticks are known before the first, as for a batch that runs in step. What a sample does not need is evaluated with the
batch all the same: a batch of one shape is what a captured graph has.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..kernels import get_kernel, kernels
from ..kernels.reference import STREAM_INITIAL
from ..kernels.rows import pack
from ..kernels.step import noise_address
from ..plan import Plan, Row
from .arguments import noise_array
from .conditioning import Conditions
from .device_workspace import times_of
from .progress import bar
from .requests import Request, check_alike, conditions_of, plans_of
from .workspace import not_finite

if TYPE_CHECKING:
    from .sampler import Sampler

KEEP = Row(timestep=math.nan, calls_network=False, a=1.0)  # x' = x


def run_requests_on_device(sampler: Sampler, requests: Sequence[Request], callback: Any = None, progress: bool = False) -> Any:
    """The samples of the requests, in their order: an array of the device, the caller's own."""
    n = len(requests)
    plans = plans_of(sampler, requests)
    given = [conditions_of(sampler, r, plan, i) for i, (r, plan) in enumerate(zip(requests, plans, strict=True))]
    check_alike(given)
    ticks = max(len(plan.rows) for plan in plans)
    tables: dict[int, list[Row]] = {}
    for plan in plans:
        tables.setdefault(id(plan), [*plan.rows, *[KEEP] * (ticks - len(plan.rows))])
    first = dict(zip(tables, range(0, len(tables) * ticks, ticks), strict=True))
    rows = [row for table in tables.values() for row in table]
    batch = _evaluations(given)
    space, key = sampler._take_for(n, batch)
    kinds = [space.kind([tables[id(plan)][tick] for plan in plans]) for tick in range(ticks)]
    seeds, indices = noise_address(
        [secrets.randbits(64) if r.seed is None else r.seed for r in requests], [r.index for r in requests], n
    )
    with bar(progress, ticks) as advance:
        bad = space.run_table(
            pack(rows), times_of(rows), max(plan.registers for plan in plans), kinds, sampler._graph, seeds, indices,
            np.array([first[id(plan)] for plan in plans], np.int32), _noise(sampler, requests, plans, seeds, indices), 1.0, advance,
            callback,
        )  # fmt: skip
    if (bad >= 0).any():
        at = np.where(bad >= 0, bad % ticks, ticks)
        samples = np.flatnonzero(at == at.min())
        raise not_finite(rows[bad[samples[0]]], int(at.min()), samples.tolist())
    result = sampler._backend.device.own(space.state, False)  # type: ignore[union-attr]  # only called where there is a device
    sampler._give_back(key, space)
    return result


def _evaluations(given: list[list[Conditions]]) -> list[Conditions]:
    """Per network output, the conditioning of all samples; one that weighs fewer is evaluated with its first."""
    most = max(map(len, given))
    names = given[0][0]
    return [{name: np.stack([c[min(j, len(c) - 1)][name] for c in given]) for name in names} for j in range(most)]


def _noise(sampler: Sampler, requests: Sequence[Request], plans: list[Plan], seeds: np.ndarray, indices: np.ndarray) -> np.ndarray:
    """Where every sample starts, scaled by its own plan. From the CPU's kernel: the noise has the same bits everywhere."""
    kernel = get_kernel(next(k.name for k in kernels() if k.device == "cpu" and k.unavailable is None))
    out = np.empty((len(requests), *sampler.shape), np.float32)
    for i, (r, plan) in enumerate(zip(requests, plans, strict=True)):
        if r.noise is None:
            one = slice(i, i + 1)
            kernel.normals(out[one], seeds=seeds[one], indices=indices[one], row=0, stream=STREAM_INITIAL, scale=plan.initial_scale)
        else:
            given = noise_array(f"noise of request {i}", r.noise, sampler.shape)
            np.multiply(given, np.float32(plan.initial_scale), out=out[i], casting="same_kind")
    return out
