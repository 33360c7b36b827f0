"""``python -m diffuse_fast.demo [picture.png]``: eight of each digit, drawn by the bundled model."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from .engine import sample
from .model import load, to_uint8


def main(path: str = "out/digits.png", scale: int = 6) -> None:
    """Draw the grid, one row per digit, and write it as a picture."""
    from PIL import Image

    model = load("digits")
    x = sample(model, 80, 20, seed=0, cond={"label": np.repeat(np.arange(10), 8)})
    rows, columns = 10, 8
    height, width = model.shape[1:]
    tiles = np.pad(to_uint8(x, model).reshape(rows, columns, height, width), ((0, 0), (0, 0), (1, 1), (1, 1)))
    grid = tiles.transpose(0, 2, 1, 3).reshape(rows * (height + 2), columns * (width + 2))
    out = Path(path)
    out.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.kron(grid, np.ones((scale, scale), np.uint8))).save(out)
    print(f"80 digits, 20 DDIM steps, seed 0: {out}")


if __name__ == "__main__":
    main(*sys.argv[1:2])
