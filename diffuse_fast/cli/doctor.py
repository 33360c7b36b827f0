"""``diffuse-fast doctor``: the kernels, runtimes and packages of this machine, and what is chosen."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
from typing import Annotated, Any

import typer

from .. import telemetry
from ..errors import install_hint
from ..machine import cores, cpu, physical_cores, quota
from . import lowering

PACKAGES = ("numpy", "onnxruntime", "onnxruntime-gpu", "openvino", "torch", "triton", "onnx", "pillow")

# The instruction sets that this package or a runtime uses.
INSTRUCTIONS = (
    "sse4_2", "avx", "avx2", "fma", "f16c", "avx_vnni", "avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512_vnni", "avx512_bf16",
    "avx512_fp16", "amx_tile", "amx_int8", "amx_bf16", "asimd", "asimdhp", "asimddp", "bf16", "i8mm", "sve", "sve2",
)  # fmt: skip


def doctor(
    model: Annotated[
        str | None, typer.Argument(metavar="[MODEL]", help="An ONNX file or a bundled model: does the native runtime run it?")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
) -> None:
    """Show what this machine has, what is chosen and why: versions, instruction sets, kernels, runtimes, threads.

    With MODEL, say also whether the native runtime runs its network, and if not which operator it lacks.
    No runtime is imported, except torch where triton and a CUDA driver are installed.
    """
    report = examine()
    if model is not None:
        report["native"] = {"model": model, **lowering.of_name(model)}
    if as_json:
        print(json.dumps(report, indent=2))
    else:
        _show(report)


def examine() -> dict[str, Any]:
    """The report as JSON data. Imports no runtime: installed versions are read from metadata."""
    from .. import __version__, _core

    packages = {name: _version(name) for name in PACKAGES}
    return {
        "diffuse_fast": {"version": __version__, "core": _core.__version__, "noise_version": _core.NOISE_VERSION},
        "python": platform.python_version(),
        "system": platform.platform(),
        "cpu": {"machine": platform.machine(), "cores": cores(), **_cpu()},
        "packages": packages,
        "kernels": _kernels(),
        "kernel": _kernel(),
        "cuda": _cuda(),
        "runtimes": _runtimes(),
        "auto_runtime": _auto(),
        "tuned": _tuned(),
        "threads": _threads(),
        "warnings": _warnings(packages),
    }


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _cpu() -> dict[str, Any]:
    """Return the CPU's name and instruction sets; None where the system does not report them."""
    found = cpu()
    return {
        "name": found.name or platform.processor() or None,
        "instructions": None if found.flags is None else [name for name in INSTRUCTIONS if name in found.flags],
    }


def _kernels() -> list[dict[str, Any]]:
    from ..kernels import kernels

    return [{"name": k.name, "device": k.device, "available": k.unavailable is None, "reason": k.unavailable} for k in kernels()]


def _kernel() -> dict[str, Any]:
    """The kernel of a step. If a forced one cannot run, ``name`` is None and ``why`` is the reason."""
    from ..errors import UnavailableError
    from ..kernels import get_kernel
    from ..kernels.registry import ENVIRONMENT

    forced = os.environ.get(ENVIRONMENT) or None
    try:
        name = get_kernel().name
    except UnavailableError as error:
        return {"name": None, "why": f"{ENVIRONMENT}={forced}: {error}", "forced": forced}
    return {"name": name, "why": f"{ENVIRONMENT}={forced}" if forced else "the best this CPU runs", "forced": forced}


def _cuda() -> dict[str, Any]:
    """Whether a CUDA device is available, and what is missing for each kind of model, as far as files show."""
    from .. import _core
    from ..engine.devices.choose import core_reasons, torch_build_reason
    from ..kernels import kernels

    reason = _core.cuda_unavailable_reason()
    steps = [k for k in kernels() if k.device == "cuda"]
    lacks = [why] if (why := torch_build_reason()) else []
    if all(k.unavailable for k in steps):
        lacks += [f"no step kernel: {'; '.join(f'{k.name}: {k.unavailable}' for k in steps)}"]
    return {"available": reason is None, "reason": reason, "module": lacks, "artifact": core_reasons()}


def _runtimes() -> list[dict[str, Any]]:
    from ..runtimes.registry import RUNTIMES

    return [
        {
            "name": r.name,
            "runs": list(r.runs),
            "precisions": list(r.precisions),
            "package": r.package,
            "installed": r.installed,
            "install": None if r.extra is None else install_hint(r.extra),
        }
        for r in RUNTIMES
    ]


