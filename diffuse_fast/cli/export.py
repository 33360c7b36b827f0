"""``diffuse-fast export``: the weights of a training run as an artifact."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def export(
    checkpoint: Annotated[
        Path,
        typer.Argument(metavar="CHECKPOINT", help="A .safetensors file that `diffuse-fast train` wrote, or the folder of a run."),
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The artifact to write (.onnx).")],
    opset: Annotated[int | None, typer.Option(help="23 or 21; 23 unless it cannot be.")] = None,
) -> None:
    """Make an artifact of a training run's weights.

    Of a run that was stopped or killed too: its last checkpoint is enough, and the data are not needed. The artifact is compared
    with the weights. Needs the extra train.
    Other networks are exported in Python: df.export(module, path, ...).
    """
    from ..errors import ArgumentError
    from ..training.config.recipe import export_checkpoint
    from ..training.digits import export_weights, load_weights
    from ..training.run import checkpoint as checkpoints

    if checkpoint.is_dir() or checkpoints.is_one(checkpoint):
        kept = checkpoints.newest(checkpoint) if checkpoint.is_dir() else checkpoints.read(checkpoint)
        if kept is None:
            raise ArgumentError(f"there is no checkpoint in {checkpoint}.")
        model = export_checkpoint(kept, out, opset=opset)
    else:
        network, record = load_weights(checkpoint)
        model = export_weights(network, record, out, opset=opset)
    print(f"{out}: {model.name}, opset {model.opset}, {out.stat().st_size:,} bytes, sha256 {model.sha256}")
