"""``diffuse-fast evaluate``: the quality of a model's images, for each solver and number of steps."""

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
        list[str] | None,
        typer.Option(help="One of `diffuse-fast solvers`, or 'learned', or 'all'. May be repeated. [default: ddim]"),
    ] = None,
    steps: Annotated[list[int] | None, typer.Option(help="May be repeated. [default: 5, 10, 20, 50]")] = None,
    label: Annotated[str, typer.Option(help="The conditioning input that takes the class.")] = "label",
    guidance_scale: Annotated[
        list[float] | None, typer.Option(help="Classifier-free guidance. May be repeated. [default: 1]")
    ] = None,
    sets: Annotated[int, typer.Option(help="Sets of images per row; each has as many as are held out.")] = 1,
    seed: Annotated[int, typer.Option(help="Seed of the samples.")] = 0,
    precision: Annotated[str, typer.Option(help="Precision of the network: float32, float32-fast, bfloat16, int8.")] = "float32",
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder for quality.csv and quality.png.")] = None,
) -> None:
    """Measure the images of a model: accuracy, Fréchet distance, precision and recall.

    A classifier trained on the real images measures as many generated images as are held out, with their classes. The figures
    of the held-out images come first: they are the best that generated ones can be expected to reach.

    Example: diffuse-fast evaluate digits --solver ddim --solver dpmpp_2m --steps 5 --steps 20 --out out/quality
    """
    from ..console import say
    from ..files import writable
    from ..training.evaluation import image_quality, plot
    from .tables import show

    solvers, counts = _solvers(solver or ["ddim"]), steps or [5, 10, 20, 50]
    split = real_images(data)
    files = None if out is None else (out / "quality.csv", out / "quality.png")
    if out is not None and files is not None:
        _folder(out)
        for path in files:
            writable(path)
        plot.needs_matplotlib()
    refused: list[tuple[str, int, str]] = []
    rows = []
    say(f"training the classifier on {len(split.labels):,} images")
    for row in image_quality.evaluate(
        model,
        split,
        solvers=solvers,
        steps=counts,
        guidance_scales=guidance_scale or [1.0],
        sets=sets,
        label=label,
        seed=seed,
        precision=precision,
        progress=True,
        on_refused=lambda *why: refused.append(why),
    ):
        rows.append(row)
        if files is not None:  # after each row, so that an interrupt loses nothing
            image_quality.to_csv(rows, files[0])
        say(f"{row.label}, {row.steps} steps: done")
    if files is not None:
        plot.plot(rows, files[1], f"{model}: quality by solver and network calls")
    show(
        f"{model}, {sets * len(split.held_out_labels):,} images each",
        [_cells(row) for row in rows],
        ("images", "steps", "NFE", "accuracy %", "score", "Fréchet distance", "precision", "recall", "nearest", "copies"),
    )
    for name, count, why in refused:
        say(f"not measured: {name}, {count} steps: {why}")
    if files is not None:
        print(f"{files[0]}, {files[1]}")
    if len(rows) == 1:
        raise typer.Exit(1)


def _cells(row: Any) -> tuple[str, ...]:
    spread = f" ± {row.frechet_distance_std:.2f}" if row.frechet_distance_std else ""
    return (
        row.label, str(row.steps or ""), str(row.nfe or ""), f"{row.accuracy:.2f}", f"{row.score:.2f}",
        f"{row.frechet_distance:.2f}{spread}", f"{row.precision:.3f}", f"{row.recall:.3f}", f"{row.nearest:.3f}", str(row.copies),
    )  # fmt: skip


def _solvers(names: list[str]) -> list[str]:
    from ..solver import solvers

    every = list(solvers())
    return list(dict.fromkeys(name for given in names for name in (every if given == "all" else [given])))


def real_images(name: str) -> Any:
    from ..training.data import digits
    from ..training.evaluation.held_out import split_npz

    return digits() if name == "digits" else split_npz(name)


def _folder(out: Path) -> None:
    from ..errors import OutputError

    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot make the folder {out}: {error}") from error
