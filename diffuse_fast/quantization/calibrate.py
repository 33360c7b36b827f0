"""What the values inside a network are on its own trajectories: from pure noise to a sample, at every noise level."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..artifact.document import Range
from ..artifact.nodes import Nodes
from ..engine import Sampler
from ..engine.sample import plan_for
from ..learning.task import conditions
from ..model import Model
from ..runtimes import network
from ..runtimes.quantized import parameters

SOLVER = "ddim"
KEPT = 256  # numbers of a value that are looked at, per network call
SHRINK = np.linspace(0.4, 1.0, 61)  # the parts of the largest number at which a range may end


@dataclass(frozen=True)
class Call:
    """One call of the network on a trajectory: its inputs, and its float32 output."""

    x: np.ndarray
    t: float
    cond: dict[str, np.ndarray]
    output: np.ndarray


def trajectories(model: Model, samples: int, steps: int, seed: int, given: Mapping[str, Any] | None) -> list[Call]:
    """The network's calls while ``samples`` are drawn in float32."""
    bound = network(model, "onnx")
    cond = conditions(model, {**_labels(model), **(given or {})}, samples, seed)
    calls: list[Call] = []
    call = bound.bind(samples, model.shape, cond, model.output_shape)

    def record(x: np.ndarray, t: np.ndarray, **cond: np.ndarray) -> np.ndarray:
        call.x[...] = x
        calls.append(Call(x.copy(), float(t[0]), cond, call(float(t[0])).copy()))
        return calls[-1].output[:, : model.shape[0]]  # without the variance, where there is one

    plan = plan_for(model, SOLVER, steps)
    Sampler(record, plan, shape=model.shape).sample(samples, seed=seed, cond=cond)
    return calls


def _labels(model: Model) -> dict[str, np.ndarray]:
    """Every class, and none: what guidance asks for."""
    return {
        c.name: np.array([*range(c.classes), *([] if c.null is None else [c.null])]).astype(c.dtype)
        for c in model.conditioning
        if c.classes is not None
    }


def ranges(model: Model, values: Sequence[str], calls: Sequence[Call], seed: int) -> dict[str, Range]:
    """For each value of the graph the range whose 256 levels are nearest to it in square mean.

    The largest number that was seen is at the end of no good range: the levels that it costs are missed where the numbers are.
    """
    import onnxruntime

    graph = Nodes(model.path)
    inside = [name for name in values if name != model.input]
    for name in inside:
        if name != model.output:
            graph.output(name)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(graph.to_bytes(), options, providers=["CPUExecutionProvider"])
    dims = next(i.shape for i in session.get_inputs() if i.name == model.time.input)
    rng = np.random.default_rng(seed)
    seen: dict[str, list[np.ndarray]] = {name: [] for name in values}
    for call in calls:
        whole = len(dims) == 1 and dims[0] != 1
        t = np.full((len(call.x),) if whole else (1,) * len(dims), call.t, model.time.dtype)
        found = session.run(inside, {model.input: call.x, model.time.input: t, **call.cond})
        for name, array in (*zip(inside, found, strict=True), (model.input, call.x)):
            if name in seen:
                flat = array.reshape(-1)
                picked = flat[rng.integers(0, flat.size, KEPT)]
                seen[name].append(np.concatenate([picked, [flat.min(), flat.max()]]))
    return {name: best_range(np.concatenate(arrays)) for name, arrays in seen.items()}


def best_range(numbers: np.ndarray) -> Range:
    """Of the ranges that end at a part of the largest number, above and below, the one whose levels are nearest in square mean."""
    low, high = min(float(numbers.min()), 0.0), max(float(numbers.max()), 0.0)
    if low == high:
        return -1.0, 1.0  # a value that is nothing but 0
    for _ in range(2):  # above, below, and again
        if high > 0:
            high *= float(SHRINK[np.argmin([_error(numbers, (low, high * part)) for part in SHRINK])])
        if low < 0:
            low *= float(SHRINK[np.argmin([_error(numbers, (low * part, high)) for part in SHRINK])])
    return low, high


def _error(numbers: np.ndarray, over: Range) -> float:
    scale, zero = (float(v) for v in parameters(over))
    levels = np.clip(np.rint(numbers / scale) + zero, 0, 255)
    return float(np.mean(np.square((levels - zero) * scale - numbers)))


def relative_error(model: Model, runtime: str, calls: Sequence[Call]) -> list[float]:
    """Of each call, what a model in int8 differs by in the 2-norm, relative to the float32 output."""
    first = calls[0]
    bound = network(model, runtime, precision="int8").bind(len(first.x), model.shape, first.cond, model.output_shape)
    found = []
    for call in calls:
        bound.x[...] = call.x
        scale = max(float(np.linalg.norm(call.output)), 1e-30)
        found.append(float(np.linalg.norm(bound(call.t) - call.output)) / scale)
    return found
