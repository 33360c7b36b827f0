"""A subprocess that takes commands and answers as lines of JSON."""

from __future__ import annotations

import atexit
import contextlib
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from .networks import FOLDER


class Process:
    """Run ``python -m`` with arguments; its other output goes to a log file of this name."""

    def __init__(self, name: str, arguments: Sequence[str]):
        FOLDER.mkdir(parents=True, exist_ok=True)
        self._log = FOLDER / f"{name.replace(' ', '-').replace(',', '')}.log"
        with open(self._log, "w") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-m", *arguments], cwd=Path(__file__).parent.parent, stdin=subprocess.PIPE,
                stdout=subprocess.PIPE, stderr=errors, text=True,
            )  # fmt: skip
        atexit.register(self.close)

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def ask(self, order: dict) -> dict:
        """Send a command and return the answer; if the process has ended, the reason."""
        try:
            self._process.stdin.write(json.dumps(order) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except OSError:
            line = ""
        if line:
            return json.loads(line)
        last = next(reversed(self._log.read_text().strip().splitlines()), f"exit code {self._process.wait()}")
        return {"unavailable": f"its process ended: {last}"}

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=10)
        if self._process.poll() is None:
            self._process.kill()


def left_out(answer: dict) -> str:
    """The reason in an answer, shortened for a table."""
    reason = answer["unavailable"].strip().splitlines()[0]
    return "left out: " + (reason if len(reason) <= 160 else reason[:157] + "...")
