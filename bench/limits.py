"""The machine's limits, measured with every run: peak multiply-adds per second, and memory bandwidth.

The peak is the best rate of torch's matrix product (oneDNN or MKL) over three square sizes, in float32, in bfloat16, and in int8
with 32-bit sums. The bandwidth is that of a 256 MiB copy by torch; bytes read and bytes written both count. Each number of threads
is measured in its own process, pinned to that many cores.
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
    """The limits for one number of threads.

    Attributes:
        threads: Number of threads.
        multiply_adds, multiply_adds_bf16, multiply_adds_int8: Peak multiply-adds per second, by the dtype of the operands.
        bandwidth: Bytes per second that a large copy reads and writes.
    """

    threads: int
    multiply_adds: float
    multiply_adds_bf16: float
    multiply_adds_int8: float
    bandwidth: float

    def floor(self, multiply_adds: float, moved: float, precision: str = "float32") -> float:
        """A lower bound in seconds: the multiply-adds at the peak of that precision, plus the bytes at the bandwidth."""
        peaks = {"bfloat16": self.multiply_adds_bf16, "int8": self.multiply_adds_int8}
        return multiply_adds / peaks.get(precision, self.multiply_adds) + moved / self.bandwidth


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
    rates = []
    for operands, sums in ((torch.float32, torch.float32), (torch.bfloat16, torch.bfloat16), (torch.int8, torch.int32)):
        product = torch._int_mm if operands == torch.int8 else torch.mm
        pairs = {n: ((20 * torch.randn(n, n)).to(operands), torch.empty(n, n, dtype=sums)) for n in SIZES}
        products = {n: (lambda a=a, o=o, product=product: product(a, a, out=o)) for n, (a, o) in pairs.items()}
        times = interleaved(products, seconds=SECONDS * len(SIZES))
        rates.append(max(n**3 / float(values.min()) for n, values in times.items()))
    source, target = torch.ones(COPY_BYTES // 4), torch.ones(COPY_BYTES // 4)
    copied = interleaved({"copy": lambda: target.copy_(source)}, seconds=2 * SECONDS)["copy"]
    return Limits(threads, *rates, 2 * COPY_BYTES / float(copied.min()))


if __name__ == "__main__":
    print(json.dumps(asdict(_measure(int(sys.argv[1])))))
