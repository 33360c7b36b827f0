"""The recipe of a folder of shards, ``batch.json``: everything that determines its samples."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import ArgumentError
from ..files import replacing

FILE = "batch.json"
SUFFIXES = {"npz": ".npz", "png": ".zip"}  # of a shard, by format


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """See the module. Every field is JSON data.

    Attributes:
        model, sha256: Name and digest of the model.
        n, seed: Sample i, from 0 to n - 1, is index i of the seed.
        solver, steps, guidance_scale, precision: As for :func:`diffuse_fast.sample`.
        cond: A list of values by input name; sample i has value i modulo its length.
        cond_file: SHA-256 of the file of conditioning with one row per sample, or None.
        shard_size, format: Samples per shard; ``npz`` or ``png``.
        versions: Of the package and of the noise generator.
        network: What runs the network, without the instruction set, which changes no bit.
    """

    model: str
    sha256: str
    n: int
    seed: int
    solver: str
    steps: int | None
    guidance_scale: float
    cond: Mapping[str, Sequence[Any]]
    cond_file: str | None
    precision: str
    shard_size: int
    format: str
    versions: Mapping[str, Any]
    network: Mapping[str, Any]

    @property
    def shards(self) -> int:
        """Number of shards."""
        return -(-self.n // self.shard_size)

    def ids(self, shard: int) -> range:
        """Ids of the samples of a shard."""
        return range(shard * self.shard_size, min((shard + 1) * self.shard_size, self.n))

    def path(self, folder: Path, shard: int) -> Path:
        """File of a shard."""
        return folder / f"shard-{shard:05d}{SUFFIXES[self.format]}"

    def write(self, folder: Path) -> None:
        """Write ``batch.json``.

        Raises:
            OutputError: it cannot be written.
        """
        with replacing(folder / FILE) as partial:
            partial.write_text(json.dumps(dataclasses.asdict(self), indent=1) + "\n")

    def check_equal(self, stored: Mapping[str, Any], folder: Path, *, leave_out: Sequence[str] = ()) -> None:
        """Check that the folder was begun with this recipe.

        Raises:
            ArgumentError: a field differs; the message names it.
        """
        own = _flat(json.loads(json.dumps(dataclasses.asdict(self))), leave_out)
        before = _flat(stored, leave_out)
        for name in sorted(own.keys() | before.keys()):
            if own.get(name) != before.get(name):
                raise ArgumentError(
                    f"{name} is {own.get(name)!r}, but {str(folder)!r} was begun with {before.get(name)!r}: "
                    "give the same command to go on, or another folder."
                )


def _flat(recipe: Mapping[str, Any], leave_out: Sequence[str]) -> dict[str, Any]:
    """The fields by name, those of a mapping as ``cond.label``."""
    flat: dict[str, Any] = {}
    for name, value in recipe.items():
        if name in leave_out:
            continue
        if isinstance(value, dict):
            flat |= {f"{name}.{inner}": one for inner, one in value.items()}
        else:
            flat[name] = value
    return flat


def stored_in(folder: Path) -> dict[str, Any] | None:
    """Read ``batch.json``; None if there is none.

    Raises:
        ArgumentError: it cannot be read, or the folder has shards without it.
    """
    path = folder / FILE
    try:
        stored = json.loads(path.read_text())
    except FileNotFoundError:
        if next(folder.glob("shard-*"), None) is not None:
            raise ArgumentError(f"{str(folder)!r} has shards but no {FILE} that says what they are; give another.") from None
        return None
    except (OSError, ValueError) as error:
        raise ArgumentError(f"{str(path)!r} cannot be read: {error}") from None
    if not isinstance(stored, dict) or not isinstance(stored.get("seed"), int):
        raise ArgumentError(f"{str(path)!r} is not the recipe of a batch.")
    return stored
