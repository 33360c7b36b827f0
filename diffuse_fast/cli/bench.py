"""``diffuse-fast bench``: run the benchmark of a checkout. It is not part of the package, because it needs the peers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import typer

from ..errors import ArgumentError

COMMAND = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}


def bench(ctx: typer.Context) -> None:
    """Run the benchmark of the checkout that this package was installed from.

    Arguments are those of `python -m bench`: names of cases, --quick, --seconds, --json.
    """
    root = Path(__file__).parent.parent.parent
    if not (root / "bench" / "__main__.py").is_file():
        raise ArgumentError(
            "the benchmark is not part of the installed package; clone the repository and run `make bench` there, which also "
            "installs the peers."
        )
    raise typer.Exit(subprocess.run([sys.executable, "-m", "bench", *ctx.args], cwd=root).returncode)
