"""From nothing to the first sample: what `import diffuse_fast` and a first call take in a fresh process.

The target: the import takes at most 60 ms above that of NumPy.
"""

from __future__ import annotations

import subprocess
import sys
import time

import numpy as np

from ..measure import Timing
from ..report import Line

IMPORTS = {
    "import numpy": "import numpy",
    "import diffuse_fast": "import numpy; import diffuse_fast",
    "import, then every name sampling needs": "import numpy; import diffuse_fast as df; df.sample; df.plan; df.step",
    "first digit: df.sample('digits', 1, 20)": "import numpy; import diffuse_fast as df; df.sample('digits', 1, 20, seed=0)",
}


def run(seconds: float) -> list[Line]:
    times: dict[str, list[float]] = {name: [] for name in IMPORTS}
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times["import numpy"]) < 5:
        for name, code in IMPORTS.items():
            begin = time.perf_counter()
            subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
            times[name].append(time.perf_counter() - begin)
    arrays = {name: np.array(values) for name, values in times.items()}
    lines = [Line(name, seconds=Timing.of(values), note="the whole process") for name, values in arrays.items()]
    above = {name: arrays[name] - arrays["import numpy"] for name in IMPORTS}
    for name in list(IMPORTS)[1:3]:
        limit = 60.0 if name == "import diffuse_fast" else None
        lines.append(Line(f"{name}, above numpy", value=float(np.median(above[name])) * 1e3, unit="ms", limit=limit))
    return lines
