"""Try candidates in a process of its own: a runtime that ends the process then ends that one, and not ``tune``.

Only the packages of others are tried. The core of this package runs the samples in any case.
"""

from __future__ import annotations

import contextlib
import dataclasses
import pickle
import signal
import subprocess
import sys
from collections.abc import Sequence

import numpy as np

from ..model import Model
from ..runtimes import network
from ..runtimes.tuning_cache import Choice
from .inputs import Inputs

_TIMEOUT = 600  # seconds; a candidate that hangs would stop tune

# The child imports from where this process does. ``-P`` keeps it from reading a module of the current folder before that.
_CODE = """
import pickle, sys
sys.path[:] = pickle.load(sys.stdin.buffer)
from diffuse_fast.tuning.trial import run
run(*pickle.load(sys.stdin.buffer))
"""


def ended(model: Model, batch: int, choices: Sequence[Choice]) -> str | None:
    """Run candidates of one runtime in another process.

    Returns:
        How the process ended before all had run; None if it did not. An error that a candidate raises is not reported.
    """
    bare = dataclasses.replace(model, schedule=None)  # a schedule of functions cannot be pickled
    given = pickle.dumps(sys.path) + pickle.dumps((bare, batch, tuple(choices)))
    command = [sys.executable, "-P", "-c", _CODE]
    try:
        done = subprocess.run(command, input=given, capture_output=True, timeout=_TIMEOUT)
    except subprocess.TimeoutExpired:
        return f"it did not return within {_TIMEOUT} s"
    if done.returncode == 0:
        return None
    by = f"the signal {signal.Signals(-done.returncode).name}" if done.returncode < 0 else f"the status {done.returncode}"
    said = done.stderr.decode(errors="replace").strip().rpartition("\n")[2]
    return f"it ended the process with {by}{f': {said[:300]}' if said else ''}"


def run(model: Model, batch: int, choices: Sequence[Choice]) -> None:
    """Call the network of each candidate once. What fails here with an error fails again where it is timed."""
    inputs = Inputs(model, batch, np.random.default_rng(0))
    for choice in choices:
        with contextlib.suppress(Exception):
            net = network(model, choice.runtime, threads=choice.threads, precision=choice.precision)
            inputs.outputs(net.bind(batch, model.shape, inputs.cond))
