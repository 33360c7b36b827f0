"""Run a training configuration: data, network, schedule, objective, training settings and artifact."""

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
from ..run.description import output_spec
from ..run.distributed import first_process_only, process_group
from ..run.loop import train
from ..run.results import TrainResult
from ..run.state import restore
from .config_section import DATA, NETWORKS, SECTIONS, Settings, call_section, check, make_schedule
from .objective_config import make_objective
from .train_config import TrainConfig

log = logging.getLogger(__name__)

EVALUATED = 512  # held-out samples evaluated during training


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
    """The properties of the data that the network and its artifact need."""

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
    """A network and its objective, made from settings. ``measure`` is the objective with times that do not adapt to training."""

    network: nn.Module
    objective: AnyObjective
    measure: AnyObjective
    config: TrainConfig
    artifact: dict[str, Any]
    settings: dict[str, dict[str, Any]]
    facts: Facts


@dataclass(frozen=True)
class Recipe(Trained):
    """A training run that is ready to start."""

    source: Source
    held_out: Source | None


def recipe(settings: Settings) -> Recipe:
    """Open the data and build the network of a configuration.

    Args:
        settings: By section. ``data``: ``kind`` (images, datasets, arrays, digits, emoji), its arguments, and
            ``held_out``, a fraction. ``network``: ``type`` (UNet, UNet1D, UNet3D, MLP, DiT) and its options; the data determine
            channels, size and classes. ``schedule``: ``type`` and the arguments of that class method of :class:`Schedule`, and
            ``rescale_zero_terminal_snr`` for a discrete one; ``learned`` without a table is trained with the network and takes
            the arguments of :class:`LogSNRNetwork`. ``objective``,
            ``weighting``, ``times``: see :func:`~.objective_config.make_objective`. ``train``: :class:`TrainConfig`.
            ``artifact``: ``name``, ``license``, ``value_range``, ``clip``, ``time_dtype``.

    Raises:
        ArgumentError: a setting is unknown or missing, or does not fit the data; the message names section and key.

    Example:
        >>> from diffuse_fast.training.config.recipe import recipe
        >>> made = recipe({"data": {"kind": "digits"}, "network": {"channels": 32}})
        >>> made.network.num_classes, made.source.shape
        (10, (1, 8, 8))
    """
    check(settings)
    given = {section: dict(settings.get(section, {})) for section in SECTIONS}
    with torch.random.fork_rng(devices=[]):
        _objectives(given)  # report faults before opening the data, which may take long
    _network_options(given["network"])
    data = dict(given["data"])
    kind, fraction = data.pop("kind"), data.pop("held_out", None)
    source: Source = call_section("data", KINDS[kind], DATA[kind], data)
    held_out: Source | None = None
    made = _trained(given, Facts.of(source))
    if fraction is not None:
        source, held_out = hold_out(source, fraction, made.config.seed)
    return Recipe(**{name: getattr(made, name) for name in Trained.__annotations__}, source=source, held_out=held_out)


def _objectives(given: Settings) -> tuple[AnyObjective, AnyObjective, TrainConfig]:
    config = TrainConfig(**given["train"])
    noise: Any = make_schedule(given["schedule"])
    if noise is None:
        options = {name: value for name, value in given["schedule"].items() if name != "type"}
        noise = call_section("schedule", LogSNRNetwork, list(inspect.signature(LogSNRNetwork).parameters), options)
    return *make_objective(noise, config.prediction_type, given), config


def _trained(given: dict[str, dict[str, Any]], facts: Facts) -> Trained:
    objective, measure, config = _objectives(given)
    spec = output_spec(objective)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        network = _network(given["network"], facts, learned_variance=spec is not None and spec.variance != "none")
    artifact = {"value_range": facts.value_range, "clip": facts.value_range, **given["artifact"]}
    return Trained(network, objective, measure, config, artifact, given, facts)


