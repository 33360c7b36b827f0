"""``diffuse-fast inspect``: show the metadata of a model file."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from ..model import Model


def inspect(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="An artifact (.onnx), or a bundled model: digits.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
) -> None:
    """Show the metadata of a model file: shape, schedule, conditioning, graph, size, checksum, licence, training.

    Says also whether the native runtime runs the network, and if not why.
    """
    from ..model import load

    report = describe(load(model))
    if as_json:
        print(json.dumps(report, indent=2))
    else:
        _show(report)


def describe(model: Model) -> dict[str, Any]:
    """A model's document, graph and files as JSON data; no runtime is needed."""
    from ..onnx import header
    from . import lowering

    outside = header.read(model.path)
    return {
        "path": str(model.path),
        "bytes": sum(path.stat().st_size for path in (model.path, *model.external)),
        "external": [path.name for path in model.external],
        "sha256": model.sha256,
        "opset": outside.opset,
        "inputs": [dataclasses.asdict(value) for value in outside.inputs],
        "outputs": [dataclasses.asdict(value) for value in outside.outputs],
        "native": lowering.of_model(model),
        "document": model.to_json(),
    }


def _show(report: dict[str, Any]) -> None:
    from . import lowering
    from .tables import show

    document = report["document"]
    sample = document["sample"]
    files = ", ".join(report["external"])
    show(
        document["name"],
        [
            ("file", report["path"]),
            ("size", f"{report['bytes']:,} bytes" + (f", with {files}" if files else "")),
            ("sha256", report["sha256"]),
            ("licence", document["license"] or "not said"),
            ("producer", f"{document['producer']}, opset {report['opset']}"),
            ("sample", f"{sample['dtype']} {sample['shape']}, values {sample['value_range'] or 'without bounds'}"),
            ("prediction type", document["prediction_type"]),
            ("variance", document["variance"]),
            ("clip", document["clip"] or "none"),
            ("schedule", _plain(document["schedule"])),
            ("time", f"{document['time']['convention']}, {document['time']['dtype']}"),
            ("learned plans", ", ".join(f"{plan['steps']} steps" for plan in document.get("plans", ())) or "none"),
        ],
    )
    show(
        "graph",
        [
            (way, value["name"], value["dtype"], "x".join(str(d) if d != "" else "?" for d in value["shape"] or ("?",)))
            for way, values in (("input", report["inputs"]), ("output", report["outputs"]))
            for value in values
        ],
    )
    show("native runtime", lowering.rows(report["native"]))
    if document["conditioning"]:
        show(
            "conditioning",
            [(c["name"], c["dtype"], c["shape"], c["null"], c["classes"]) for c in document["conditioning"]],
            ("name", "dtype", "shape", "null", "classes"),
        )
    for c in document["conditioning"]:
        if names := c.get("class_names"):
            show(f"classes of {c['name']}", [(str(number), name) for number, name in enumerate(names)])
    if document.get("quantization"):
        show("int8", quantization_rows(document["quantization"]))
    show("training", [(key, _plain(value)) for key, value in document["training"].items()] or [("not said",)])


def quantization_rows(found: dict[str, Any]) -> list[tuple[str, str]]:
    """The rows of a document's section on int8."""
    distances = found["frechet_distance"]
    calibration = found["calibration"]
    return [
        ("layers in int8", f"{len(found['layers'])} of {calibration.get('layers_able', '?')} between the first and the last"),
        *((f"relative error, {runtime}", f"{error:.2%}") for runtime, error in found["relative_error"].items()),
        ("Fréchet distance", "not measured" if distances is None else ", ".join(f"{p} {d:.4g}" for p, d in distances.items())),
        ("calibration", ", ".join(f"{name} {_plain(calibration[name])}" for name in ("solver", "samples", "steps", "seed")
                                  if name in calibration)),
    ]  # fmt: skip


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_plain(one)}" for key, one in value.items())
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 200 else text[:200] + "…"  # a table of betas
