"""``quantize``: write an artifact that can compute in int8."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..artifact.check_document import check_schedule
from ..checks import require_int, require_positive
from ..engine.sample import load_cached
from ..errors import ArgumentError, ArgumentTypeError
from ..files import writable
from ..model import Model, rewritten
from ..runtimes.registry import RUNTIMES, select
from . import calibrate
from .choose import candidates, choose, in_int8, quantization_of, rms, values

if TYPE_CHECKING:
    from ..training.data import Split

HELD_OUT_SAMPLES, HELD_OUT_STEPS = 4, 10
EVALUATED_STEPS = 20


def quantize(
    model: str | Path | Model,
    out: str | os.PathLike[str],
    *,
    samples: int = 16,
    steps: int = 50,
    seed: int = 0,
    cond: Mapping[str, Any] | None = None,
    max_error: float = 0.05,
    data: Split | None = None,
    progress: Callable[[str], object] | None = None,
) -> Model:
    """Write a model with what ``precision="int8"`` needs: the layers, their ranges, and the measured error.

    The network draws ``samples`` in ``steps`` steps, so that the ranges are valid at every noise level. The weights in the file
    stay float32, and other precisions compute what they did before; int8 weights are made when a session is built. The first and
    last layers and those that embed time and conditioning stay in float32. If the error is still above ``max_error``, so do the
    layers that cause the largest errors. Needs onnxruntime, and torch only if ``data`` is given.

    Args:
        model: An artifact: its path, a bundled name or a ``df.Model``, with its weights in the file.
        out: The .onnx to write; it may be the model's own.
        samples, steps, seed: Of the trajectories used for calibration. The error is measured on other trajectories.
        cond: Values to draw conditions from, by input name, as for :func:`diffuse_fast.learn_solver`; None for every class of a
            label and the null label.
        max_error: Largest relative error of int8: root mean square over the calls of a trajectory of ‖y − y32‖/‖y32‖, with the
            runtime that ``runtime="auto"`` takes for int8.
        data: Real images with labels. If given, the Fréchet distance of samples to them is measured in float32 and int8.
        progress: Called with lines of text.

    Returns:
        The written model.

    Raises:
        ArgumentError, ArgumentTypeError: an argument is invalid, no layer can compute in int8 within ``max_error``, or the
            weights are outside the file.
        OutputError: ``out`` cannot be written; checked before the work begins.

    Example:
        >>> import diffuse_fast as df
        >>> model = df.quantize("digits", "digits.onnx")                          # doctest: +SKIP
        >>> df.sample(model, 4, 20, precision="int8").shape                      # doctest: +SKIP
        (4, 1, 8, 8)
    """
    model = model if isinstance(model, Model) else load_cached(model)
    for name, number in (("samples", samples), ("steps", steps)):
        require_int(name, number, 1)
    require_int("seed", seed, 0)
    max_error = require_positive("max_error", max_error)
    target = _target(model, out)
    say = progress or (lambda line: None)
    nodes = candidates(model)
    if not nodes:
        raise ArgumentError(f"the model {model.name!r} has no layer between its first and last that could compute in int8.")
    say(f"calibration: {samples} samples, {steps} steps")
    calibration = calibrate.calibrate(model, values(nodes), samples, steps, seed, cond)
    ranges = calibration.ranges
    held_out = calibrate.trajectories(model, HELD_OUT_SAMPLES, HELD_OUT_STEPS, seed + 1, cond)
    runtime = select(in_int8(model, nodes, ranges), precision="int8").name
    chosen = choose(model, nodes, calibration, held_out, runtime, max_error, say)
    if not chosen:
        raise ArgumentError(f"no layer of {model.name!r} can compute in int8 with a relative error of at most {max_error:g}.")
    draft = in_int8(model, chosen, ranges)
    errors = {r.name: calibrate.relative_error(draft, r.name, held_out) for r in RUNTIMES if "int8" in r.precisions and r.installed}
    record = {
        "samples": samples, "steps": steps, "solver": calibrate.SOLVER, "seed": seed, "layers_able": len(nodes),
        "relative_error_by_time": {n: [[c.t, float(f"{e:.4g}")] for c, e in zip(held_out, errors[n], strict=True)] for n in errors},
    }  # fmt: skip
    found = dataclasses.replace(
        quantization_of(chosen, ranges),
        relative_error={name: float(f"{rms(e):.4g}") for name, e in errors.items()},
        frechet_distance=None if data is None else _distances(draft, data, seed, say),
        calibration=record,
    )
    return rewritten(model, target, quantization=found)


def _distances(model: Model, data: Split, seed: int, say: Callable[[str], object]) -> dict[str, float]:
    """Fréchet distances of as many samples as images are held out, in float32 and in int8."""
    from ..training.evaluation.classifier import train_classifier
    from ..training.evaluation.image_quality import evaluate

    say("Fréchet distance: training the classifier")
    classifier = train_classifier(data.images, data.labels)
    found = {}
    for precision in ("float32", "int8"):
        *_, drawn = evaluate(
            model, data, solvers=("ddim",), steps=(EVALUATED_STEPS,), seed=seed, classifier=classifier, precision=precision
        )
        found[precision] = float(f"{drawn.frechet_distance:.4g}")
        say(f"{precision}: Fréchet distance {drawn.frechet_distance:.3f}, read as the class asked for {drawn.accuracy:.2f} %")
    return found


def _target(model: Model, out: Any) -> Path:
    if not isinstance(out, str | os.PathLike):
        raise ArgumentTypeError(f"out is a {type(out).__name__}; it must be the path of the file to write.")
    if model.external:
        beside = model.external[0].name
        raise ArgumentError(f"the weights of {model.path.name} are beside it in {beside}; int8 needs them in the file.")
    check_schedule(model)
    if Path(out).suffix != ".onnx":
        raise ArgumentError(f"out is {str(out)!r}; it must end in '.onnx'.")
    return writable(out)
