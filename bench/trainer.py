"""A process of its own for one trainer: ``python -m bench.trainer NAME THREADS STEPS`` trains as many steps as STEPS for each line
it reads, and answers with the seconds they took."""

from __future__ import annotations

import json
import os
import sys
import time
from importlib import import_module
from typing import TextIO


def main() -> None:
    name, threads, steps = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints is not an answer
    sys.stdin.readline()  # the order for the first turn: left unread, it would start the second while another trainer is timed
    turns = Turns(answers, steps)
    try:
        import torch

        from diffuse_fast.kernels import set_num_threads

        from .trainers import TRAINERS, digits_run
        from .worker import pin

        pin(threads)
        torch.set_num_threads(threads)
        set_num_threads(threads)
        import_module(f".trainers.{TRAINERS[name]}", __package__).train(digits_run(turns.done))
    except Exception as error:
        turns.answer({"unavailable": f"{type(error).__name__}: {error}"})


class Turns:
    """Steps are counted; after every so many, it waits for the next order. The first turn is a warm-up, and its answer says that
    the trainer is ready."""

    def __init__(self, answers: TextIO, steps: int):
        self._answers, self._steps, self._count = answers, steps, 0
        self._begin = time.perf_counter()

    def answer(self, content: dict[str, object]) -> None:
        self._answers.write(json.dumps(content) + "\n")
        self._answers.flush()

    def done(self) -> None:
        self._count += 1
        if self._count % self._steps == 0:
            self.answer({"seconds": time.perf_counter() - self._begin})
            if not sys.stdin.readline():
                os._exit(0)  # the parent has gone; a trainer cannot be asked to return
            self._begin = time.perf_counter()


if __name__ == "__main__":
    main()
