"""``diffuse-fast train``: train on a folder of images, arrays, or as a configuration says."""

from __future__ import annotations

import logging
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer


def train(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the run and its artifact.")],
    configuration: Annotated[
        Path | None, typer.Argument(metavar="[CONFIG.toml]", help="The settings of the run: docs/training.md.")
    ] = None,
    data: Annotated[Path | None, typer.Option(help="A folder of images, or an .npy or .npz file.")] = None,
    size: Annotated[int | None, typer.Option(help="Height and width to resize images to.")] = None,
    steps: Annotated[int | None, typer.Option(help="Optimizer steps.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Samples per step.")] = None,
    prediction_type: Annotated[
        str | None, typer.Option(help="What the network predicts: epsilon, v_prediction, sample, flow, ...")
    ] = None,
    schedule: Annotated[str | None, typer.Option(help="Noise schedule: cosine, linear, flow, edm, learned, ...")] = None,
    objective: Annotated[str | None, typer.Option(help="simple, vlb, or hybrid with a learned variance.")] = None,
    weighting: Annotated[str | None, typer.Option(help="Weighting of noise levels: min_snr, p2 or edm.")] = None,
    times: Annotated[str | None, typer.Option(help="Distribution of times: uniform, importance, log_normal, logit_normal.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="AdamW's learning rate after the warm-up.")] = None,
    warmup_steps: Annotated[
        int | None, typer.Option(help="Steps over which the learning rate rises. [default: a tenth of the steps, at most 100]")
    ] = None,
    ema_decay: Annotated[float | None, typer.Option(help="Decay of the moving average of the weights.")] = None,
    condition_dropout: Annotated[float | None, typer.Option(help="Probability of dropping a label, for guidance.")] = None,
    seed: Annotated[int | None, typer.Option(help="Random seed.")] = None,
    change: Annotated[
        list[str] | None, typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Any setting of the configuration; repeatable.")
    ] = None,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    resume: Annotated[
        bool, typer.Option("--resume", help="Resume from the last checkpoint in the folder, if there is one.")
    ] = False,
) -> None:
    """Train a network on your data and write its artifact.

    Give a configuration, or --data, or both; flags override the configuration. Under torchrun:
    torchrun --nproc-per-node 2 -m diffuse_fast.cli train CONFIG.toml --out DIR. Needs the extra train.

    Example: diffuse-fast train --data pictures --size 32 --steps 20000 --out runs/pictures
    """
    if configuration is None and data is None:
        raise typer.BadParameter("give a configuration (CONFIG.toml) or --data.")
    from ..training.config.config_section import check, read_config

    settings = {} if configuration is None else read_config(configuration)
    if data is not None:
        kind = "arrays" if data.suffix in (".npy", ".npz") else "images"
        settings["data"] = {**settings.get("data", {}), "kind": kind, "path": str(data)}
    if size is not None:
        settings["data"] = {**settings.get("data", {}), "size": size}
    flags = {
        "steps": steps,
        "batch_size": batch_size,
        "prediction_type": prediction_type,
        "learning_rate": learning_rate,
        "warmup_steps": warmup_steps,
        "ema_decay": ema_decay,
        "condition_dropout": condition_dropout,
        "seed": seed,
    }
    settings["train"] = {**settings.get("train", {}), **{name: value for name, value in flags.items() if value is not None}}
    types = {"schedule": schedule, "objective": objective, "weighting": weighting, "times": times}
    for section, name in types.items():
        if name is not None:
            settings[section] = {**settings.get(section, {}), "type": name}
    for text in change or []:
        section, key, value = _assignment(text)
        settings[section] = {**settings.get(section, {}), key: value}
    check(settings)
    from ..training.config.recipe import recipe, run

    with _data_logs():
        made = recipe(settings)
    model = run(made, out, resume=resume, device=device)
    if model is not None:
        print(f"{model.path}: {model.name}, sha256 {model.sha256}")


class _Echo(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        typer.echo(record.getMessage(), err=True)


@contextmanager
def _data_logs() -> Iterator[None]:
    """Print what the library logs about the data: how it reads their shape and range."""
    log, echo = logging.getLogger("diffuse_fast.training.data"), _Echo()
    if log.isEnabledFor(logging.DEBUG):  # --debug shows all logs
        yield
        return
    level = log.level
    log.setLevel(logging.INFO)
    log.addHandler(echo)
    try:
        yield
    finally:
        log.removeHandler(echo)
        log.setLevel(level)


def _assignment(text: str) -> tuple[str, str, Any]:
    """Parse ``network.channels=64``; the value is TOML, or a plain word."""
    name, equals, value = text.partition("=")
    section, dot, key = name.partition(".")
    if not (equals and dot and section and key):
        raise typer.BadParameter(f"--set takes SECTION.KEY=VALUE, not {text!r}.")
    try:
        return section, key, tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return section, key, value
