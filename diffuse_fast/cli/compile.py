"""``diffuse-fast compile``: write a model and a plan as one file for the library without Python."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from . import parsing


def compile(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="An artifact (.onnx), or a bundled model: digits.")],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FILE.dfp", help="The file to write.")],
    steps: Annotated[int | None, typer.Option(help="Steps of the solver; left out with --timesteps.")] = None,
    solver: Annotated[str, typer.Option(help="`diffuse-fast solvers` lists them; learned is a plan of the model.")] = "ddim",
    option: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="A solver option, such as eta=0.5. May be repeated.")
    ] = None,
    guidance_scale: Annotated[float, typer.Option(help="Classifier-free guidance; 1 is none.")] = 1.0,
    timestep_spacing: Annotated[str | None, typer.Option(help="As for `sample`.")] = None,
    timesteps: Annotated[str | None, typer.Option(metavar="T,T,...", help="The timesteps, descending.")] = None,
    clip: Annotated[
        str | None, typer.Option(metavar="LO,HI", help="Range to clip the data prediction to. [default: the model's]")
    ] = None,
    no_clip: Annotated[bool, typer.Option("--no-clip", help="Do not clip.")] = False,
    precision: Annotated[str, typer.Option(help="Precision of the network: float32 or float32-fast.")] = "float32",
) -> None:
    """Compile a model and a plan into one file, from which libdiffuse_fast draws samples without Python.

    Example: diffuse-fast compile digits --solver ddim --steps 20 --out digits.dfp
    """
    if clip is not None and no_clip:
        raise typer.BadParameter("--clip and --no-clip contradict each other.")
    bounds = None if clip is None else parsing.numbers("--clip", clip)
    if bounds is not None and len(bounds) != 2:
        raise typer.BadParameter(f"--clip is {clip!r}; it must be two numbers, such as -1,1.")

    from ..compiling import compile_model
    from ..solver import SOLVERS

    known = SOLVERS[solver].options if solver in SOLVERS else {}
    options: dict[str, Any] = {
        "solver": solver,
        "guidance_scale": guidance_scale,
        "precision": precision,
        "clip": False if no_clip else bounds,
        "timestep_spacing": timestep_spacing,
        "timesteps": None if timesteps is None else parsing.numbers("--timesteps", timesteps),
        **{
            # An unknown option is passed on: the library's error lists the known ones.
            name: parsing.typed(f"--option {name}", text, known[name].kind) if name in known else text
            for name, text in parsing.pairs("--option", option or ()).items()
        },
    }
    path = compile_model(model, out, steps, **options)
    print(f"{path}: {path.stat().st_size:,} bytes")
