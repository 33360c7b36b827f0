"""What an installation weighs: fresh environments, as a user's requirements would make them, their site-packages summed.

pip and setuptools, which every environment starts with, are left out. The target: production, this package and NumPy, takes
at most 10 MB beside NumPy. Needs the package index.
"""

from __future__ import annotations

from pathlib import Path

from ..environments import PRODUCTION, NotInstalled, environment
from ..report import Line

LIMIT_MB = 10.0  # beside NumPy
SETS = {
    "production: diffuse-fast": PRODUCTION,
    "with onnxruntime beside it: diffuse-fast[cpu]": ("{wheel}[cpu]",),
    "with OpenVINO beside it: diffuse-fast[cpu,openvino]": ("{wheel}[cpu,openvino]",),
    # Its own index has the build without CUDA, where the default one has none for this machine.
    "torch (CPU) and diffusers": ("--extra-index-url", "https://download.pytorch.org/whl/cpu", "torch", "diffusers"),
}
NOT_COUNTED = ("pip", "setuptools", "pkg_resources", "_distutils_hack")


def run(seconds: float) -> list[Line]:
    lines = [_line(name, packages) for name, packages in SETS.items()]
    return [_line("production, beside NumPy", PRODUCTION, ("numpy",), LIMIT_MB), *lines]


def _line(name: str, packages: tuple[str, ...], without: tuple[str, ...] = (), limit: float | None = None) -> Line:
    try:
        site = next(environment(packages).glob("lib/python*/site-packages"))
    except NotInstalled as error:
        return Line(name, limit=limit, note=f"left out: {error}")
    return Line(name, value=_bytes(site, (*NOT_COUNTED, *without)) / 1e6, unit="MB", limit=limit)


def _bytes(site: Path, without: tuple[str, ...]) -> int:
    files = (p for p in site.rglob("*") if p.is_file() and not p.is_symlink())
    return sum(p.stat().st_size for p in files if not p.relative_to(site).parts[0].startswith(without))
