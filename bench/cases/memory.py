"""Peak memory of sampling above the network's own, in buffers of the batch's size.

The network is a Python function that allocates nothing, so what the process grows by is what sampling takes: the state, the
model output, the result. The target: at most 4 buffers for a one-step solver. Each case has a process of its own.
"""

from __future__ import annotations

import subprocess
import sys

from ..report import Line

SHAPE = (64, 3, 128, 128)
CODE = """
import resource, numpy as np, diffuse_fast as df
shape = {shape}
output = np.full(shape, 0.1, np.float32)
plan = df.plan(df.Schedule.linear(), {solver!r}, 5, prediction_type="epsilon")
def f(x, t):
    return output[:len(x)]
df.Sampler(f, plan, shape=shape[1:]).sample(1, seed=0)
def peak():  # unlike ru_maxrss, VmHWM can be set back
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM")) * 1024
open("/proc/self/clear_refs", "w").write("5")
before = peak()
x = df.Sampler(f, plan, shape=shape[1:]).sample(shape[0], seed=0)
print((peak() - before) / output.nbytes)
"""


def run(seconds: float) -> list[Line]:
    return [_line("ddim"), _line("ddpm")]


def _line(solver: str) -> Line:
    code = CODE.format(shape=SHAPE, solver=solver)
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return Line(f"{solver}, batch of {SHAPE}", value=float(done.stdout), unit="buffers", limit=4.0)
