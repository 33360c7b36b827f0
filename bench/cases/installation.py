"""What an installation weighs: fresh environments, as a user's requirements would make them, their site-packages summed.

pip and setuptools, which every environment starts with, are left out. The target: production, which is this package with NumPy and
onnxruntime, is under 200 MB. Needs the package index.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import venv
from pathlib import Path

from ..report import Line

ROOT = Path(__file__).parent.parent.parent
LIMIT_MB = 200.0
LONGEST = 240.0  # seconds for one environment: what takes longer is the package index
SETS = {
    "production: diffuse-fast[cpu]": ("{wheel}[cpu]",),
    "with OpenVINO beside it: diffuse-fast[cpu,openvino]": ("{wheel}[cpu,openvino]",),
    # Its own index has the build without CUDA, where the default one has none for this machine.
    "torch (CPU) and diffusers": ("--extra-index-url", "https://download.pytorch.org/whl/cpu", "torch", "diffusers"),
}
CONSTRAINTS = ROOT / "requirements" / "constraints.txt"
NOT_COUNTED = ("pip", "setuptools", "pkg_resources", "_distutils_hack")
# An index that does not answer is not waited for: pip asks every index for every package.
PIP = ("-m", "pip", "--retries", "0", "--timeout", "30")


def run(seconds: float) -> list[Line]:
    with tempfile.TemporaryDirectory() as folder:
        build = [sys.executable, *PIP, "wheel", "-q", "--no-deps", "-w", folder, ROOT]
        subprocess.run(build, check=True, capture_output=True, text=True)
        wheel = str(next(Path(folder).glob("*.whl")))
        return [_line(name, [package.format(wheel=wheel) for package in packages]) for name, packages in SETS.items()]


def _line(name: str, packages: list[str]) -> Line:
    limit = LIMIT_MB if name.startswith("production") else None
    with tempfile.TemporaryDirectory() as folder:
        venv.create(folder, with_pip=True)
        python = Path(folder) / "bin" / "python"
        command = [python, *PIP, "install", "-q", "-c", CONSTRAINTS, *packages]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=LONGEST)
        except subprocess.TimeoutExpired:
            return Line(name, limit=limit, note=f"left out: not installed within {LONGEST:g} s")
        if done.returncode:
            return Line(name, limit=limit, note=f"left out: {next(reversed(done.stderr.strip().splitlines()), '')[:160]}")
        site = next(Path(folder).glob("lib/python*/site-packages"))
        return Line(name, value=_bytes(site) / 1e6, unit="MB", limit=limit)


def _bytes(site: Path) -> int:
    files = (p for p in site.rglob("*") if p.is_file() and not p.is_symlink())
    return sum(p.stat().st_size for p in files if not p.relative_to(site).parts[0].startswith(NOT_COUNTED))
