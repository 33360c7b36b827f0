"""``diffuse-fast sample``: draw samples into an image or an array file."""

from __future__ import annotations

import itertools
import os
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import parsing

if TYPE_CHECKING:
    from ..model import Model

STEPS = 20  # default


def sample(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="An artifact (.onnx), or a bundled model: digits.")],
    n: Annotated[int, typer.Option("-n", help="Number of samples.")] = 16,
    steps: Annotated[
        int | None, typer.Option(show_default="20, or as many as --timesteps or --sigmas", help="Steps of the solver.")
    ] = None,
    solver: Annotated[str, typer.Option(help="`diffuse-fast solvers` lists them.")] = "ddim",
    option: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="A solver option, such as eta=0.5. May be repeated.")
    ] = None,
    seed: Annotated[
        str | None, typer.Option(metavar="S[,S...]", help="One seed, or one per sample. [default: a random one, which is printed]")
    ] = None,
    first_index: Annotated[int, typer.Option(help="Index of the first sample of the seed, to continue an earlier run.")] = 0,
    cond: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE[,VALUE...]",
            help="A conditioning input, such as label=7, or label=squares if `inspect` lists class names. Several values are "
            "assigned to the samples in turn. @FILE.npy holds one value for all samples, or one per sample. May be repeated.",
        ),
    ] = None,
    negative_cond: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE[,VALUE...]", help="As --cond, for the negative condition of guidance.")
    ] = None,
    guidance_scale: Annotated[
        str, typer.Option(metavar="W[,W...]", help="Classifier-free guidance; 1 is none. One scale, or one per sample.")
    ] = "1",
    guidance_batch: Annotated[
        str, typer.Option(help="joined: one network call for both evaluations; separate: two (not with the runtime native).")
    ] = "joined",
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            show_default="samples.png, or samples-2.png, ... if it exists",
            help="A .png or .jpg (a grid), .gif (one frame per sample), .npy or .npz. All but .npy also store the arguments.",
        ),
    ] = None,
    columns: Annotated[int | None, typer.Option(help="Images per row of the grid.")] = None,
    scale: Annotated[int | None, typer.Option(help="Scale the grid by this integer.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Maximum samples per network call; bounds memory.")] = None,
    timestep_spacing: Annotated[
        str | None, typer.Option(help="leading, trailing, linspace, karras, exponential, beta, beta_sigmas, log_snr or power.")
    ] = None,
    rho: Annotated[float | None, typer.Option(help="Exponent of the spacings karras and power.")] = None,
    sigma_min: Annotated[float | None, typer.Option(help="The smallest noise level of the spacing.")] = None,
    sigma_max: Annotated[float | None, typer.Option(help="The largest noise level of the spacing.")] = None,
    beta_shape: Annotated[str | None, typer.Option(metavar="A,B", help="Shape parameters of the spacing beta.")] = None,
    sigmas: Annotated[str | None, typer.Option(metavar="S,S,...", help="The noise levels, descending.")] = None,
    timesteps: Annotated[str | None, typer.Option(metavar="T,T,...", help="The timesteps, descending.")] = None,
    begin: Annotated[float | None, typer.Option(metavar="T", help="Start at this time of the schedule, from --data.")] = None,
    end: Annotated[
        str | None, typer.Option(metavar="T|data|last", help="Stop at this time; with --sigmas: at the last level, or at the data.")
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(metavar="FILE.npy", help="Data to noise to the level of --begin: one sample for all, or one per sample."),
    ] = None,
    clip: Annotated[
        str | None, typer.Option(metavar="LO,HI", help="Range to clip the data prediction to. [default: the model's]")
    ] = None,
    no_clip: Annotated[bool, typer.Option("--no-clip", help="Do not clip.")] = False,
    runtime: Annotated[str, typer.Option(help="Runtime of the network; auto is the choice of `tune`, else onnx.")] = "auto",
    threads: Annotated[
        int | None, typer.Option(help="Threads per network call. [default: the choice of `tune`, else physical cores]")
    ] = None,
    precision: Annotated[str, typer.Option(help="Precision of the network: float32, float32-fast, bfloat16, int8.")] = "float32",
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:N; the exit status is 3 if it is not available.")] = "auto",
) -> None:
    """Draw samples from a model.

    Example: diffuse-fast sample digits -n 64 --steps 20 --cond label=7 --out sevens.png
    """
    out = _free() if out is None else out
    from .. import saving

    if out.suffix.lower() not in saving.IMAGES and out.suffix not in saving.SUFFIXES:
        raise typer.BadParameter(f"--out is {str(out)!r}; it must end in {', '.join(saving.SUFFIXES)}.")
    if out.suffix.lower() not in saving.IMAGES and (columns is not None or scale is not None):
        raise typer.BadParameter("--columns and --scale need an image as --out.")
    for name, value in (("--columns", columns), ("--scale", scale)):
        if value is not None and value < 1:
            raise typer.BadParameter(f"{name} is {value}; it must be at least 1.")
    if clip is not None and no_clip:
        raise typer.BadParameter("--clip and --no-clip contradict each other.")
    bounds = None if clip is None else parsing.numbers("--clip", clip)
    if bounds is not None and len(bounds) != 2:
        raise typer.BadParameter(f"--clip is {clip!r}; it must be two numbers, such as -1,1.")

    from .. import files
    from ..artifact.document import LEARNED
    from ..engine.sample import sample as draw
    from ..model import load
    from ..solver import SOLVERS

    loaded = load(model)
    known = SOLVERS[solver].options if solver in SOLVERS else {}
    call: dict[str, Any] = {
        "n": n,
        "steps": STEPS if steps is None and timesteps is None and sigmas is None and solver != LEARNED else steps,
        "solver": solver,
        # Drawn here, so that it can be printed and stored in the file.
        "seed": secrets.randbits(64) if seed is None else _one_or_each("--seed", seed, n, int),
        "first_index": first_index,
        "cond": _conditioning("--cond", cond, n, loaded),
        "negative_cond": _conditioning("--negative-cond", negative_cond, n, loaded) or None,
        "guidance_scale": _one_or_each("--guidance-scale", guidance_scale, n, float),
        "guidance_batch": guidance_batch,
        "batch_size": batch_size,
        "timestep_spacing": timestep_spacing,
        "timesteps": None if timesteps is None else parsing.numbers("--timesteps", timesteps),
        **{
            name: value
            for name, value in (
                ("rho", rho),
                ("sigma_min", sigma_min),
                ("sigma_max", sigma_max),
                ("beta_shape", None if beta_shape is None else parsing.numbers("--beta-shape", beta_shape)),
                ("sigmas", None if sigmas is None else parsing.numbers("--sigmas", sigmas)),
                ("begin", begin),
                ("end", end if end in (None, "data", "last") else parsing.typed("--end", end, float)),
            )
            if value is not None
        },
        "clip": False if no_clip else bounds,
        "runtime": runtime,
        "threads": threads,
        "device": device,
        "precision": precision,
        **{
            # An unknown option is passed on: the library's error lists the known ones.
            name: parsing.typed(f"--option {name}", text, known[name].kind) if name in known else text
            for name, text in parsing.pairs("--option", option or ()).items()
        },
    }
    if data is not None:
        call["data"] = _each("--data", data, n, loaded.shape)
    # Check the output before sampling.
    files.writable(out)
    saving.check_suffix(out)
    if out.suffix.lower() in saving.IMAGES:
        saving.check_images(loaded)
    x = draw(loaded, **call, progress=True)
    recipe = {"model": loaded.name, "sha256": loaded.sha256, "sample": call, "made_by": _made_by(loaded, call)}
    saving.save(out, x, (-1.0, 1.0) if loaded.value_range is None else loaded, recipe=recipe, columns=columns, scale=scale)
    print(f"{out}: {n} of {loaded.name}, {solver}, {x.shape[1:]} each, seed {call['seed']}")


