"""Loading a network into the core against making a session of onnxruntime, each in a process of its own: time until the first call
can run, and peak memory above the process with its imports, the first call at batch 1 included.

The targets: at most 1.5 times the time of a session, and at most its memory.
"""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np

from ..measure import Timing
from ..modules import prepare
from ..networks import NETWORKS, artifact
from ..report import Line

NETS = ("digits", "unet28", "cifar10")
ROUNDS = 5
CODE = """
import json, sys, time
import numpy as np, onnxruntime as ort, diffuse_fast as df
from diffuse_fast.runtimes import native, network

def memory(field):
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(field)) * 1024

which, path, cond = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
model = df.load(path)
x = np.zeros((1, *model.shape), np.float32)
cond = {c.name: np.array(cond[c.name], c.dtype) for c in model.conditioning}
before = memory("VmRSS")
open("/proc/self/clear_refs", "w").write("5")  # the peak starts here
begin = time.perf_counter()
if which == "native":
    loaded = network(model, "native", threads=1)
    seconds = time.perf_counter() - begin
    loaded.bind(1, model.shape, cond)(999.0)
else:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    seconds = time.perf_counter() - begin
    time_input = next(i for i in session.get_inputs() if i.name == model.time.input)
    t = np.full([1] * len(time_input.shape), 999, np.float32 if time_input.type == "tensor(float)" else np.int64)
    session.run(None, {model.input: x, model.time.input: t, **cond})
print(seconds, memory("VmHWM") - before)
"""


def run(seconds: float) -> list[Line]:
    lines = []
    for name in NETS:
        prepare(name)
        rounds = [[_measure(which, name) for which in ("native", "onnxruntime")] for _ in range(ROUNDS)]
        (ours, memory), (peers, peer_memory) = np.array(rounds).transpose(1, 2, 0)
        lines += [
            Line(f"{name}: native", seconds=Timing.of(ours), ratio=Timing.of(ours / peers), peer="onnxruntime", limit=1.5),
            Line(f"{name}: onnxruntime", seconds=Timing.of(peers)),
            Line(f"{name}, peak memory: native", value=memory.max() / 1e6, unit="MB", limit=peer_memory.max() / 1e6),
            Line(f"{name}, peak memory: onnxruntime", value=peer_memory.max() / 1e6, unit="MB"),
        ]
    return lines


def _measure(which: str, name: str) -> tuple[float, float]:
    cond = json.dumps({key: value.tolist() for key, value in NETWORKS[name].conditioning(1).items()})
    command = [sys.executable, "-c", CODE, which, str(artifact(name)), cond]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    seconds, memory = map(float, done.stdout.split())
    return seconds, memory
