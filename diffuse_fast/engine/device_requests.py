"""Requests on a device: one static batch, one table with a plan for each sample, and no waiting between the first row and the last.

Every sample goes on by one row per tick, whether that row calls the network or not; one that is done stays at rows that keep its
state. So all ticks are known before the first, as for a batch that runs in step. What a sample does not need is evaluated with the
batch all the same: a batch of one shape is what a captured graph has.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..kernels.reference import STREAM_INITIAL
from ..kernels.rows import pack
from ..kernels.step import noise_address
from ..plans.plan import Plan, Row
from .arguments import device_noise
from .conditioning import Conditions
from .device_workspace import times_of
from .progress import bar
from .requests import Request, check_alike, conditions_of, plans_of, start_of
from .start import host_kernel
from .workspace import not_finite

if TYPE_CHECKING:
    from .device import Device
    from .sampler import Sampler

KEEP = Row(calls_network=False, a=1.0)  # x' = x


def run_requests_on_device(
    sampler: Sampler, requests: Sequence[Request], first_request: int = 0, callback: Any = None, progress: bool = False
) -> Any:
    """The samples of the requests, in their order: an array of the device, the caller's own. ``first_request`` is the number of the
    first one, for messages."""
    n = len(requests)
    plans = plans_of(sampler, requests, first_request)
    given = [conditions_of(sampler, r, plan, i) for i, (r, plan) in enumerate(zip(requests, plans, strict=True), first_request)]
    check_alike(given, first_request)
    seeds, indices = noise_address(
        [secrets.randbits(64) if r.seed is None else r.seed for r in requests], [r.index for r in requests], n
    )
    ticks = max(len(plan.rows) for plan in plans)
    tables: dict[int, list[Row]] = {}
    for plan in plans:
        tables.setdefault(id(plan), [*plan.rows, *[KEEP] * (ticks - len(plan.rows))])
    first = dict(zip(tables, range(0, len(tables) * ticks, ticks), strict=True))
    rows = [row for table in tables.values() for row in table]
    device = sampler._backend.device  # type: ignore[union-attr]  # only called where there is a device
    batch = _evaluations(device, given)
    host, there = _noise(sampler, device, requests, plans, seeds, indices, first_request)
    space, key = sampler._take_for(n, batch)
    kinds = [space.kind([tables[id(plan)][tick] for plan in plans]) for tick in range(ticks)]

    def fill() -> None:
        device.start(host, 1.0, space.state)
        for i, noise in there.items():
            device.start(noise, plans[i].initial_scale, device.part(space.state, i))

    with bar(progress, ticks) as advance:
        bad = space.run_table(
            pack(rows),
            times_of(rows),
            max(plan.registers for plan in plans),
            kinds,
            sampler._graph,
            seeds,
            indices,
            np.array([first[id(plan)] for plan in plans], np.int32),
            fill,
            advance,
            callback,
        )
    if (bad >= 0).any():
        at = np.where(bad >= 0, bad % ticks, ticks)
        samples = np.flatnonzero(at == at.min())
        raise not_finite(rows[bad[samples[0]]], int(at.min()), (first_request + samples).tolist())
    result = device.own(space.state, False)
    sampler._give_back(key, space)
    return result


def _evaluations(device: Device, given: list[list[Conditions]]) -> list[Conditions]:
    """Per network output, the conditioning of all samples; one that weighs fewer is evaluated with its first."""
    most = max(map(len, given))
    names = given[0][0]
    return [{name: _joined(device, [c[min(j, len(c) - 1)][name] for c in given]) for name in names} for j in range(most)]


def _joined(device: Device, values: list[Any]) -> Any:
    if all(isinstance(value, np.ndarray | np.generic) for value in values):
        return np.stack(values)
    with device.scope():
        return device.stack(values)


def _noise(
    sampler: Sampler,
    device: Device,
    requests: Sequence[Request],
    plans: list[Plan],
    seeds: np.ndarray,
    indices: np.ndarray,
    first: int,
) -> tuple[np.ndarray, dict[int, Any]]:
    """Where every sample starts, scaled by its own plan; and, not scaled, what lies on the device, by the number of its request."""
    kernel = host_kernel()
    out, there = np.zeros((len(requests), *sampler.shape), np.float32), {}
    for i, (r, plan) in enumerate(zip(requests, plans, strict=True)):
        given = start_of(r, plan, i, first, sampler.shape, seeds, indices)
        if given is None:
            one = slice(i, i + 1)
            kernel.normals(out[one], seeds=seeds[one], indices=indices[one], row=0, stream=STREAM_INITIAL, scale=plan.initial_scale)
        else:
            given = device_noise(f"noise of request {first + i}", given, sampler.shape, device)
            if isinstance(given, np.ndarray):
                np.multiply(given, np.float32(plan.initial_scale), out=out[i, ...], casting="same_kind")
            else:
                there[i] = given
    return out, there
