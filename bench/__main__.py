"""``python -m bench [case ...]``: run the cases, show the figures, and keep them as JSON with the machine."""

from __future__ import annotations

import argparse
import json
from importlib import import_module
from pathlib import Path

from rich.console import Console

from .machine import machine
from .report import show

CASES = ("step", "solvers", "small_step", "loop", "start", "memory", "graphs")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description="The benchmarks of diffuse_fast.")
    parser.add_argument("cases", nargs="*", metavar="case", help=f"of {', '.join(CASES)}; all where none is named")
    parser.add_argument("--seconds", type=float, default=20.0, help="time for each case that takes turns (default 20)")
    parser.add_argument("--json", type=Path, help="where to write the figures")
    arguments = parser.parse_args()
    if unknown := set(arguments.cases) - set(CASES):
        parser.error(f"no case {', '.join(sorted(unknown))}; there are {', '.join(CASES)}.")
    console, results, where = Console(width=150), {}, machine()
    console.print(f"{where['processor']}, {', '.join(where['caches'].values())}, commit {where['commit']}")
    for name in arguments.cases or CASES:
        module = import_module(f".cases.{name}", __package__)
        results[name] = module.run(arguments.seconds)
        show(console, module.__doc__.splitlines()[0], results[name])
    if arguments.json is not None:
        lines = {name: [line.to_json() for line in lines] for name, lines in results.items()}
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps({"machine": where, "cases": lines}, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
