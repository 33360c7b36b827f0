"""Fresh environments with this package in them, as a user's requirements would make them: from one wheel, which is built once.

Needs the package index, for what the package depends on.
"""

from __future__ import annotations

import functools
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).parent.parent
CONSTRAINTS = ROOT / "requirements" / "constraints.txt"
LONGEST = 240.0  # seconds for one environment: what takes longer is the package index
PRODUCTION = ("{wheel}",)
# An index that does not answer is not waited for: pip asks every index for every package.
_PIP = ("-m", "pip", "--retries", "0", "--timeout", "30")


class NotInstalled(Exception):
    """An environment could not be made; the message says why."""


@functools.cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    """Of all environments, gone when the process ends."""
    return tempfile.TemporaryDirectory(prefix="diffuse_fast-")


@functools.cache
def _wheel() -> Path:
    # What runs on the CPU does not wait for a CUDA compiler, should there be one.
    cpu = ("-C", "cmake.define.USE_CUDA=OFF")
    build = [sys.executable, *_PIP, "wheel", "-q", "--no-deps", *cpu, "-w", _folder().name, ROOT]
    subprocess.run(build, check=True, capture_output=True, text=True)
    return next(Path(_folder().name).glob("*.whl"))


@functools.cache
def environment(packages: tuple[str, ...]) -> Path:
    """The folder of an environment with those packages, as pip takes them; ``{wheel}`` is this package.

    Raises:
        NotInstalled: pip fails, or takes longer than :data:`LONGEST`.
    """
    folder = Path(tempfile.mkdtemp(dir=_folder().name))
    venv.create(folder, with_pip=True)
    wanted = [package.format(wheel=_wheel()) for package in packages]
    command = [folder / "bin" / "python", *_PIP, "install", "-q", "-c", CONSTRAINTS, *wanted]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=LONGEST)
    except subprocess.TimeoutExpired:
        raise NotInstalled(f"not installed within {LONGEST:g} s") from None
    if done.returncode:
        raise NotInstalled(next(reversed(done.stderr.strip().splitlines()), f"pip ends with {done.returncode}")[:160])
    return folder
