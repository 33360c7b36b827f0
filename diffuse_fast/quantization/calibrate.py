"""What the values inside a network are on its own trajectories: from pure noise to a sample, at every noise level."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..artifact.document import Range
from ..engine import Sampler
from ..learning.task import conditions
from ..model import Model
from ..onnx.graph import Graph
from ..planning import plan_for
from ..rewrites.group_norm_to_instance_norm import group_norm_to_instance_norm
from ..rewrites.insert_qdq import scale_and_zero_point
from ..runtimes import network

SOLVER = "ddim"
KEPT = 1 << 14  # numbers of a value that are looked at, of all network calls together
SHRINK = np.linspace(0.4, 1.0, 41)  # the parts of the largest number at which a range may end


@dataclass(frozen=True)
class Call:
    """One call of the network on a trajectory: its inputs, and its float32 output."""

    x: np.ndarray
    t: float
    cond: dict[str, np.ndarray]
    output: np.ndarray


@dataclass(frozen=True)
class Seen:
    """What was found of the values of a graph, by name.

    Attributes:
        ranges: Of each the range whose 256 levels are nearest to it in square mean.
        sizes: How many numbers it has for one sample.
    """

    ranges: dict[str, Range]
    sizes: dict[str, int]


def trajectories(model: Model, samples: int, steps: int, seed: int, given: Mapping[str, Any] | None) -> list[Call]:
    """The network's calls while ``samples`` are drawn in float32."""
    bound = network(model, "onnx")
    cond = _conditions(model, samples, seed, given)
    calls: list[Call] = []
    call = bound.bind(samples, model.shape, cond, model.output_shape)

    def record(x: np.ndarray, t: np.ndarray, **cond: np.ndarray) -> np.ndarray:
        call.x[...] = x
        calls.append(Call(x.copy(), float(t[0]), cond, call(float(t[0])).copy()))
        return calls[-1].output

    _draw(model, record, samples, steps, seed, cond)
    return calls


def observe(model: Model, values: Sequence[str], samples: int, steps: int, seed: int, given: Mapping[str, Any] | None) -> Seen:
    """Draw ``samples`` in float32 and look at values of the graph meanwhile.

    The largest number that was seen is at the end of no good range: the levels that it costs are missed where the numbers are.
    It counts for the one that it is among all that were not looked at.
    """
    graph = model.graph()
    inside = [name for name in values if name != model.input]
    for name in inside:
        if name != model.output:
            graph.add_output(name)
    group_norm_to_instance_norm(graph)
    session = open_session(graph)
    rng = np.random.default_rng(seed)
    seen: dict[str, list[np.ndarray]] = {name: [] for name in values}
    weights: dict[str, list[np.ndarray]] = {name: [] for name in values}
    sizes: dict[str, int] = {}
    kept = max(1, KEPT // steps)

    def record(x: np.ndarray, t: np.ndarray, **cond: np.ndarray) -> np.ndarray:
        output, *found = run(session, [model.output, *inside], model, Call(x, float(t[0]), cond, x))
        for name, array in (*zip(inside, found, strict=True), (model.input, x)):
            if name in seen:
                flat = array.reshape(-1)
                sizes[name] = flat.size // len(x)
                picked = flat[rng.integers(0, flat.size, kept)]
                seen[name].append(np.concatenate([picked, [flat.min(), flat.max()]]))
                weights[name].append(np.concatenate([np.ones(kept), np.full(2, kept / flat.size)]))
        return output

    _draw(model, record, samples, steps, seed, _conditions(model, samples, seed, given))
    ranges = {name: best_range(np.concatenate(seen[name]), np.concatenate(weights[name])) for name in values}
    return Seen(ranges, sizes)


def _conditions(model: Model, samples: int, seed: int, given: Mapping[str, Any] | None) -> dict[str, np.ndarray]:
    """Those given; left out, every class and none: what guidance asks for."""
    labels = {
        c.name: np.array([*range(c.classes), *([] if c.null is None else [c.null])]).astype(c.dtype)
        for c in model.conditioning
        if c.classes is not None
    }
    return conditions(model, {**labels, **(given or {})}, samples, seed)


def _draw(
    model: Model, call: Callable[..., np.ndarray], samples: int, steps: int, seed: int, cond: Mapping[str, np.ndarray]
) -> None:
    def prediction(x: np.ndarray, t: np.ndarray, **cond: np.ndarray) -> np.ndarray:
        return call(x, t, **cond)[:, : model.shape[0]]  # without the variance, where there is one

    plan = plan_for(model, SOLVER, steps)
    Sampler(prediction, plan, shape=model.shape, input_scale=model.input_scale).sample(samples, seed=seed, cond=cond)


def open_session(graph: Graph) -> Any:
    """A session of onnxruntime, which is what looks inside: values of a graph become outputs of it."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(graph.to_bytes(), options, providers=["CPUExecutionProvider"])


def run(session: Any, values: Sequence[str], model: Model, call: Call, more: Mapping[str, np.ndarray] | None = None) -> Any:
    """Values of the graph for the inputs of a call; ``more`` are inputs that the model itself does not have."""
    dims = next(i.shape for i in session.get_inputs() if i.name == model.time.input)
    whole = len(dims) == 1 and dims[0] != 1
    t = np.full((len(call.x),) if whole else (1,) * len(dims), call.t, model.time.dtype)
    return session.run(list(values), {model.input: call.x, model.time.input: t, **call.cond, **(more or {})})


def best_range(numbers: np.ndarray, weights: np.ndarray | None = None) -> Range:
    """Of the ranges that end at a part of the largest number, above and below, the one whose levels are nearest in square mean.

    Args:
        numbers: To look at, (n,).
        weights: How much each counts, (n,); left out, all alike.
    """
    low, high = min(float(numbers.min()), 0.0), max(float(numbers.max()), 0.0)
    if low == high:
        return -1.0, 1.0  # a value that is nothing but 0
    numbers = numbers.astype(np.float32)
    weight = np.ones(len(numbers), np.float32) if weights is None else weights.astype(np.float32)
    for _ in range(2):  # above, below, and again
        if high > 0:
            high *= float(SHRINK[np.argmin([_error(numbers, weight, (low, high * part)) for part in SHRINK])])
        if low < 0:
            low *= float(SHRINK[np.argmin([_error(numbers, weight, (low * part, high)) for part in SHRINK])])
    return low, high


def _error(numbers: np.ndarray, weights: np.ndarray, over: Range) -> float:
    scale, zero = scale_and_zero_point(over)
    levels = np.clip(np.rint(numbers / scale), -np.float32(zero), 255 - np.float32(zero))
    return float(np.dot(np.square(levels * scale - numbers), weights))


def relative_error(model: Model, runtime: str, calls: Sequence[Call]) -> list[float]:
    """Of each call, what a model in int8 differs by in the 2-norm, relative to the float32 output."""
    first = calls[0]
    bound = network(model, runtime, precision="int8").bind(len(first.x), model.shape, first.cond, model.output_shape)
    found = []
    for call in calls:
        bound.x[...] = call.x
        found.append(relative(bound(call.t), call.output))
    return found


def relative(got: np.ndarray, exact: np.ndarray) -> float:
    """‖got − exact‖/‖exact‖."""
    return float(np.linalg.norm(got - exact)) / max(float(np.linalg.norm(exact)), 1e-30)
