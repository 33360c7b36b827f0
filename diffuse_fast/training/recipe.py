"""A training run as a file: data, network, schedule, rates and artifact in TOML, and the one command that runs it."""

from __future__ import annotations

import inspect
import logging
import os
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import nn

from .. import nn as networks
from ..errors import ArgumentError, near
from ..export import export
from ..model import Model
from ..schedule import Schedule
from ..schedule.base import DISCRETE, TYPES, ZERO_SNR
from ..schedule.discrete import DiscreteSchedule
from .aim import objective
from .config import TrainConfig
from .data import Arrays, Framing, Images, Source, digits, emoji, from_disk, hold_out
from .description import meaning
from .loop import train
from .objectives import LogSNRNetwork
from .objectives.objective import AnyObjective
from .processes import first_alone, process_group
from .record import TrainResult
from .settings import called

log = logging.getLogger(__name__)

SECTIONS = ("data", "network", "schedule", "objective", "weighting", "times", "train", "artifact")
ARTIFACT = ("name", "license", "value_range", "clip", "time_dtype")
MEASURED = 512  # held-out samples that are measured along the way
Settings = Mapping[str, Mapping[str, Any]]


def _images(path: str, labels: bool = False, on_error: str = "raise", **framing: Any) -> Source:
    return Images.from_folder(path, labels=labels, framing=Framing(**framing), on_error=on_error)


def _datasets(
    path: str, split: str | None = None, image: str = "image", label: str | None = None, on_error: str = "raise", **framing: Any
) -> Source:
    return from_disk(path, split=split, image=image, label=label, framing=Framing(**framing), on_error=on_error)


def _digits() -> Source:
    split = digits()
    return Arrays(split.images, split.labels, data_range=(-1.0, 1.0))


KINDS: dict[str, Callable[..., Source]] = {
    "images": _images, "datasets": _datasets, "arrays": Arrays.from_file, "digits": _digits, "emoji": emoji,
}  # fmt: skip


@dataclass(frozen=True)
class Recipe:
    """A run that is ready to start. ``measure`` is its objective at times that training does not move; ``settings`` are those it
    was made of."""

    source: Source
    held_out: Source | None
    network: nn.Module
    objective: AnyObjective
    measure: AnyObjective
    config: TrainConfig
    artifact: dict[str, Any]
    settings: dict[str, dict[str, Any]]


def read(path: str | os.PathLike[str]) -> dict[str, dict[str, Any]]:
    """The settings in a TOML file, by section.

    Raises:
        ArgumentError: it cannot be read or is no TOML.
    """
    try:
        with open(path, "rb") as file:
            return tomllib.load(file)
    except (OSError, ValueError) as error:
        raise ArgumentError(f"cannot read the configuration {os.fspath(path)!r}: {error}.") from error


def recipe(settings: Settings) -> Recipe:
    """Open the data and build the network that settings describe.

    Args:
        settings: By section. ``data``: ``kind`` (images, datasets, arrays, digits, emoji), ``path`` and the rest of what it takes;
            ``held_out``, a fraction. ``network``: ``type`` (UNet, UNet1D, UNet3D, MLP, DiT) and its options; what the data say
            (channels, size, classes, channels of a learned variance) need not be said. ``schedule``: ``type`` and the
            arguments of that class method of :class:`Schedule`; ``rescale_zero_terminal_snr`` of a discrete one; ``learned``
            without a table is trained with the network, and takes the arguments of :class:`LogSNRNetwork`. ``objective``,
            ``weighting``, ``times``: see :func:`~.aim.objective`. ``train``: :class:`TrainConfig`.
            ``artifact``: ``name``, ``license``, ``value_range``, ``clip``, ``time_dtype``.

    Raises:
        ArgumentError: an unknown or missing setting, or one that the data do not fit; the message names section and key.

    Example:
        >>> from diffuse_fast.training.recipe import recipe
        >>> made = recipe({"data": {"kind": "digits"}, "network": {"channels": 32}})
        >>> made.network.num_classes, made.source.shape
        (10, (1, 8, 8))
    """
    for section, content in settings.items():
        if section not in SECTIONS:
            raise ArgumentError(f"there is no section [{section}].{near(section, SECTIONS)}")
        if not isinstance(content, Mapping):
            raise ArgumentError(f"{section} is {content!r}; it must be a section of settings.")
    given = {section: dict(settings.get(section, {})) for section in SECTIONS}
    data = dict(given["data"])
    kind, fraction = data.pop("kind", None), data.pop("held_out", None)
    if kind not in KINDS:
        raise ArgumentError(f"data.kind is {kind!r}.{near(str(kind), KINDS)}")
    known = [*inspect.signature(KINDS[kind]).parameters, *(f.name for f in fields(Framing))]
    source: Source = called("data", KINDS[kind], [name for name in known if name != "framing"], data)
    config = called("train", TrainConfig, [f.name for f in fields(TrainConfig)], given["train"])
    held_out: Source | None = None
    if fraction is not None:
        source, held_out = hold_out(source, fraction, config.seed)
    for name in given["artifact"]:
        if name not in ARTIFACT:
            raise ArgumentError(f"artifact.{name} is no setting.{near(name, ARTIFACT)}")
    bounds = getattr(source, "value_range", None)
    artifact = {"value_range": bounds, "clip": bounds, **given["artifact"]}
    aim, measure = objective(_schedule(given["schedule"]), config.prediction_type, given)
    read = meaning(aim)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        network = _network(given["network"], source, twice=read is not None and read.variance != "none")
    return Recipe(source, held_out, network, aim, measure, config, artifact, given)


