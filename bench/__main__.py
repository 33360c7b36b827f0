"""``python -m bench [case ...]``: run the cases, show the figures, and write them as JSON with the machine."""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import asdict
from importlib import import_module
from pathlib import Path

from rich.console import Console

from diffuse_fast.console import degrade

from .cores import thread_counts
from .limits import limits
from .machine import machine
from .report import show
from .targets import table, verdicts

# By name, with the time that a case gets where --seconds does not say it.
CASES = {
    "step": 10.0,
    "step_sizes": 24.0,
    "solvers": 15.0,
    "small_step": 5.0,
    "loop": 10.0,
    "forward": 5.0,
    "training": 60.0,
    "memory": 0.0,
    "graphs": 20.0,
    "native": 60.0,
    "loading": 0.0,
    "traffic": 0.0,
    "serving": 30.0,
    "tiny": 60.0,
    "small": 90.0,
    "medium": 60.0,
    "growth": 40.0,
    "processes": 30.0,
    "start": 15.0,
    "installation": 0.0,
}
QUICK = ("step_sizes", "small_step", "loop", "memory", "tiny")
QUICK_SECONDS = 5.0


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description="The benchmarks of diffuse_fast.")
    parser.add_argument("cases", nargs="*", metavar="case", help=f"of {', '.join(CASES)}; all where none is named")
    parser.add_argument("--seconds", type=float, help="time for each case that takes turns, in place of its own")
    parser.add_argument("--quick", action="store_true", help=f"{', '.join(QUICK)} alone, {QUICK_SECONDS:g} s each")
    parser.add_argument("--json", type=Path, help="where to write the figures")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="cuda: cases of its own; status 3 without a GPU")
    arguments = parser.parse_args()
    degrade()
    if arguments.device == "cuda":
        sys.exit(import_module(".cuda", __package__).main(arguments.seconds or 20.0, arguments.json))
    if unknown := set(arguments.cases) - set(CASES):
        parser.error(f"no case {', '.join(sorted(unknown))}; there are {', '.join(CASES)}.")
    console, results, where = Console(width=170), {}, machine()
    console.print(f"{where['processor']}, {', '.join(where['caches'].values())}, commit {where['commit']}")
    known = [limits(n) for n in thread_counts()]
    for limit in known:
        console.print(
            f"{limit.threads} threads: {limit.multiply_adds / 1e9:.0f} G multiply-adds/s in float32, "
            f"{limit.multiply_adds_bf16 / 1e9:.0f} in bfloat16, {limit.multiply_adds_int8 / 1e9:.0f} in int8; "
            f"copies {limit.bandwidth / 1e9:.1f} GB/s"
        )
    took: dict[str, float] = {}
    failed = []
    for name in arguments.cases or (QUICK if arguments.quick else CASES):
        begin = time.perf_counter()
        try:
            module = import_module(f".cases.{name}", __package__)
            results[name] = module.run(arguments.seconds or (QUICK_SECONDS if arguments.quick else CASES[name]))
        except Exception:  # the other cases still run; the exit status reports it
            console.print_exception()
            failed.append(name)
            continue
        took[name] = round(time.perf_counter() - begin, 1)
        show(console, f"{name}: {module.__doc__.splitlines()[0]} ({took[name]:.0f} s)", results[name])
        if arguments.json is not None:  # after each case: what came before a failure is kept
            write(arguments.json, where, known, took, results)
    data = {name: [line.to_json() for line in lines] for name, lines in results.items()}
    console.print(table(verdicts(data, where)))
    console.print(f"{sum(took.values()) / 60:.1f} minutes")
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


def write(path: Path, where, known, took, results) -> None:
    lines = {name: [line.to_json() for line in lines] for name, lines in results.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"machine": where, "limits": [asdict(limit) for limit in known], "took": took, "cases": lines}
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
