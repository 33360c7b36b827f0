"""A training run as a file: data, network, schedule, rates and artifact in TOML, and the one command that runs it."""

from __future__ import annotations

import dataclasses
import inspect
import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ... import nn as networks
from ...errors import ArgumentError, OutputError
from ...exporting import export
from ...model import Model
from ..data import Arrays, Framing, Images, Source, digits, emoji, from_disk, hold_out
from ..objectives import LogSNRNetwork
from ..objectives.objective import AnyObjective
from ..run import checkpoint as checkpoints
from ..run.checkpoint import Checkpoint
from ..run.description import meaning
from ..run.distributed import first_alone, process_group
from ..run.loop import train
from ..run.results import TrainResult
from ..run.state import restore
from .config_section import DATA, NETWORKS, SECTIONS, Settings, called, check, schedule
from .objective_config import objective
from .train_config import TrainConfig

log = logging.getLogger(__name__)

MEASURED = 512  # held-out samples that are measured along the way


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
class Facts:
    """What a network and its artifact must know of the data, without having them."""

    shape: tuple[int, ...]
    num_classes: int | None
    classes: tuple[str, ...] | None
    value_range: tuple[float, float] | None
    attribution: str | None

    @classmethod
    def of(cls, source: Source) -> Facts:
        more = (getattr(source, name, None) for name in ("classes", "value_range", "attribution"))
        return cls(source.shape, source.num_classes, *more)


@dataclass(frozen=True)
class Trained:
    """A network with its objective, as settings describe them: what is trained and exported. ``measure`` is the objective at times
    that training does not move."""

    network: nn.Module
    objective: AnyObjective
    measure: AnyObjective
    config: TrainConfig
    artifact: dict[str, Any]
    settings: dict[str, dict[str, Any]]
    facts: Facts