def run(
    made: Recipe, out: str | os.PathLike[str], *, resume: bool = False, progress: bool = True, device: str = "cpu"
) -> Model | None:
    """Train as a recipe says and write the artifact ``<out>/<name>.onnx`` (``model`` where no name is given); the checkpoints,
    logs and sample grids lie beside it.

    Under ``torchrun`` the processes share the work, and the first writes the artifact.

    Returns:
        The artifact, loaded; None in other processes than the first.

    Raises:
        As :func:`diffuse_fast.train` and :func:`diffuse_fast.export`.
    """
    folder = Path(out)
    network = made.network.to(device)
    if isinstance(made.objective, nn.Module):
        made.objective.to(device)
    evaluate = None
    if (held_out := made.held_out) is not None:
        x, label = held_out.fetch(range(min(len(held_out), MEASURED)))

        def evaluate(average: nn.Module) -> dict[str, float]:
            at = next(average.parameters()).device
            cond = None if label is None else {"label": label.to(at)}
            with torch.no_grad():
                losses = made.measure(average, x.to(at), cond, generator=torch.Generator().manual_seed(0))
            return {"held_out_loss": losses.loss.item()}

    with process_group(device):
        result = train(
            network, made.source, objective=made.objective, config=made.config, folder=folder, resume=resume, progress=progress,
            clip=made.artifact["clip"], evaluate=evaluate,
        )  # fmt: skip
        if broken := result.record.broken:
            few = ", ".join(broken[:3]) + (", ..." if len(broken) > 3 else "")
            log.warning("%d of the pictures cannot be read and were left out: %s", len(broken), few)
        model = None
        with first_alone() as here:
            if here:
                model = _export(made, result, folder)
    return model


def _export(made: Recipe, result: TrainResult, folder: Path) -> Model:
    name = made.artifact.get("name", "model")
    classes = getattr(result.network, "num_classes", None)
    record = result.record.to_json()
    read = meaning(made.objective)
    assert read is not None
    training = {
        **{k: record[k] for k in ("config", "seconds", "samples", "versions")},
        **{name: made.settings[name] for name in ("network", "objective", "weighting", "times") if made.settings[name]},
    }
    if attribution := getattr(made.source, "attribution", None):
        training["data"] = attribution
    return export(
        result.network.cpu(),
        folder / f"{name}.onnx",
        name=name,
        shape=made.source.shape,
        schedule=read.schedule,
        prediction_type=read.prediction_type,
        conditioning=[] if classes is None else [{"name": "label", "dtype": "int64", "null": classes, "classes": classes}],
        convention=read.convention,
        time_dtype=made.artifact.get("time_dtype"),
        variance=read.variance,
        value_range=made.artifact["value_range"],
        clip=made.artifact["clip"],
        training=training,
        license=made.artifact.get("license"),
    )


def _schedule(options: dict[str, Any]) -> Schedule | LogSNRNetwork:
    options = dict(options)
    name = options.pop("type", "cosine")
    if name == "learned" and "log_snr" not in options:
        made = called("schedule", LogSNRNetwork, list(inspect.signature(LogSNRNetwork).parameters), options)
        assert isinstance(made, LogSNRNetwork)
        return made
    if name not in TYPES:
        raise ArgumentError(f"schedule.type is {name!r}.{near(str(name), TYPES)}")
    make = getattr(Schedule, name)
    rescale = options.pop(ZERO_SNR, False) if name in DISCRETE else False
    schedule: Schedule = called("schedule", make, list(inspect.signature(make).parameters), options)
    if not isinstance(rescale, bool):
        raise ArgumentError(f"schedule.{ZERO_SNR} is {rescale!r}; it must be true or false.")
    return schedule.rescale_zero_terminal_snr() if rescale and isinstance(schedule, DiscreteSchedule) else schedule


def _network(options: dict[str, Any], source: Source, *, twice: bool) -> nn.Module:
    options = dict(options)
    name = options.pop("type", "UNet")
    if name not in networks.__all__:
        raise ArgumentError(f"network.type is {name!r}.{near(str(name), networks.__all__)}")
    kind = getattr(networks, name)
    axes = {"MLP": 1, "UNet1D": 2, "UNet": 3, "DiT": 3, "UNet3D": 4}[name]
    if len(source.shape) != axes:
        raise ArgumentError(f"network.type is {name}, for samples of {axes} axes; those of the data are {source.shape}.")
    if name == "DiT":
        if source.shape[1] != source.shape[2]:
            raise ArgumentError(f"a DiT takes square samples; those of the data are {source.shape}.")
        options = {"size": source.shape[1], **options}
    if source.num_classes is not None:
        options = {"num_classes": source.num_classes, **options}
    known = [n for n in inspect.signature(kind).parameters if n not in ("in_channels", "features", "out_channels", "out_features")]
    channels = source.shape[0]
    return called("network", lambda **rest: kind(channels, 2 * channels if twice else channels, **rest), known, options)

