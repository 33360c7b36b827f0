"""``diffuse-fast likelihood``: bits per dimension of data under a model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from . import parsing


def likelihood(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="An artifact (.onnx), or a bundled model: digits.")],
    data: Annotated[Path, typer.Argument(metavar="DATA.npy", help="Samples (n, ...) in the model's value range.")],
    method: Annotated[str, typer.Option(help="elbo (a bound) or ode (exact up to discretisation).")] = "elbo",
    levels: Annotated[
        int | None, typer.Option(help="Number of values of an element: 256 for 8 bits, 17 for the digits. [default: continuous]")
    ] = None,
    draws: Annotated[int | None, typer.Option(help="Estimates per sample; their spread gives the standard error.")] = None,
    seed: Annotated[int | None, typer.Option(help="Random seed.")] = None,
    cond: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE|FILE.npy", help="A conditioning input: one value for all, or a file with one per sample."),
    ] = None,
    steps: Annotated[
        int | None, typer.Option(help="Number of times. [default: elbo: every timestep; ode on discrete timesteps: 200]")
    ] = None,
    evaluations: Annotated[
        int | None, typer.Option(help="elbo: number of terms to evaluate, one per stratum. [default: all]")
    ] = None,
    variance_type: Annotated[str | None, typer.Option(help="elbo: fixed_small, fixed_large, learned or learned_range.")] = None,
    trace: Annotated[str, typer.Option(help="ode: hutchinson or exact.")] = "hutchinson",
    batch_size: Annotated[int | None, typer.Option(help="Maximum samples per network call.")] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="An .npz for the values of each sample.")] = None,
    runtime: Annotated[str, typer.Option(help="Runtime of the network.")] = "auto",
) -> None:
    """Bits per dimension of data under a model, with their standard error.

    Example: diffuse-fast likelihood digits digits.npy --levels 17 --evaluations 100
    """
    import numpy as np

    from .. import files
    from ..console import say
    from ..log_likelihood import likelihood as estimate
    from ..model import load

    if out is not None and out.suffix != ".npz":
        raise typer.BadParameter(f"--out is {str(out)!r}; it must end in .npz.")
    loaded = load(model)
    given: dict[str, Any] = {
        name: _array(f"--cond {name}", Path(text))
        if text.endswith(".npy")
        else parsing.values(f"--cond {name}", text, parsing.class_names(loaded, name))
        for name, text in parsing.pairs("--cond", cond or ()).items()
    }
    x = _array("DATA.npy", data)
    if out is not None:
        files.writable(out)
    found = estimate(
        loaded,
        x,
        method,
        levels=levels,
        draws=draws,
        seed=seed,
        cond=given or None,
        steps=steps,
        evaluations=evaluations,
        variance_type=variance_type,
        trace=trace,
        batch_size=batch_size,
        runtime=runtime,
        progress=say,
    )
    if out is not None:
        with files.replacing(out) as partial, partial.open("wb") as file:
            np.savez(file, bits_per_dim=found.bits_per_dim, standard_error=found.standard_error, **found.terms)  # type: ignore[arg-type]  # numpy's stub mistakes the names for its own
    parts = ", ".join(f"{name} {value.mean():.4f}" for name, value in found.terms.items())
    print(f"{loaded.name}: {found.mean:.4f} ± {found.mean_error:.4f} bits per dimension over {len(x)} samples ({parts})")
    spread = found.bits_per_dim.std()
    print(f"{method}, {found.nfe} network evaluations per sample; standard deviation of the samples {spread:.4f}")
    if found.divergence_error:
        print(f"divergences by finite differences: error below {found.divergence_error:.1g}")


def _array(what: str, path: Path) -> Any:
    import numpy as np

    try:
        return np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise typer.BadParameter(f"{what}: cannot read {str(path)!r} as an array: {error}") from None
