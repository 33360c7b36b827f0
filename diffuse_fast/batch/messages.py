"""What a worker is told and what it answers.

It takes :class:`Settings` first and then numbers of shards. It answers :class:`Ready`, and :class:`Done` for each shard once its
file is written; or :class:`Broken`, and ends.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .recipe import Recipe


@dataclass(frozen=True)
class Settings:
    """What a worker is started with: a recipe whose network is not known yet, and where the files are."""

    recipe: Recipe
    model: Path
    cond_file: Path | None
    folder: Path
    runtime: str
    threads: int | None


@dataclass(frozen=True)
class Ready:
    """The worker takes shards. ``network`` is that of the recipe."""

    network: Mapping[str, Any]


@dataclass(frozen=True)
class Done:
    """A shard is written, without the samples that failed."""

    failed: list[int]


@dataclass(frozen=True)
class Broken:
    """The worker has ended with an error, which another would meet as well."""

    error: Exception
