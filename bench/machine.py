"""The machine that figures are measured on."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import diffuse_fast.kernels as kernels

PACKAGES = ("diffuse-fast", "numpy", "torch", "onnxruntime", "openvino", "MNN", "diffusers", "denoising-diffusion-pytorch")


def machine() -> dict[str, object]:
    """Processor, caches, instruction sets, threads, versions and commit, as JSON-ready data."""
    cpu, flags = "unknown", ""
    path = Path("/proc/cpuinfo")
    if path.exists():
        fields = dict(line.split(":", 1) for line in path.read_text().split("\n\n")[0].splitlines() if ":" in line)
        fields = {name.strip(): value.strip() for name, value in fields.items()}
        family = f"family {fields.get('cpu family')} model {fields.get('model')}"
        cpu, flags = f"{fields.get('model name', 'unknown')} ({family})", fields.get("flags", "")
    return {
        "processor": cpu,
        "instruction_sets": [f for f in flags.split() if f.startswith(("avx", "amx", "fma", "asimd"))],
        "kernels": {k.name: k.unavailable or "runs" for k in kernels.kernels()},
        "caches": _caches(),
        "cores": len(os.sched_getaffinity(0)),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in PACKAGES},
        "commit": _commit(),
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _caches() -> dict[str, str]:
    out = {}
    for index in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        level, kind, size = ((index / name).read_text().strip() for name in ("level", "type", "size"))
        if kind != "Instruction":
            out[f"L{level}"] = size
    return out


def _commit() -> str | None:
    here = Path(__file__).parent

    def git(*arguments: str) -> str:
        return subprocess.run(["git", "-C", here, *arguments], capture_output=True, text=True, check=True).stdout.strip()

    try:
        dirty = git("status", "--porcelain", "--", "../csrc", "../diffuse_fast", ".")
        return git("rev-parse", "--short", "HEAD") + ("+changes" if dirty else "")
    except (OSError, subprocess.CalledProcessError):
        return None