def run(
    made: Recipe, out: str | os.PathLike[str], *, resume: bool = False, progress: bool = True, device: str = "cpu"
) -> Model | None:
    """Train and write the artifact ``<out>/<name>.onnx`` (default name: ``model``), with checkpoints, logs and sample grids
    beside it.

    Under ``torchrun`` the processes share the work, and the first one writes the artifact.

    Returns:
        The artifact, loaded; None in all processes but the first.

    Raises:
        As :func:`diffuse_fast.train` and :func:`diffuse_fast.export`. OutputError: the artifact exists and is not from the run in
        the folder.
    """
    folder = Path(out)
    target = folder / f"{made.artifact.get('name', 'model')}.onnx"
    if target.exists() and not checkpoints.found(folder):
        raise OutputError(
            f"{str(target)!r} exists and is not from a run in this folder; choose another folder, or another name (the "
            f"setting artifact.name)."
        )
    network = made.network.to(device)
    if isinstance(made.objective, nn.Module):
        made.objective.to(device)
    evaluate = None
    if (held_out := made.held_out) is not None:
        x, label = held_out.fetch(range(min(len(held_out), EVALUATED)))

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
            log.warning("%d of the images cannot be read and were skipped: %s", len(broken), few)
        model = None
        with first_process_only() as here:
            if here:
                model = _export(made, result, target)
    return model


def export_checkpoint(kept: Checkpoint, path: str | os.PathLike[str], *, opset: int | None = None) -> Model:
    """Export the averaged weights in a checkpoint. The data are not needed.

    Args:
        kept: The result of :func:`~.checkpoint.read` or :func:`~.checkpoint.newest`.
        path, opset: As for :func:`diffuse_fast.export`.

    Raises:
        ArgumentError: the checkpoint is not from :func:`run`.
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
            "the checkpoint does not have its network's settings, because df.train wrote it. Call df.train again with "
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
    spec = output_spec(made.objective)
    assert spec is not None
    training = {**record, **{n: made.settings[n] for n in ("network", "objective", "weighting", "times") if made.settings[n]}}
    if made.facts.attribution:
        training["data"] = made.facts.attribution
    label = {"name": "label", "dtype": "int64", "null": classes, "classes": classes, "class_names": names}
    return export(
        network,
        path,
        name=made.artifact.get("name", "model"),
        shape=made.facts.shape,
        schedule=spec.schedule,
        prediction_type=spec.prediction_type,
        conditioning=[] if classes is None else [label],
        convention=spec.convention,
        time_dtype=made.artifact.get("time_dtype"),
        variance=spec.variance,
        input_scale="none",  # trained on unscaled states
        value_range=made.artifact["value_range"],
        clip=made.artifact["clip"],
        training=training,
        license=made.artifact.get("license"),
        opset=opset,
    )


def _network_options(options: Mapping[str, Any]) -> tuple[Any, list[str]]:
    """The class of a network and the names of its settings.

    Raises:
        ArgumentError: a setting is unknown.
    """
    kind = getattr(networks, options.get("type", "UNet"))
    from_data = ("in_channels", "features", "out_channels", "out_features")
    known = [name for name in inspect.signature(kind).parameters if name not in from_data]
    call_section("network", dict, ["type", *known], options)
    return kind, known


def _network(options: Mapping[str, Any], facts: Facts, *, learned_variance: bool) -> nn.Module:
    kind, known = _network_options(options)
    options, shape = dict(options), facts.shape
    name = options.pop("type", "UNet")
    if len(shape) != NETWORKS[name]:
        raise ArgumentError(f"network.type is {name}, for samples of {NETWORKS[name]} axes; the data have the shape {shape}.")
    if name == "DiT":
        if shape[1] != shape[2]:
            raise ArgumentError(f"a DiT needs square samples; the data have the shape {shape}.")
        options = {"size": shape[1], **options}
    if facts.num_classes is not None:
        options = {"num_classes": facts.num_classes, **options}
    made: nn.Module = call_section(
        "network", lambda **rest: kind(shape[0], 2 * shape[0] if learned_variance else shape[0], **rest), known, options
    )
    return made
