"""``diffuse-fast sample``: draw samples into a picture or an array file."""

from __future__ import annotations

import itertools
import os
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import words

if TYPE_CHECKING:
    from ..model import Model

STEPS = 20  # where nothing says how many


def sample(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="An artifact (.onnx), or a bundled model: digits.")],
    n: Annotated[int, typer.Option("-n", help="Number of samples.")] = 16,
    steps: Annotated[
        int | None, typer.Option(show_default="20, or as many as --timesteps or --sigmas", help="Steps of the solver.")
    ] = None,
    solver: Annotated[str, typer.Option(help="`diffuse-fast solvers` lists them.")] = "ddim",
    option: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="An option of the solver, as eta=0.5. May be repeated.")
    ] = None,
    seed: Annotated[
        str | None, typer.Option(metavar="S[,S...]", help="One, or one for each sample; a fresh one unless given, which is said.")
    ] = None,
    first_index: Annotated[int, typer.Option(help="Index of the first sample under the seed: goes on where a run stopped.")] = 0,
    cond: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE[,VALUE...]",
            help="A conditioning input, as label=7, or label=squares where `inspect` lists the names; several values go round the "
            "samples; @FILE.npy for an array, of one value for all or one for each sample. May be repeated.",
        ),
    ] = None,
    negative_cond: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE[,VALUE...]", help="As --cond, for what guidance leads away from.")
    ] = None,
    guidance_scale: Annotated[
        str, typer.Option(metavar="W[,W...]", help="Classifier-free guidance; 1 is none. One, or one for each sample.")
    ] = "1",
    guidance_batch: Annotated[
        str, typer.Option(help="joined: one network call for both evaluations; separate: two, for half the memory.")
    ] = "joined",
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            show_default="samples.png, or samples-2.png, ... where that is there already",
            help="A .png or .jpg (a grid), .gif (one after the other), .npy or .npz; all but an .npy also hold how it was made.",
        ),
    ] = None,
    columns: Annotated[int | None, typer.Option(help="Pictures in a row of the grid.")] = None,
    scale: Annotated[int | None, typer.Option(help="Enlarge every pixel of the grid this many times.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Samples per network call at most; bounds memory.")] = None,
    timestep_spacing: Annotated[
        str | None, typer.Option(help="leading, trailing, linspace, karras, exponential, beta, beta_sigmas, log_snr or power.")
    ] = None,
    rho: Annotated[float | None, typer.Option(help="Exponent of the spacings karras and power.")] = None,
    sigma_min: Annotated[float | None, typer.Option(help="The smallest noise level of a spacing over levels.")] = None,
    sigma_max: Annotated[float | None, typer.Option(help="The largest.")] = None,
    beta_shape: Annotated[str | None, typer.Option(metavar="A,B", help="Shape of the distribution of the spacing beta.")] = None,
    sigmas: Annotated[str | None, typer.Option(metavar="S,S,...", help="The noise levels themselves, falling.")] = None,
    timesteps: Annotated[str | None, typer.Option(metavar="T,T,...", help="The timesteps themselves, falling.")] = None,
    begin: Annotated[float | None, typer.Option(metavar="T", help="Start at this time of the schedule, from --data.")] = None,
    end: Annotated[
        str | None,
        typer.Option(metavar="T|data|last", help="Stop at this time; with --sigmas at the last of them, or go on to the data."),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(metavar="FILE.npy", help="What is noised to where sampling starts: one sample for all, or one for each."),
    ] = None,
    clip: Annotated[
        str | None, typer.Option(metavar="LO,HI", help="Where to clip the data prediction; the model's own unless given.")
    ] = None,
    no_clip: Annotated[bool, typer.Option("--no-clip", help="Do not clip.")] = False,
    runtime: Annotated[str, typer.Option(help="What runs the network; auto is what `tune` found, else onnx.")] = "auto",
    threads: Annotated[int | None, typer.Option(help="Inside one network call; what `tune` found, else physical cores.")] = None,
    precision: Annotated[str, typer.Option(help="What to compute it in: float32, float32-fast, bfloat16, int8.")] = "float32",
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:N; exit status 3 where this machine lacks it.")] = "auto",
) -> None:
    """Draw samples from a model.

    Example: diffuse-fast sample digits -n 64 --steps 20 --cond label=7 --out sevens.png
    """
    out = _free() if out is None else out
    from .. import saving

    if out.suffix.lower() not in saving.IMAGES and out.suffix not in saving.SUFFIXES:
        raise typer.BadParameter(f"--out is {str(out)!r}; it must end in {', '.join(saving.SUFFIXES)}.")
    if out.suffix.lower() not in saving.IMAGES and (columns is not None or scale is not None):
        raise typer.BadParameter("--columns and --scale lay out a picture.")
    for name, value in (("--columns", columns), ("--scale", scale)):
        if value is not None and value < 1:
            raise typer.BadParameter(f"{name} is {value}; it must be at least 1.")
    if clip is not None and no_clip:
        raise typer.BadParameter("--clip and --no-clip contradict each other.")
    bounds = None if clip is None else words.numbers("--clip", clip)
    if bounds is not None and len(bounds) != 2:
        raise typer.BadParameter(f"--clip is {clip!r}; it must be two numbers, as -1,1.")

    from .. import files
    from ..artifact.document import LEARNED
    from ..engine import sample as draw
    from ..model import load
    from ..solver import SOLVERS

    loaded = load(model)
    known = SOLVERS[solver].options if solver in SOLVERS else {}
    call: dict[str, Any] = {
        "n": n,
        "steps": STEPS if steps is None and timesteps is None and sigmas is None and solver != LEARNED else steps,
        "solver": solver,
        # df.sample would draw one and keep it to itself: the file and the user are to know.
        "seed": secrets.randbits(64) if seed is None else _one_or_each("--seed", seed, n, int),
        "first_index": first_index,
        "cond": _conditioning("--cond", cond, n, loaded),
        "negative_cond": _conditioning("--negative-cond", negative_cond, n, loaded) or None,
        "guidance_scale": _one_or_each("--guidance-scale", guidance_scale, n, float),
        "guidance_batch": guidance_batch,
        "batch_size": batch_size,
        "timestep_spacing": timestep_spacing,
        "timesteps": None if timesteps is None else words.numbers("--timesteps", timesteps),
        **{
            name: value
            for name, value in (
                ("rho", rho),
                ("sigma_min", sigma_min),
                ("sigma_max", sigma_max),
                ("beta_shape", None if beta_shape is None else words.numbers("--beta-shape", beta_shape)),
                ("sigmas", None if sigmas is None else words.numbers("--sigmas", sigmas)),
                ("begin", begin),
                ("end", end if end in (None, "data", "last") else words.typed("--end", end, float)),
            )
            if value is not None
        },
        "clip": False if no_clip else bounds,
        "runtime": runtime,
        "threads": threads,
        "device": device,
        "precision": precision,
        **{
            # One that the solver does not have goes on as it is: the library says which it has.
            name: words.typed(f"--option {name}", text, known[name].kind) if name in known else text
            for name, text in words.pairs("--option", option or ()).items()
        },
    }
    if data is not None:
        call["data"] = _each("--data", data, n, loaded.shape)
    # What can be refused is refused before there are samples.
    files.writable(out)
    saving.check_suffix(out)
    if out.suffix.lower() in saving.IMAGES:
        saving.check_images(loaded)
    recipe = {"model": loaded.name, "sha256": loaded.sha256, "sample": call, "made_by": _made_by()}
    x = draw(loaded, **call, progress=True)
    saving.save(out, x, (-1.0, 1.0) if loaded.value_range is None else loaded, recipe=recipe, columns=columns, scale=scale)
    print(f"{out}: {n} of {loaded.name}, {solver}, {x.shape[1:]} each, seed {call['seed']}")