@dataclass(frozen=True)
class Recipe(Trained):
    """A run that is ready to start."""

    source: Source
    held_out: Source | None


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
        >>> from diffuse_fast.training.config.recipe import recipe
        >>> made = recipe({"data": {"kind": "digits"}, "network": {"channels": 32}})
        >>> made.network.num_classes, made.source.shape
        (10, (1, 8, 8))
    """
    check(settings)
    given = {section: dict(settings.get(section, {})) for section in SECTIONS}
    with torch.random.fork_rng(devices=[]):
        _aim(given)  # its faults first: opening the data may take long
    _network_options(given["network"])
    data = dict(given["data"])
    kind, fraction = data.pop("kind"), data.pop("held_out", None)
    source: Source = called("data", KINDS[kind], DATA[kind], data)
    held_out: Source | None = None
    made = _trained(given, Facts.of(source))
    if fraction is not None:
        source, held_out = hold_out(source, fraction, made.config.seed)
    return Recipe(**{name: getattr(made, name) for name in Trained.__annotations__}, source=source, held_out=held_out)


def _aim(given: Settings) -> tuple[AnyObjective, AnyObjective, TrainConfig]:
    config = TrainConfig(**given["train"])
    noise: Any = schedule(given["schedule"])
    if noise is None:
        options = {name: value for name, value in given["schedule"].items() if name != "type"}
        noise = called("schedule", LogSNRNetwork, list(inspect.signature(LogSNRNetwork).parameters), options)
    return *objective(noise, config.prediction_type, given), config


def _trained(given: dict[str, dict[str, Any]], facts: Facts) -> Trained:
    aim, measure, config = _aim(given)
    read = meaning(aim)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        network = _network(given["network"], facts, twice=read is not None and read.variance != "none")
    artifact = {"value_range": facts.value_range, "clip": facts.value_range, **given["artifact"]}
    return Trained(network, aim, measure, config, artifact, given, facts)


def run(
    made: Recipe, out: str | os.PathLike[str], *, resume: bool = False, progress: bool = True, device: str = "cpu"
) -> Model | None:
    """Train as a recipe says and write the artifact ``<out>/<name>.onnx`` (``model`` where no name is given); the checkpoints,
    logs and sample grids lie beside it.

    Under ``torchrun`` the processes share the work, and the first writes the artifact.

    Returns:
        The artifact, loaded; None in other processes than the first.

    Raises:
        As :func:`diffuse_fast.train` and :func:`diffuse_fast.export`. OutputError: the artifact is there already, and is not of the
        run in the folder.
    """
    folder = Path(out)
    target = folder / f"{made.artifact.get('name', 'model')}.onnx"
    if target.exists() and not checkpoints.found(folder):
        raise OutputError(
            f"{str(target)!r} is there already, and not of a run in this folder; choose another folder, or another name (the "
            f"setting artifact.name)."
        )
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
            network,
            made.source,
            objective=made.objective,
            config=made.config,
            folder=folder,
            resume=resume,
            progress=progress,
            clip=made.artifact["clip"],
            evaluate=evaluate,
            about={"settings": made.settings, "facts": dataclasses.asdict(made.facts)},
        )
        if broken := result.record.broken:
            few = ", ".join(broken[:3]) + (", ..." if len(broken) > 3 else "")
            log.warning("%d of the pictures cannot be read and were left out: %s", len(broken), few)
        model = None
        with first_alone() as here:
            if here:
                model = _export(made, result, target)
    return model


def export_checkpoint(kept: Checkpoint, path: str | os.PathLike[str], *, opset: int | None = None) -> Model:
    """The artifact of a run's averaged weights as they are in one of its checkpoints. The data are not needed.

    Args:
        kept: As :func:`~.checkpoint.read` and :func:`~.checkpoint.newest` give it.
        path, opset: As of :func:`diffuse_fast.export`.

    Raises:
        ArgumentError: the checkpoint is not of a run of :func:`run`.
        ExportError, OutputError: as :func:`diffuse_fast.export`.
    """
    document = kept.document
    try:
        settings, facts = document["about"]["settings"], dict(document["about"]["facts"])
        for name in ("shape", "classes", "value_range"):
            facts[name] = facts[name] if facts[name] is None else tuple(facts[name])
        made = _trained({section: dict(settings[section]) for section in SECTIONS}, Facts(**facts))
    except (KeyError, TypeError):
        raise ArgumentError(
            "the checkpoint does not say how its network is built: df.train wrote it, called in Python. Call that again with "
            f"resume=True and steps={document['step']}, and export the network of its result with df.export."
        ) from None
    restore(made.network, made.objective, kept.tensors)
    record = {"config": dataclasses.asdict(made.config), **{name: document[name] for name in ("step", "seconds", "versions")}}
    return _write(made, made.network.eval().requires_grad_(False), record, path, opset)


def _export(made: Recipe, result: TrainResult, target: Path) -> Model:
    record = result.record.to_json()
    record = {name: record[name] for name in ("config", "seconds", "samples", "versions")}
    return _write(made, result.network.cpu(), record, target)


def _write(
    made: Trained, network: nn.Module, record: dict[str, Any], path: str | os.PathLike[str], opset: int | None = None
) -> Model:
    classes = getattr(network, "num_classes", None)
    names = made.facts.classes if made.facts.num_classes == classes else None
    read = meaning(made.objective)
    assert read is not None
    training = {**record, **{n: made.settings[n] for n in ("network", "objective", "weighting", "times") if made.settings[n]}}
    if made.facts.attribution:
        training["data"] = made.facts.attribution
    label = {"name": "label", "dtype": "int64", "null": classes, "classes": classes, "class_names": names}
    return export(
        network,
        path,
        name=made.artifact.get("name", "model"),
        shape=made.facts.shape,
        schedule=read.schedule,
        prediction_type=read.prediction_type,
        conditioning=[] if classes is None else [label],
        convention=read.convention,
        time_dtype=made.artifact.get("time_dtype"),
        variance=read.variance,
        input_scale="none",  # trained on the state as the schedule has it
        value_range=made.artifact["value_range"],
        clip=made.artifact["clip"],
        training=training,
        license=made.artifact.get("license"),
        opset=opset,
    )


def _network_options(options: Mapping[str, Any]) -> tuple[Any, list[str]]:
    """The class of a network, and which settings it has.

    Raises:
        ArgumentError: one is given that it does not have.
    """
    kind = getattr(networks, options.get("type", "UNet"))
    said = ("in_channels", "features", "out_channels", "out_features")  # by the data
    known = [name for name in inspect.signature(kind).parameters if name not in said]
    called("network", dict, ["type", *known], options)
    return kind, known


def _network(options: Mapping[str, Any], facts: Facts, *, twice: bool) -> nn.Module:
    kind, known = _network_options(options)
    options, shape = dict(options), facts.shape
    name = options.pop("type", "UNet")
    if len(shape) != NETWORKS[name]:
        raise ArgumentError(f"network.type is {name}, for samples of {NETWORKS[name]} axes; those of the data are {shape}.")
    if name == "DiT":
        if shape[1] != shape[2]:
            raise ArgumentError(f"a DiT takes square samples; those of the data are {shape}.")
        options = {"size": shape[1], **options}
    if facts.num_classes is not None:
        options = {"num_classes": facts.num_classes, **options}
    made: nn.Module = called("network", lambda **rest: kind(shape[0], 2 * shape[0] if twice else shape[0], **rest), known, options)
    return made
