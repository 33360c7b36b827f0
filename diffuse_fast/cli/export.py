"""``diffuse-fast export``: the weights of a training run as an artifact."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def export(
    checkpoint: Annotated[Path, typer.Argument(metavar="CHECKPOINT", help="A .safetensors file that `diffuse-fast train` wrote.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The artifact to write (.onnx).")],
    opset: Annotated[int | None, typer.Option(help="23 or 21; 23 unless it cannot be.")] = None,
) -> None:
    """Make an artifact of a training run's weights.

    The artifact is compared with them. Needs the extra train.
    Other networks are exported in Python: df.export(module, path, ...).
    """
    from ..training.digits import export_weights, load_weights

    network, record = load_weights(checkpoint)
    model = export_weights(network, record, out, opset=opset)
    print(f"{out}: {model.name}, opset {model.opset}, {out.stat().st_size:,} bytes, sha256 {model.sha256}")