def _free() -> Path:
    """``samples.png``, or with the first free number: a default name never replaces a file."""
    names = itertools.chain(["samples.png"], (f"samples-{i}.png" for i in itertools.count(2)))
    return next(path for path in map(Path, names) if not os.path.lexists(path))


def _one_or_each(option: str, text: str, n: int, kind: type) -> Any:
    """Parse one number, or one per sample."""
    values = [parsing.typed(option, part, kind) for part in text.split(",")]
    if len(values) not in (1, n):
        raise typer.BadParameter(f"{option} has {len(values)} values; give one, or one per sample ({n}).")
    return values[0] if "," not in text else values


def _conditioning(option: str, given: list[str] | None, n: int, model: Model) -> dict[str, Any]:
    return {
        name: _per_sample(f"{option} {name}", text, n, parsing.class_names(model, name))
        for name, text in parsing.pairs(option, given or ()).items()
    }


def _per_sample(option: str, text: str, n: int, names: Sequence[str]) -> Any:
    if text.startswith("@"):
        return _array(option, Path(text[1:]))
    value = parsing.values(option, text, names)
    if not isinstance(value, list):
        return value
    if len(value) > n:
        raise typer.BadParameter(f"{option} has {len(value)} values for {n} samples.")
    return [value[i % len(value)] for i in range(n)]


def _array(option: str, path: Path) -> list[Any]:
    """Read an array as lists, which can be stored in an .npz."""
    import numpy as np

    try:
        array = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise typer.BadParameter(f"{option}: {str(path)!r} cannot be read as an .npy: {error}") from None
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "iufb":
        raise typer.BadParameter(f"{option}: {str(path)!r} must be an .npy of numbers.")
    return array.tolist()


def _each(option: str, path: Path, n: int, shape: tuple[int, ...]) -> list[Any]:
    """Read samples; a single one is repeated."""
    import numpy as np

    array = np.array(_array(option, path), np.float64)
    return (np.broadcast_to(array, (n, *shape)) if array.shape == shape else array).tolist()


def _made_by(model: Model, call: dict[str, Any]) -> dict[str, Any]:
    from .. import __version__, _core
    from ..kernels import get_kernel
    from ..runtimes.record import record

    versions = {"diffuse_fast": __version__, "noise_version": _core.NOISE_VERSION, "kernel": get_kernel().name}
    if call["device"] not in ("auto", "cpu"):
        return versions
    return {**versions, "network": record(model, call["runtime"], call["precision"], call["threads"])}