def _auto() -> dict[str, str | None]:
    """The runtime that ``runtime="auto"`` uses for each kind of model, if it does not decline it; None if none is installed."""
    from ..runtimes.registry import RUNTIMES

    kinds = dict.fromkeys(kind for r in RUNTIMES for kind in r.runs)
    return {kind: next((r.name for r in RUNTIMES if kind in r.runs and r.installed), None) for kind in kinds}


def _tuned() -> dict[str, Any]:
    """The stored results of ``tune``: their folder, and those that are valid for this machine and these versions."""
    from ..runtimes import tuning_cache

    base = tuning_cache.folder()
    return {"folder": None if base is None else str(base), "answers": tuning_cache.entries()}


def _threads() -> dict[str, Any]:
    from ..kernels import num_threads

    given = os.environ.get("DIFFUSE_FAST_NUM_THREADS") or None
    most = "the cores that this process may use"
    if quota() is not None:
        most = f"limited to {quota()} cores by the container's CPU quota"
    why = f"DIFFUSE_FAST_NUM_THREADS={given}" if given else most
    network = f"threads=, else the choice of tune, else the physical cores, {physical_cores()}"
    return {"step": num_threads(), "why": why, "network": network}


def _warnings(packages: dict[str, str | None]) -> list[str]:
    out = []
    if packages["onnxruntime"] and packages["onnxruntime-gpu"]:
        out.append(
            "onnxruntime and onnxruntime-gpu are both installed and provide the same module: the one installed last "
            "is used, and removing one breaks the other. pip uninstall both, then install one."
        )
    if (kernel := _kernel())["name"] is None:
        out.append(f"the forced kernel cannot run, so nothing can be sampled. {kernel['why']}")
    out += [
        f"{package} was imported before diffuse_fast, with its telemetry on; import diffuse_fast first, or see docs/runtimes.md."
        for package in telemetry.started()
    ]
    return out


def _show(report: dict[str, Any]) -> None:
    from ..console import say
    from .tables import show

    own, cpu, kernel, threads = report["diffuse_fast"], report["cpu"], report["kernel"], report["threads"]
    instructions = "unknown on this system" if cpu["instructions"] is None else " ".join(cpu["instructions"])
    show(
        f"diffuse_fast {own['version']}",
        [
            ("core", f"{own['core']}, noise version {own['noise_version']}"),
            ("python", report["python"]),
            ("system", report["system"]),
            ("cpu", f"{cpu['name'] or cpu['machine']}, {cpu['cores']} cores for this process"),
            ("instructions", instructions),
            ("threads", f"step: {threads['step']} ({threads['why']}); network: {threads['network']}"),
            *((name, version or "not installed") for name, version in report["packages"].items()),
        ],
    )
    show(
        f"step kernel: {kernel['name'] or 'none'} ({kernel['why']})",
        [
            ("→" if k["name"] == kernel["name"] else "", k["name"], k["device"], "can run" if k["available"] else k["reason"])
            for k in report["kernels"]
        ],
        ("", "kernel", "device", ""),
    )
    show(
        "runtimes: " + ", ".join(f"{kind} on {name or 'nothing'}" for kind, name in report["auto_runtime"].items()),
        [
            (
                r["name"],
                ", ".join(r["runs"]),
                ", ".join(r["precisions"]),
                "installed" if r["installed"] else f"not installed: {r['install']}",
            )
            for r in report["runtimes"]
        ],
        ("runtime", "runs", "precisions", ""),
    )
    cuda = report["cuda"]
    show(
        "device cuda",
        [(kind, "available" if not cuda[kind] else "; ".join(cuda[kind])) for kind in ("module", "artifact")],
        ("model", ""),
    )
    tuned = report["tuned"]
    show(
        f"tuned: the choices of auto (in {tuned['folder']})"
        if tuned["answers"]
        else "tuned: nothing; `diffuse-fast tune MODEL` finds the fastest choice for auto",
        [
            (a["model"], a["batch"], a["precision"], a["runtime"], a["threads"], f"{a['seconds'] * 1e3:.3f}", a["why"])
            for a in tuned["answers"]
        ],
        ("model", "batch", "precision", "runtime", "threads", "median ms", "why"),
    )
    if "native" in report:
        show(f"native runtime: {report['native']['model']}", lowering.rows(report["native"]))
    for warning in report["warnings"]:
        say(f"warning: {warning}")
