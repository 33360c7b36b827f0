"""``diffuse-fast evaluate``: how good a model's images are, for each solver and number of steps."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer


def evaluate(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A class-conditional model of images, or a bundled one: digits.")],
    data: Annotated[
        str, typer.Option(help="Real images: 'digits', or an .npz with images (N, C, H, W) in the model's value range and labels.")
    ] = "digits",
    solver: Annotated[
        list[str] | None, typer.Option(help="Of `diffuse-fast solvers`, or 'learned', or 'all'. May be repeated. [default: ddim]")
    ] = None,
    steps: Annotated[list[int] | None, typer.Option(help="May be repeated. [default: 5, 10, 20, 50]")] = None,
    label: Annotated[str, typer.Option(help="The conditioning input that takes the class.")] = "label",
    guidance_scale: Annotated[float, typer.Option(help="Classifier-free guidance.")] = 1.0,
    seed: Annotated[int, typer.Option(help="Of the samples.")] = 0,
    precision: Annotated[str, typer.Option(help="What to compute it in: float32, float32-fast, bfloat16, int8.")] = "float32",
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder for quality.csv and quality.png.")] = None,
) -> None:
    """Measure what a model draws: accuracy, Fréchet distance, precision and recall.

    A judge trained on the real images reads as many generated ones as are held out, with their classes. The figures of the
    held-out images themselves come first: they are what generated ones can hope for.

    Example: diffuse-fast evaluate digits --solver ddim --solver dpmpp_2m --steps 5 --steps 20 --out out/quality
    """
    from ..console import say
    from ..files import writable
    from ..training.evaluation import image_quality, plot
    from .tables import show

    solvers, counts = _solvers(solver or ["ddim"]), steps or [5, 10, 20, 50]
    split = _data(data)
    files = None if out is None else (out / "quality.csv", out / "quality.png")
    if out is not None and files is not None:
        _folder(out)
        for path in files:
            writable(path)
        plot.needs_matplotlib()
    refused: list[tuple[str, int, str]] = []
    rows = []
    say(f"training the judge on {len(split.labels):,} images")
    for row in image_quality.evaluate(
        model,
        split,
        solvers=solvers,
        steps=counts,
        label=label,
        seed=seed,
        guidance_scale=guidance_scale,
        precision=precision,
        progress=True,
        on_refused=lambda *why: refused.append(why),
    ):
        rows.append(row)
        if files is not None:  # after each row: what was measured outlives an interrupt
            image_quality.to_csv(rows, files[0])
        say(f"{row.solver}, {row.steps} steps: done")
    if files is not None:
        plot.plot(rows, files[1], f"{model}: quality by solver and calls of the network")
    show(
        f"{model}, {len(split.held_out_labels)} images each",
        [_cells(row) for row in rows],
        ("images", "steps", "NFE", "accuracy %", "score", "Fréchet distance", "precision", "recall"),
    )
    for name, count, why in refused:
        say(f"not drawn: {name}, {count} steps: {why}")
    if files is not None:
        print(f"{files[0]}, {files[1]}")
    if len(rows) == 1:
        raise typer.Exit(1)


def _cells(row: Any) -> tuple[str, ...]:
    return (
        row.solver, str(row.steps or ""), str(row.nfe or ""), f"{row.accuracy:.2f}", f"{row.score:.2f}",
        f"{row.frechet_distance:.2f}", f"{row.precision:.3f}", f"{row.recall:.3f}",
    )  # fmt: skip


def _solvers(asked: list[str]) -> list[str]:
    from ..solver import solvers

    every = list(solvers())
    return list(dict.fromkeys(name for given in asked for name in (every if given == "all" else [given])))


def _data(given: str) -> Any:
    from ..training.data import digits
    from ..training.evaluation.held_out import split_npz

    return digits() if given == "digits" else split_npz(given)


def _folder(out: Path) -> None:
    from ..errors import OutputError

    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot make the folder {out}: {error}") from error
