"""``diffuse-fast export``: write the weights of a training run as an artifact."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def export(
    checkpoint: Annotated[
        Path, typer.Argument(metavar="CHECKPOINT", help="A checkpoint that `diffuse-fast train` wrote, or the folder of a run.")
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The artifact to write (.onnx).")],
    opset: Annotated[int | None, typer.Option(help="ONNX opset: 23 or 21. [default: 23 where possible]")] = None,
) -> None:
    """Write a training run's weights as an artifact.

    The run may have been stopped or killed: its last checkpoint is enough, and the data are not needed. The artifact is compared
    with the weights. Needs the extra train.
    Other networks are exported in Python: df.export(module, path, ...).
    """
    from ..errors import ArgumentError
    from ..training.config.recipe import export_checkpoint
    from ..training.run import checkpoint as checkpoints

    kept = checkpoints.newest(checkpoint) if checkpoint.is_dir() else checkpoints.read(checkpoint)
    if kept is None:
        raise ArgumentError(f"there is no checkpoint in {checkpoint}.")
    model = export_checkpoint(kept, out, opset=opset)
    print(f"{out}: {model.name}, opset {model.opset}, {out.stat().st_size:,} bytes, sha256 {model.sha256}")
