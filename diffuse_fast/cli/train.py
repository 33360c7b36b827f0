"""``diffuse-fast train``: a configuration, a folder of images, or the recipe of the bundled model."""

from __future__ import annotations

import dataclasses
import logging
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer


def train(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the artifact and what belongs to the run.")],
    configuration: Annotated[
        Path | None, typer.Argument(metavar="[CONFIG.toml]", help="What to train, and how: docs/training.md.")
    ] = None,
    data: Annotated[Path | None, typer.Option(help="A folder of images, or an .npy or .npz file.")] = None,
    size: Annotated[int | None, typer.Option(help="Height and width that images are brought to.")] = None,
    steps: Annotated[int | None, typer.Option(help="Optimizer steps.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Samples per step.")] = None,
    prediction_type: Annotated[str | None, typer.Option(help="What to predict: epsilon, v_prediction, sample, flow, ...")] = None,
    schedule: Annotated[str | None, typer.Option(help="Of the noise: cosine, linear, flow, edm, learned, ...")] = None,
    objective: Annotated[str | None, typer.Option(help="simple, vlb, or hybrid, with a learned variance.")] = None,
    weighting: Annotated[str | None, typer.Option(help="Of noise levels: min_snr, p2 or edm.")] = None,
    times: Annotated[str | None, typer.Option(help="How they are drawn: uniform, importance, log_normal, logit_normal.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Of AdamW, after the warm-up.")] = None,
    warmup_steps: Annotated[
        int | None, typer.Option(help="Steps over which the learning rate rises; a tenth of them, 100 at most, unless given.")
    ] = None,
    ema_decay: Annotated[float | None, typer.Option(help="Decay of the moving average of the weights.")] = None,
    condition_dropout: Annotated[float | None, typer.Option(help="How often a label is left out, for guidance.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of everything random.")] = None,
    change: Annotated[
        list[str] | None, typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Any setting of the configuration; repeatable.")
    ] = None,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the folder's last checkpoint, if there is one.")] = False,
    reuse: Annotated[
        bool, typer.Option("--reuse", help="Of the digits recipe: take the weights an earlier run left, and measure again.")
    ] = False,
) -> None:
    """Train a network on your data and write its artifact; without a configuration and data, train the digits model.

    The digits take half an hour on one core; what is not given is as for the bundled model. Under torchrun:
    torchrun --nproc-per-node 2 -m diffuse_fast.cli train CONFIG.toml --out DIR. Needs the extra train.
    """
    flags: dict[str, Any] = {
        "steps": steps,
        "batch_size": batch_size,
        "prediction_type": prediction_type,
        "learning_rate": learning_rate,
        "warmup_steps": warmup_steps,
        "ema_decay": ema_decay,
        "condition_dropout": condition_dropout,
        "seed": seed,
    }
    flags = {name: value for name, value in flags.items() if value is not None}
    asked = {"schedule": schedule, "objective": objective, "weighting": weighting, "times": times}
    kinds = {section: kind for section, kind in asked.items() if kind is not None}
    if configuration is None and data is None:
        if change or size is not None or resume or device != "cpu" or kinds:
            named = ", ".join(f"--{name}" for name in ("set", "size", "resume", "schedule", "objective", "weighting", "times"))
            raise typer.BadParameter(f"{named} and --device need a configuration or --data.")
        _digits(out, flags, reuse)
        return
    if reuse:
        raise typer.BadParameter("--reuse is of the digits recipe; leave out the configuration and --data.")
    from ..training.config.config_section import check, read

    settings = {} if configuration is None else read(configuration)
    if data is not None:
        kind = "arrays" if data.suffix in (".npy", ".npz") else "images"
        settings["data"] = {**settings.get("data", {}), "kind": kind, "path": str(data)}
    if size is not None:
        settings["data"] = {**settings.get("data", {}), "size": size}
    settings["train"] = {**settings.get("train", {}), **flags}
    for section, kind in kinds.items():
        settings[section] = {**settings.get(section, {}), "type": kind}
    for text in change or []:
        section, key, value = _assignment(text)
        settings[section] = {**settings.get(section, {}), key: value}
    check(settings)
    from ..training.config.recipe import recipe, run

    with _told():
        made = recipe(settings)
    model = run(made, out, resume=resume, device=device)
    if model is not None:
        print(f"{model.path}: {model.name}, sha256 {model.sha256}")


class _Echo(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        typer.echo(record.getMessage(), err=True)


@contextmanager
def _told() -> Iterator[None]:
    """Within it, what the data are taken for is told, which the library only logs."""
    log, echo = logging.getLogger("diffuse_fast.training.data"), _Echo()
    if log.isEnabledFor(logging.DEBUG):  # --debug shows it all
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


def _digits(out: Path, flags: dict[str, Any], reuse: bool) -> None:
    from ..training.config.train_config import DIGITS

    if reuse and flags:
        raise typer.BadParameter(f"--reuse trains nothing; leave out {', '.join(flags)}.")
    config = dataclasses.replace(DIGITS, **flags)
    from ..training.digits import NAME, train_digits

    train_digits(out, config=config, reuse=reuse)
    print((out / f"{NAME}.md").read_text(encoding="utf-8"))


def _assignment(text: str) -> tuple[str, str, Any]:
    """``network.channels=64`` as its parts; the value is TOML, or a plain word."""
    name, equals, value = text.partition("=")
    section, dot, key = name.partition(".")
    if not (equals and dot and section and key):
        raise typer.BadParameter(f"--set takes SECTION.KEY=VALUE, not {text!r}.")
    try:
        return section, key, tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return section, key, value
