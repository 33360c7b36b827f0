"""``diffuse-fast quantize``: calibrate an artifact for int8."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def quantize(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="An artifact (.onnx), or a bundled model: digits.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The .onnx to write; it may be MODEL itself.")],
    samples: Annotated[int, typer.Option(help="Samples to calibrate on.")] = 16,
    steps: Annotated[int, typer.Option(help="Steps of these samples, which are the calibrated noise levels.")] = 50,
    seed: Annotated[int, typer.Option(help="Seed of the samples.")] = 0,
    max_error: Annotated[float, typer.Option(help="Maximum relative error; layers stay in float32 until it is met.")] = 0.05,
    data: Annotated[
        str | None, typer.Option(help="Real images for the Fréchet distance: 'digits', or an .npz as for `evaluate`. Needs torch.")
    ] = None,
) -> None:
    """Calibrate a model for int8; `sample --precision int8` uses it.

    Without --precision int8, the artifact computes exactly the same as before.

    Example: diffuse-fast quantize digits --out digits.onnx --data digits
    """
    from ..console import say
    from ..quantization import quantize as write
    from .evaluate import real_images
    from .inspect import quantization_rows
    from .tables import show

    written = write(
        model,
        out,
        samples=samples,
        steps=steps,
        seed=seed,
        max_error=max_error,
        data=None if data is None else real_images(data),
        progress=say,
    )
    show(str(out), quantization_rows(written.to_json()["quantization"]))