def _free() -> Path:
    """``samples.png``, or with the first number under which there is nothing yet: a name that nobody gave replaces no file."""
    names = itertools.chain(["samples.png"], (f"samples-{i}.png" for i in itertools.count(2)))
    return next(path for path in map(Path, names) if not os.path.lexists(path))


def _one_or_each(option: str, text: str, n: int, kind: type) -> Any:
    """A number, or one for each sample."""
    values = [words.typed(option, part, kind) for part in text.split(",")]
    if len(values) not in (1, n):
        raise typer.BadParameter(f"{option} has {len(values)} values; give one, or one for each of the {n} samples.")
    return values[0] if "," not in text else values


def _conditioning(option: str, given: list[str] | None, n: int, model: Model) -> dict[str, Any]:
    return {
        name: _per_sample(f"{option} {name}", text, n, words.class_names(model, name))
        for name, text in words.pairs(option, given or ()).items()
    }


def _per_sample(option: str, text: str, n: int, names: Sequence[str]) -> Any:
    if text.startswith("@"):
        return _array(option, Path(text[1:]))
    value = words.values(option, text, names)
    if not isinstance(value, list):
        return value
    if len(value) > n:
        raise typer.BadParameter(f"{option} has {len(value)} values for {n} samples.")
    return [value[i % len(value)] for i in range(n)]


def _array(option: str, path: Path) -> list[Any]:
    """An array of a file, as lists: the recipe of an .npz holds it."""
    import numpy as np

    try:
        array = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise typer.BadParameter(f"{option}: {str(path)!r} cannot be read as an .npy: {error}") from None
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "iufb":
        raise typer.BadParameter(f"{option}: {str(path)!r} must be an .npy of numbers.")
    return array.tolist()


def _each(option: str, path: Path, n: int, shape: tuple[int, ...]) -> list[Any]:
    """Samples of a file; one stands for all."""
    import numpy as np

    array = np.array(_array(option, path), np.float64)
    return (np.broadcast_to(array, (n, *shape)) if array.shape == shape else array).tolist()


def _made_by() -> dict[str, Any]:
    from .. import __version__, _core
    from ..kernels import get_kernel

    return {"diffuse_fast": __version__, "noise_version": _core.NOISE_VERSION, "kernel": get_kernel().name}
