"""One network call in the native runtime, against onnxruntime, OpenVINO and MNN, each with the graph that we give it; one thread.

The ratio of a peer is its time over native's, in the same round.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import diffuse_fast as df
from diffuse_fast.runtimes import network

from ..measure import Timing, interleaved, ratio
from ..mnn import Session
from ..modules import prepare
from ..networks import NETWORKS, artifact
from ..report import Line

JOBS = (("mlp", 1), ("policy", 1), ("digits", 1), ("digits", 16), ("unet28", 1), ("unet28", 16), ("cifar10", 1), ("cifar10", 8))
TIMES = (999.0, 499.0)  # known times: in a plan, all calls but the first see rows of the table


def run(seconds: float) -> list[Line]:
    lines = []
    for name, batch in JOBS:
        prepare(name)
        model = df.load(artifact(name))
        calls = {runtime: _call(model, runtime, name, batch) for runtime in ("native", "onnx", "openvino", "mnn")}
        times = interleaved(calls, seconds=seconds / len(JOBS))
        for runtime, values in times.items():
            over = None if runtime == "native" else ratio(times, runtime, "native")
            label = f"{name}, batch {batch}: {runtime}"
            lines.append(Line(label, seconds=Timing.of(values), peer="native" if over else None, ratio=over))
    return lines


def _call(model: df.Model, runtime: str, name: str, batch: int) -> Callable[[], object]:
    call: Any
    if runtime == "mnn":
        call = Session(name, batch)
    else:
        call = network(model, runtime, threads=1).bind(batch, model.shape, NETWORKS[name].conditioning(batch))
    call.x[...] = np.random.default_rng(0).standard_normal(call.x.shape)

    def run() -> None:
        for t in TIMES:
            call(t)

    return run
