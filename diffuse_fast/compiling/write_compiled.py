"""Compile a model and a plan into one file.

The network is lowered and loaded once, so that a file that is written is one that the library can load.
"""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

import numpy as np

from .. import __version__
from ..engine.plan_cache import facts_of
from ..engine.sampler import Sampler
from ..errors import ArgumentError, ArgumentTypeError
from ..files import replacing, writable
from ..model import Model, load
from ..plans.plan import Plan
from ..program.encoding import encode
from ..program.identity import program_hash
from ..runtimes.native import constants_of, exact_operations, float32_layers, program_of
from .file_format import CompiledModel, write

# Arguments of df.sample that are not part of a plan: what the caller of the library gives, and what it does not have.
_LATER = ("n", "seed", "first_index", "cond", "threads")
_MISSING = ("negative_cond", "data", "noise", "known", "mask", "step_noise", "callback", "progress", "batch_size", "runtime",
            "device", "graph", "guidance_batch", "shape", "variance", "input_scale")  # fmt: skip


def compile_model(
    model: Model | str | Path,
    path: str | os.PathLike[str],
    steps: int | None = None,
    *,
    solver: str | Plan = "ddim",
    guidance_scale: float = 1.0,
    guidance_interval: tuple[float, float] | None = None,
    guidance_rescale: float = 0.0,
    precision: str = "float32",
    **plan_options: Any,
) -> Path:
    """Write a model and a plan as one file, from which ``libdiffuse_fast`` draws samples without Python.

    The file holds the network lowered for the runtime ``native``, its weights, the rows of the plan, and the conditioning inputs
    with their null values. A sample that the library draws from it has the bits of ``df.sample(model, n, steps,
    runtime="native", ...)`` with the same arguments, seed and index. ``docs/compiled.md`` describes the library and the file.

    Args:
        model: A model file: a path, the name of a bundled model, or a ``df.Model``.
        path: The file to write; ``.dfp`` by custom. An existing file is replaced.
        steps: As for :func:`~diffuse_fast.sample`; None with ``timesteps``, or with a plan.
        solver: Name of a solver, ``learned`` for a plan of the model, or a plan.
        guidance_scale, guidance_interval, guidance_rescale: As for :func:`~diffuse_fast.sample`, one number each. The second
            evaluation takes the null value of every conditioning input.
        precision: ``float32`` or ``float32-fast``.
        **plan_options: As for :func:`~diffuse_fast.sample`: ``clip``, ``timestep_spacing``, ``timesteps``, ``schedule``,
            ``prediction_type``, options of the solver.

    Returns:
        The path.

    Raises:
        UnsupportedError: the native runtime does not support the network; the message names the operation.
        ArgumentError, ArgumentTypeError: the model is not a model file, an argument is not part of a plan, the plan begins in the
            middle of the schedule, an input of a guided model has no null value, or as :func:`~diffuse_fast.sample`.
        ArtifactError: the model file is damaged.
        OutputError: the file cannot be written.

    Example:
        >>> import diffuse_fast as df
        >>> df.compile_model("digits", "digits.dfp", 20, solver="ddim").name
        'digits.dfp'
    """
    if not isinstance(model, str | Path | Model):
        raise ArgumentTypeError(
            f"model is a {type(model).__name__}; compile_model takes a model file. df.export writes a torch module as one, and a "
            f"function cannot be compiled."
        )
    for name in plan_options:
        if name in _LATER:
            raise ArgumentTypeError(f"{name} is given to the library when it samples (df_request); leave it out.")
        if name in _MISSING:
            raise ArgumentTypeError(f"a compiled model has no {name}; leave it out.")
    target = writable(path)
    model = model if isinstance(model, Model) else load(model)
    sampler = Sampler(
        model,
        solver,
        steps,
        runtime="native",
        device="cpu",
        guidance_scale=guidance_scale,
        guidance_interval=guidance_interval,
        guidance_rescale=guidance_rescale,
        precision=precision,
        **plan_options,
    )
    plan = sampler.plan
    _check(model, sampler, guidance_scale)
    program, facts = program_of(model), facts_of(plan)
    with model.files.unchanged(), constants_of(program, model.path) as constants:
        compiled = CompiledModel(
            name=model.name,
            about=_about(model, plan, program_hash(program), guidance_interval, guidance_rescale, precision),
            shape=model.shape,
            value_range=model.value_range,
            conditioning=model.conditioning,
            steps=plan.steps,
            guidance_scale=float(guidance_scale),
            evaluations=facts.outputs,
            registers=plan.registers,
            initial_scale=plan.initial_scale,
            rows=facts.packed,
            times=np.array([row.timestep for row in plan.rows], np.float32),
            precision=precision,
            exact=exact_operations(program, float32_layers(model)),
            words=encode(program),
            constants=constants,
            sizes=[b.size for b in program.buffers if b.initializer is not None or b.values is not None],
        )
        with replacing(target) as partial, open(partial, "wb") as file:
            write(compiled, file)
    return target


def _check(model: Model, sampler: Sampler, guidance_scale: float) -> None:
    """Refuse a plan that the library cannot run."""
    plan, facts = sampler.plan, facts_of(sampler.plan)
    sampler.setup.network.check_shapes(model.shape, model.output_shape)
    sampler.setup.network.check_times(facts.times)
    if plan.starts_from_data:
        raise ArgumentError("the plan begins in the middle of the schedule, from data; a compiled model starts from noise.")
    for c in model.conditioning:
        if facts.outputs > 1 and c.null is None:
            raise ArgumentError(f"guidance_scale is {guidance_scale}, and the model has no null value for {c.name!r}.")


def _about(model: Model, plan: Plan, program: str, interval: Any, rescale: float, precision: str) -> str:
    """What a file says about itself, as JSON."""
    about = {
        "license": model.license,
        "solver": plan.solver,
        "options": dict(plan.options),
        "nfe": plan.nfe,
        "guidance_interval": None if interval is None else [v if math.isfinite(v) else None for v in interval],
        "guidance_rescale": rescale,
        "precision": precision,
        "class_names": {c.name: c.class_names for c in model.conditioning if c.class_names is not None},
        "model_sha256": model.sha256,
        "program_sha256": program,
        "producer": f"diffuse_fast {__version__}",
    }
    return json.dumps(about, sort_keys=True, allow_nan=False)
