"""Calibrate ranges on the values inside a network along its own sampling trajectories, at every noise level."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..artifact.document import Range
from ..engine.sampler import Sampler
from ..learning.task import conditions
from ..model import Model
from ..onnx.graph import Graph
from ..planning import plan_for
from ..rewrites.group_norm_to_instance_norm import group_norm_to_instance_norm
from ..rewrites.insert_qdq import scale_and_zero_point
from ..runtimes import network

SOLVER = "ddim"
MAX_NUMBERS = 1 << 14  # numbers sampled from each value, over all network calls
SHRINK = np.linspace(0.4, 1.0, 41)  # candidates for the end of a range, as fractions of the largest number


@dataclass(frozen=True)
class Call:
    """One network call on a trajectory: its inputs and its float32 output."""

    x: np.ndarray
    t: float
    cond: dict[str, np.ndarray]
    output: np.ndarray


@dataclass(frozen=True)
class Calibration:
    """Ranges and sizes of the values of a graph, by name.

    Attributes:
        ranges: The range whose 256 levels have the smallest mean square error.
        sizes: Number of elements for one sample.
    """

    ranges: dict[str, Range]
    sizes: dict[str, int]


def trajectories(model: Model, samples: int, steps: int, seed: int, given: Mapping[str, Any] | None) -> list[Call]:
    """Draw ``samples`` in float32 and return the network calls."""
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


def calibrate(
    model: Model, values: Sequence[str], samples: int, steps: int, seed: int, given: Mapping[str, Any] | None
) -> Calibration:
    """Draw ``samples`` in float32 and find the ranges of values of the graph.

    The numbers of each value are subsampled. Its smallest and largest number are always included, with the weight of one number
    among all, so that a single outlier does not widen the range.
    """
    graph = model.graph()
    inside = [name for name in values if name != model.input]
    for name in inside:
        if name != model.output:
            graph.add_output(name)
    group_norm_to_instance_norm(graph)
    session = open_session(graph)
    rng = np.random.default_rng(seed)
    sampled: dict[str, list[np.ndarray]] = {name: [] for name in values}
    weights: dict[str, list[np.ndarray]] = {name: [] for name in values}
    sizes: dict[str, int] = {}
    kept = max(1, MAX_NUMBERS // steps)

    def record(x: np.ndarray, t: np.ndarray, **cond: np.ndarray) -> np.ndarray:
        output, *found = run(session, [model.output, *inside], model, Call(x, float(t[0]), cond, x))
        for name, array in (*zip(inside, found, strict=True), (model.input, x)):
            if name in sampled:
                flat = array.reshape(-1)
                sizes[name] = flat.size // len(x)
                numbers = flat[rng.integers(0, flat.size, kept)]
                sampled[name].append(np.concatenate([numbers, [flat.min(), flat.max()]]))
                weights[name].append(np.concatenate([np.ones(kept), np.full(2, kept / flat.size)]))
        return output

    _draw(model, record, samples, steps, seed, _conditions(model, samples, seed, given))
    ranges = {name: best_range(np.concatenate(sampled[name]), np.concatenate(weights[name])) for name in values}
    return Calibration(ranges, sizes)


def _conditions(model: Model, samples: int, seed: int, given: Mapping[str, Any] | None) -> dict[str, np.ndarray]:
    """Return the given conditions. Labels that are not given take every class and the null label, as guidance does."""
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
        return call(x, t, **cond)[:, : model.shape[0]]  # without the learned variance, if any

    plan = plan_for(model, SOLVER, steps)
    Sampler(prediction, plan, shape=model.shape, input_scale=model.input_scale).sample(samples, seed=seed, cond=cond)


def open_session(graph: Graph) -> Any:
    """Open an onnxruntime session of an edited graph, whose inner values were made outputs."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(graph.to_bytes(), options, providers=["CPUExecutionProvider"])


def run(session: Any, values: Sequence[str], model: Model, call: Call, more: Mapping[str, np.ndarray] | None = None) -> Any:
    """Return values of the graph for the inputs of a call; ``more`` are inputs that were added to the graph."""
    dims = next(i.shape for i in session.get_inputs() if i.name == model.time.input)
    per_sample = len(dims) == 1 and dims[0] != 1
    t = np.full((len(call.x),) if per_sample else (1,) * len(dims), call.t, model.time.dtype)
    return session.run(list(values), {model.input: call.x, model.time.input: t, **call.cond, **(more or {})})


def best_range(numbers: np.ndarray, weights: np.ndarray | None = None) -> Range:
    """Return the range with the smallest mean square quantization error, of those that end at a fraction of the extreme numbers.

    Args:
        numbers: The numbers, (n,).
        weights: Their weights, (n,); None for equal weights.
    """
    low, high = min(float(numbers.min()), 0.0), max(float(numbers.max()), 0.0)
    if low == high:
        return -1.0, 1.0  # all numbers are 0
    numbers = numbers.astype(np.float32)
    weight = np.ones(len(numbers), np.float32) if weights is None else weights.astype(np.float32)
    for _ in range(2):  # alternate between the upper and the lower end
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
    """Return the relative error of a model in int8 for each call: the 2-norm of the difference to the float32 output."""
    first = calls[0]
    bound = network(model, runtime, precision="int8").bind(len(first.x), model.shape, first.cond, model.output_shape)
    found = []
    for call in calls:
        bound.x[...] = call.x
        found.append(relative_difference(bound(call.t), call.output))
    return found


def relative_difference(got: np.ndarray, exact: np.ndarray) -> float:
    """Return ‖got − exact‖/‖exact‖."""
    return float(np.linalg.norm(got - exact)) / max(float(np.linalg.norm(exact)), 1e-30)
