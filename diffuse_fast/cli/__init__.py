"""The command ``diffuse-fast``: one file per command, each a thin wrapper of the library."""

from __future__ import annotations

import sys

from ..console import degrade
from ..errors import install_hint


def main() -> None:
    """The entry point. Without the extra ``cli``, print how to install it."""
    degrade()
    try:
        import rich  # noqa: F401  (checked here, not halfway through a command)

        from .app import app
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("typer", "click", "rich"):
            raise
        sys.exit(f"diffuse-fast: the command line needs {error.name}: {install_hint('cli')}")
    app(prog_name="diffuse-fast")
