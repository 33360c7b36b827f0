"""From nothing to the first sample, and the memory it takes: a fresh process that imports, loads and draws one digit in 20 steps.

The first lines are plain commands, as a user gives them, in a fresh environment with this package as production installs it
(:mod:`bench.environments`). Then this project and the peers do the same in their worker (`python -m bench.worker NAME --once`), on
one core each, in the environment of the benchmark, where ours is an editable install: it looks at import whether to compile anew.
torch.compile compiles first and tuning times first: they are left out. The targets: the import takes at most 60 ms above that of
NumPy; the first digit comes within 0.6 s of the start of the process.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np

from ..environments import PRODUCTION, NotInstalled, environment
from ..measure import Timing
from ..modules import prepare
from ..peers import PEERS, Entry, Job
from ..report import Line
from ..sampling import labels

IMPORTS = {
    "import numpy": "import numpy",
    "import diffuse_fast": "import numpy; import diffuse_fast",
    "import, then every name sampling needs": "import numpy; import diffuse_fast as df; df.sample; df.plan; df.step",
    "first digit: df.sample('digits', 1, 20)": "import numpy; import diffuse_fast as df; df.sample('digits', 1, 20, seed=0)",
}
FIRST_DIGIT = list(IMPORTS)[3]
JOB = Job("digits", 1, 20, 1)
LIMIT_MS = {"import diffuse_fast": 60.0}
LIMIT_FIRST = 0.6


def run(seconds: float) -> list[Line]:
    prepare(JOB.network)
    peers = [e for e in PEERS if not {"compiled", "tuned"} & set(e.options) and e.precision == "float32"]
    try:
        lines = _installed(environment(PRODUCTION) / "bin" / "python", seconds)
    except NotInstalled as error:
        lines = [Line(FIRST_DIGIT, limit=LIMIT_FIRST, note=f"left out: {error}")]
    ours = None
    for entry in peers:
        done = _peer(entry, ours)
        if ours is None and done[0].seconds is not None:
            ours = done[0].seconds.median  # the first of the table
        lines += done
    return lines


def _installed(python: Path, seconds: float) -> list[Line]:
    """The plain commands, in turns."""
    commands = {name: [python, "-c", code] for name, code in IMPORTS.items()}
    times: dict[str, list[float]] = {name: [] for name in commands}
    for command in commands.values():
        _wall(command)  # once for the disk
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times["import numpy"]) < 5:
        for name, command in commands.items():
            times[name].append(_wall(command))
    arrays = {name: np.array(values) for name, values in times.items()}
    lines = [
        Line(name, seconds=Timing.of(values), limit=LIMIT_FIRST if name == FIRST_DIGIT else None, note="the whole process")
        for name, values in arrays.items()
    ]
    for name in list(IMPORTS)[1:3]:
        above = float(np.median(arrays[name] - arrays["import numpy"])) * 1e3
        lines.append(Line(f"{name}, above numpy", value=above, unit="ms", limit=LIMIT_MS.get(name)))
    return lines


def _wall(command: list[str | Path]) -> float:
    begin = time.perf_counter()
    # Not from the tree, whose folder would be imported in place of what is installed.
    subprocess.run(command, check=True, capture_output=True, cwd=Path(command[0]).parent)
    return time.perf_counter() - begin


def _peer(entry: Entry, ours: float | None) -> list[Line]:
    """Three starts, and the largest peak of memory."""
    command = [sys.executable, "-m", "bench.worker", entry.name, "--once", json.dumps(asdict(JOB))]
    times, peaks = [], []
    job = {**labels(JOB, entry), "cold": True}
    for _ in range(3):
        begin = time.perf_counter()
        done = subprocess.run(command, capture_output=True, text=True)
        times.append(time.perf_counter() - begin)
        if done.returncode:
            reason = next(reversed(done.stderr.strip().splitlines()), f"exit code {done.returncode}")
            return [Line(f"first digit: {entry.name}", job=job, note=f"left out: {reason[:160]}")]
        peaks.append(int(done.stdout.split()[-1]))
    seconds = np.array(times)
    name = f"first digit: {entry.name}"
    return [
        Line(name, seconds=Timing.of(seconds), ratio=Timing.of(seconds / ours) if ours else None, peer="diffuse_fast", job=job),
        Line(f"peak memory, {name}", value=max(peaks) / 1e6, unit="MB", job=job),
    ]
