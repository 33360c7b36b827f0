"""Every kind of row, by name, for the tests that compare device kernels with the CPU's kernels and with the oracle."""

from __future__ import annotations

from diffuse_fast.plans.plan import Reduction, Row

CLIP = {"p": 1.5, "q": -1.1, "lo": -1.0, "hi": 1.0}
BASE = {"a": 0.9, "b": -0.3}
EIGHT = tuple(0.1 * k for k in range(1, 9))
ROWS = {
    "one step": Row(**BASE),
    "noise": Row(**BASE, s=0.5),
    "noise alone": Row(calls_network=False, s=0.5),
    "clipped, raw epsilon": Row(**CLIP, b=0.4, d=0.8),
    "clipped, posterior": Row(**CLIP, a=0.4, d=0.8, s=0.3),
    "rescaled clip": Row(p=1.5, q=-1.1, lo=-1.0, hi=2.0, r=0.7, d=1.0),
    "sample prediction": Row(q=1.0, d=0.5, a=0.25),
    "a clamp of nothing": Row(lo=0.5, hi=1.0, d=1.0),
    "guidance": Row(g=(2.0, -1.0), **BASE),
    "three outputs": Row(g=(2.0, -0.5, -0.5), **BASE),
    "second output alone": Row(g=(0.0, 1.0), **BASE),
    "one register": Row(**BASE, c=(0.7,), write=0, e_m=1.0),
    "register written with nothing": Row(**BASE, write=2),
    "a register kept in another": Row(**BASE, c=(0.0, 0.5), write=1, f=(0.3, 0.0, -0.4)),
    "eight registers": Row(**BASE, c=EIGHT, write=7, e_x=0.1, e_m=0.2, e_0=0.3, p=1.0, q=-0.5, f=tuple(-c for c in EIGHT)),
    "learned variance": Row(**BASE, log_s=(-1.0, 0.7)),
    "learned variance alone": Row(log_s=(-1.0, 60.0)),
    "no network": Row(calls_network=False, a=1.1, s=0.2),
    "nothing": Row(calls_network=False),
    "known region": Row(**BASE, s=0.1, known_y=0.8, known_z=0.6),
    "known region, clean": Row(**BASE, known_y=1.0),
    "dynamic threshold": Row(**CLIP, b=0.4, d=0.8, reduce=Reduction("dynamic_threshold", (0.9, 4.0))),
}
# Rows with sums over a sample, which devices take in another order than the CPU: a coefficient may differ in its last bit.
SUMS = {
    "guidance rescale": Row(g=(3.0, -2.0), **BASE, reduce=Reduction("guidance_rescale", (0.7,))),
    "langevin": Row(a=1.0, reduce=Reduction("langevin", (0.16, -1.3))),
    "rescale by an output of no weight": Row(g=(0.0, 1.0), **BASE, reduce=Reduction("guidance_rescale", (0.7,))),
    "langevin with given noise": Row(a=1.0, c=(0.3, 0.0, 1.0), reduce=Reduction("langevin_given", (0.16, -1.3))),
}
