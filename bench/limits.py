"""What the machine can do at most, measured beside every run: multiply-adds per second and bytes copied per second.

The peak is the best rate of ``torch.mm`` (oneDNN or MKL) over three square sizes, in float32 and, for rows that compute in it, in
bfloat16; the bandwidth is that of copying 256 MiB with torch, read and written bytes both counted. Each number of threads is
measured in a process of its own, pinned to as many cores.
"""

from __future__ import annotations

import functools
import json
import subprocess
import sys
from dataclasses import asdict, dataclass

SIZES = (512, 1024, 2048)
COPY_BYTES = 256 << 20
SECONDS = 0.4


@dataclass(frozen=True)
class Limits:
    """Of one number of threads.

    Attributes:
        multiply_adds: Per second, float32.
        multiply_adds_bf16: Per second, bfloat16 operands.
        bandwidth: Bytes per second of a large copy, reads and writes.
    """

    threads: int
    multiply_adds: float
    multiply_adds_bf16: float
    bandwidth: float

    def floor(self, multiply_adds: float, moved: float, precision: str = "float32") -> float | None:
        """Seconds that the multiply-adds take at the peak and the bytes at the bandwidth; None for a precision without a peak."""
        peaks = {"float32": self.multiply_adds, "bfloat16": self.multiply_adds_bf16}
        return multiply_adds / peaks[precision] + moved / self.bandwidth if precision in peaks else None


@functools.cache
def limits(threads: int) -> Limits:
    done = subprocess.run([sys.executable, "-m", __name__, str(threads)], check=True, capture_output=True, text=True)
    return Limits(**json.loads(done.stdout))


def _measure(threads: int) -> Limits:
    import os

    import torch

    from .cores import cores
    from .measure import interleaved

    os.sched_setaffinity(0, cores(threads))
    torch.set_num_threads(threads)
    rates = {}
    for dtype in (torch.float32, torch.bfloat16):
        pairs = {n: (torch.randn(n, n).to(dtype), torch.empty(n, n, dtype=dtype)) for n in SIZES}
        products = {n: (lambda a=a, o=o: torch.mm(a, a, out=o)) for n, (a, o) in pairs.items()}
        times = interleaved(products, seconds=SECONDS * len(SIZES))
        rates[dtype] = max(n**3 / float(values.min()) for n, values in times.items())
    source, target = torch.ones(COPY_BYTES // 4), torch.ones(COPY_BYTES // 4)
    copied = interleaved({"copy": lambda: target.copy_(source)}, seconds=2 * SECONDS)["copy"]
    return Limits(threads, rates[torch.float32], rates[torch.bfloat16], 2 * COPY_BYTES / float(copied.min()))


if __name__ == "__main__":
    print(json.dumps(asdict(_measure(int(sys.argv[1])))))
