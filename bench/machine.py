"""The machine that figures are measured on."""

from __future__ import annotations

import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import diffuse_fast.kernels as kernels
from diffuse_fast.machine import affinity, cpu

PACKAGES = ("diffuse-fast", "numpy", "torch", "onnxruntime", "openvino", "MNN", "diffusers", "denoising-diffusion-pytorch")


def machine() -> dict[str, object]:
    """Processor, caches, instruction sets, threads, versions and commit, as JSON-ready data."""
    found = cpu()
    return {
        "processor": f"{found.name or 'unknown'} (family {found.family} model {found.model})",
        "instruction_sets": [f for f in found.flags or () if f.startswith(("avx", "amx", "fma", "asimd"))],
        "kernels": {k.name: k.unavailable or "runs" for k in kernels.kernels()},
        "caches": _caches(),
        "cores": len(affinity()),
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
