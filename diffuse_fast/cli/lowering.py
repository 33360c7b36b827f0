"""Whether the compiled core runs a network, for ``inspect`` and ``doctor``: its size, algorithms and errors."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..artifact.document import Native
    from ..model import Model
    from ..program.program import Program


MEMORY = ("weights", "activations", "workspace")  # bytes: packed, of one sample, of one thread


def of_model(model: Model) -> dict[str, Any]:
    """Whether a model's network lowers: its size and algorithms, and the errors that were measured; or why not."""
    from ..program.lower import lower_model
    from ..runtimes.native.error_cache import measured

    return _report(lambda: lower_model(model), lambda program: measured(model))


def of_name(name: str) -> dict[str, Any]:
    """The same of a bundled model, an artifact, or any other ONNX file. Errors that no export measured are measured and stored."""
    from ..errors import ArtifactError
    from ..model import checksum, load
    from ..onnx import external_data, header
    from ..program.lower import lower_file, lower_model
    from ..runtimes.native import error_cache
    from ..runtimes.native.error import Inputs, inputs_of, inputs_of_file, measure

    def measured(program: Program, path: Path, sha256: str, inputs: Callable[[], Inputs]) -> Native:
        found = error_cache.read(sha256)
        if found is None:
            found = measure(program, path, inputs())
            error_cache.write(sha256, found)
        return found

    try:
        model = load(name)
    except ArtifactError:
        path = Path(name)
        if not path.is_file():
            raise

        def of_file(program: Program) -> Native:
            sha256 = checksum((path, *external_data.check(header.read(path).external, path.parent)))
            return measured(program, path, sha256, lambda: inputs_of_file(path, program))

        return _report(lambda: lower_file(path), of_file)

    def of_artifact(program: Program) -> Native:
        return model.native or measured(program, model.path, model.sha256, lambda: inputs_of(model, program))

    return _report(lambda: lower_model(model), of_artifact)


def _report(lower: Callable[[], Program], errors: Callable[[Program], Native | None]) -> dict[str, Any]:
    from .. import _core
    from ..errors import ArtifactError, NetworkError, UnavailableError, UnsupportedError
    from ..program.encoding import encode
    from ..program.identity import layer_name, program_hash
    from ..program.program import VERSION
    from ..program.summary import summarize
    from ..runtimes.native import algorithms, instruction_set
    from ..runtimes.registry import RUNTIMES

    try:
        program = lower()
        measured = errors(program)
        isa = instruction_set()
    except (ArtifactError, NetworkError, UnavailableError, UnsupportedError) as error:
        return {"lowers": False, "why_not": str(error)}
    precisions = next(r.precisions for r in RUNTIMES if r.name == "native")
    back = () if measured is None else measured.float32_layers
    return {
        "lowers": True,
        "why_not": None,
        **dataclasses.asdict(summarize(program)),
        "program_version": VERSION,
        "program": program_hash(program),
        "instruction_set": isa,
        "algorithms": {
            precision: {layer_name(program, i): name for i, name in algorithms(program, precision, back).items()}
            for precision in precisions
        },
        "memory": {
            precision: dict(zip(MEMORY, _core.network_memory(isa, encode(program), precision), strict=True))
            for precision in precisions
        },
        "measured": None if measured is None else measured.to_json(),
    }


def rows(report: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The rows of a table."""
    if not report["lowers"]:
        return [("runs", "no"), ("why", report["why_not"])]
    kinds, prepared, kept = report["kinds"], report["prepared"], report["row_bytes"]
    when = {
        "load": "when it is loaded",
        "time": "once per time",
        "condition": "once per condition",
        "pair": "once per pair of them",
    }
    return [
        ("runs", "yes"),
        ("operations", f"{sum(kinds.values())} per call: " + ", ".join(f"{count} {kind}" for kind, count in kinds.items())),
        ("prepared", ", ".join(f"{prepared[name]} {text}" for name, text in when.items() if prepared[name]) or "nothing"),
        ("weights", f"{report['weight_bytes']:,} bytes in the file"),
        ("kept", ", ".join(f"{size:,} bytes per {name}" for name, size in kept.items() if size) or "nothing"),
        ("program", f"version {report['program_version']}, {report['program']}"),
        *(row for precision in report["algorithms"] for row in _of_precision(report, precision)),
        *_errors(report["measured"]),
    ]


def _of_precision(report: Mapping[str, Any], precision: str) -> list[tuple[str, str]]:
    counts = sorted(Counter(report["algorithms"][precision].values()).items())
    convolutions = ", ".join(f"{count} {name}" for name, count in counts) or "none"
    weights, activations, workspace = (f"{report['memory'][precision][name]:,}" for name in MEMORY)
    return [
        (precision, f"on {report['instruction_set']}; convolutions: {convolutions}"),
        ("", f"memory: {weights} bytes of packed weights, {activations} of activations per sample, {workspace} of workspace"),
    ]


def _errors(measured: Mapping[str, Any] | None) -> list[tuple[str, str]]:
    if measured is None:
        return [("error", "not measured; `diffuse-fast doctor MODEL` measures it")]
    worst = ", ".join(f"{max(found):.1e} in {precision}" for precision, found in measured["errors"].items())
    against = f"the largest of {len(measured['times'])} calls, of their largest output, against {measured['reference']}"
    taken_back = measured["float32_layers"]
    return [("error", f"{worst}; {against}")] + [("as in float32", ", ".join(taken_back))] * bool(taken_back)
