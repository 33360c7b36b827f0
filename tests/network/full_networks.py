"""Every network of the benchmark in full, on each instruction set of this machine: the bits must be equal. `make full-networks`.

The tests do this on small networks. The full ones take minutes on scalar code, so this is not part of them.
"""

from __future__ import annotations

import hashlib
import sys
import time

import numpy as np

import diffuse_fast as df
from bench.modules import prepare
from bench.networks import NETWORKS, artifact
from diffuse_fast import _core
from diffuse_fast.program.lower import lower_model
from diffuse_fast.runtimes.native import load

BATCH = 2
ISAS = [*(name for name, reason in _core.kernels() if reason is None), "scalar_plain"]


def main() -> int:
    failed = 0
    for name, net in NETWORKS.items():
        if not artifact(name).exists():
            prepare(name)
        model = df.load(artifact(name))
        program = lower_model(model)
        rng = np.random.default_rng(0)
        x = rng.standard_normal((BATCH, *model.shape)).astype(np.float32)
        conditions = [array.reshape(BATCH, -1).astype(np.float32) for array in net.conditioning(BATCH).values()]
        digests = {}
        for isa in ISAS:
            network = load(program, model.path, isa)
            y = np.empty((BATCH, network.output_size), np.float32)
            begin = time.perf_counter()
            times, kept = network.prepare_times(np.array([999, 499], np.float32)), network.prepare_conditions(conditions, BATCH)
            network.run(x, y, times, kept, 1)
            seconds = time.perf_counter() - begin
            digests[isa] = hashlib.sha256(y.tobytes()).hexdigest()[:16]
            finite = bool(np.isfinite(y).all())
            failed += digests[isa] != digests[ISAS[0]] or not finite
            print(f"{name:8} {isa:12} {digests[isa]} {seconds:8.3f} s{'' if finite else ', not finite'}", flush=True)
    print("different bits" if failed else f"{len(NETWORKS)} networks have the same bits on {', '.join(ISAS)}")
    return min(failed, 1)


if __name__ == "__main__":
    sys.exit(main())
