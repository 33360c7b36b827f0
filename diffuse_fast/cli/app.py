"""The application with all commands and the common options. It imports nothing that a command needs, so that ``--help`` is fast."""

from __future__ import annotations

import logging
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from .. import __version__
from ..console import say
from ..errors import DiffuseFastError, UnavailableError
from .batch import batch
from .bench import COMMAND as BENCH
from .bench import bench
from .bench_serve import bench_serve
from .compile import compile
from .doctor import doctor
from .evaluate import evaluate
from .export import export
from .inspect import inspect
from .learn_solver import learn_solver
from .likelihood import likelihood
from .quantize import quantize
from .sample import sample
from .serve import serve
from .solvers import solvers
from .train import train
from .tune import tune

UNAVAILABLE = 3  # exit status; 2 is for wrong usage


class _Group(TyperGroup):
    """Print errors of the library as messages and exit with status 1, or 3 if the requested device or kernel is not available.
    With ``--debug``, print a traceback."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except DiffuseFastError as error:
            if ctx.params["debug"]:
                raise
            say(f"diffuse-fast: {error}")
            raise typer.Exit(UNAVAILABLE if isinstance(error, UnavailableError) else 1) from None


app = typer.Typer(
    cls=_Group,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode=None,
)
COMMANDS = (
    sample,
    batch,
    serve,
    bench_serve,
    train,
    export,
    compile,
    inspect,
    learn_solver,
    evaluate,
    likelihood,
    tune,
    quantize,
    solvers,
    doctor,
)
for command in COMMANDS:
    app.command(command.__name__.replace("_", "-"))(command)
app.command("bench", context_settings=BENCH)(bench)


def _version(asked: bool) -> None:
    if asked:
        print(f"diffuse-fast {__version__}")
        raise typer.Exit


@app.callback()
def _common(
    debug: Annotated[bool, typer.Option("--debug", help="Show debug logs, and a traceback on errors.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """An inference engine for diffusion models: a solver is a table, a step is one fused kernel."""
    if debug:
        logging.basicConfig(format="%(name)s: %(message)s")
        logging.getLogger("diffuse_fast").setLevel(logging.DEBUG)
