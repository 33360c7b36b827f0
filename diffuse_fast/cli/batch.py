"""``diffuse-fast batch``: draw many samples into shards, on several processes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import parsing
from .sample import STEPS

INTERRUPTED = 130  # exit status, as of a shell's command that Ctrl-C ended


def batch(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="An artifact (.onnx), or a bundled model: digits.")],
    n: Annotated[int, typer.Option("-n", help="Number of samples.")],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FOLDER", help="The folder of the shards and of batch.json.")],
    steps: Annotated[int | None, typer.Option(show_default="20", help="Steps of the solver.")] = None,
    solver: Annotated[str, typer.Option(help="`diffuse-fast solvers` lists them.")] = "ddim",
    seed: Annotated[
        int | None, typer.Option(help="Sample i is index i of this seed. [default: the folder's; at first a random one]")
    ] = None,
    cond: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE[,VALUE...]",
            help="A conditioning input, such as label=7. Several values are assigned to the samples in turn. May be repeated.",
        ),
    ] = None,
    cond_file: Annotated[
        Path | None, typer.Option(metavar="FILE.npz", help="One array per conditioning input, with one row per sample.")
    ] = None,
    guidance_scale: Annotated[float, typer.Option(help="Classifier-free guidance; 1 is none.")] = 1.0,
    shard_size: Annotated[int, typer.Option(help="Samples per shard; a worker holds one shard in memory.")] = 1000,
    processes: Annotated[
        int | None, typer.Option(help="Worker processes; each holds the network. [default: physical cores / threads]")
    ] = None,
    threads: Annotated[int, typer.Option(help="Threads per worker.")] = 1,
    format: Annotated[str, typer.Option(help="npz, or png: a .zip of pictures per shard.")] = "npz",
    precision: Annotated[str, typer.Option(help="Precision of the network: float32, float32-fast, bfloat16, int8.")] = "float32",
    runtime: Annotated[str, typer.Option(help="Runtime of the network; auto is the choice of `tune`, else onnx.")] = "auto",
) -> None:
    """Draw many samples into a folder of shards, on several processes. The same command goes on where it was stopped.

    Example: diffuse-fast batch digits -n 1000000 --cond label=0,1,2,3,4,5,6,7,8,9 --out digits-1m
    """
    from ..artifact.document import LEARNED
    from ..batch import run
    from ..console import say
    from ..model import load

    loaded = load(model)
    given = {}
    for name, text in parsing.pairs("--cond", cond or ()).items():
        if text.startswith("@"):
            raise typer.BadParameter(f"--cond {name} takes values; give a file by --cond-file.")
        values = parsing.values(f"--cond {name}", text, parsing.class_names(loaded, name))
        given[name] = values if isinstance(values, list) else [values]
    try:
        result = run(
            loaded,
            n,
            out,
            solver=solver,
            steps=STEPS if steps is None and solver != LEARNED else steps,
            seed=seed,
            guidance_scale=guidance_scale,
            cond=given,
            cond_file=cond_file,
            shard_size=shard_size,
            processes=processes,
            threads=threads,
            format=format,
            precision=precision,
            runtime=runtime,
            say=say,
        )
    except KeyboardInterrupt:
        say("diffuse-fast: stopped. The shards that are written stay; the same command goes on.")
        raise typer.Exit(INTERRUPTED) from None
    recipe = result.recipe
    print(f"{out}: {n} of {recipe.model} in {recipe.shards} shards, {solver}, seed {recipe.seed}")
    if result.failed:
        named = f"{', '.join(map(str, result.failed[:8]))}{' and more' if len(result.failed) > 8 else ''}"
        say(f"diffuse-fast: the network returned NaN or Inf for {len(result.failed)} samples, which are left out: {named}.")
        raise typer.Exit(1)
