"""Several processes: the gradients, and so the weights, of one process with the same global batch."""

from __future__ import annotations

import contextlib
import json
import os
import runpy
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
PROGRAM = Path(__file__).with_name("runs.py")
OPTIONS = {"steps": 4, "batch_size": 8, "micro_batch": 4, "warmup_steps": 1, "condition_dropout": 0.3, "checkpoint_every": 2}


def run(tmp_path: Path, name: str, processes: int, *, torchrun: bool = False, **options) -> dict:
    """One process is this one, since most of the time goes into loading torch; several are told of each other as torchrun does
    it, or by torchrun itself."""
    arguments = [str(tmp_path / name), str(tmp_path / f"{name}.json"), json.dumps({**OPTIONS, **options})]
    if processes == 1:
        runpy.run_path(str(PROGRAM))["main"](*arguments)
    elif torchrun:
        launch = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
        subprocess.run([sys.executable, *launch, PROGRAM, *arguments], check=True)
    else:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        said = {**os.environ, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(processes)}
        with contextlib.ExitStack() as stack:
            started = [
                stack.enter_context(subprocess.Popen([sys.executable, PROGRAM, *arguments], env={**said, "RANK": str(rank)}))
                for rank in range(processes)
            ]
            for process in started:
                stack.callback(process.kill)
            assert [process.wait() for process in started] == [0] * processes
    return json.loads((tmp_path / f"{name}.json").read_text())


def close(one: dict, two: dict) -> None:
    # The same sums in another order.
    np.testing.assert_allclose(one["losses"], two["losses"], rtol=1e-5)
    assert one["average"].keys() == two["average"].keys()
    for name, values in one["average"].items():
        np.testing.assert_allclose(two["average"][name], values, rtol=1e-4, atol=1e-6, err_msg=name)


def test_two_processes_train_as_one(tmp_path):
    """Times are drawn by what those of all processes have cost."""
    one = run(tmp_path, "one", 1, importance=True)
    two = run(tmp_path, "two", 2, importance=True)
    close(one, two)
    # A second network has a parameter that nothing uses.
    for name, values in one["spare"].items():
        np.testing.assert_allclose(two["spare"][name], values, rtol=1e-4, atol=1e-6, err_msg=name)
    assert one["spare"]["unused"] == [1.0, 1.0]
    assert one["passes"] == two["passes"] == 3  # the pass that looks for it leaves no trace
    # A checkpoint knows nothing of how many wrote it.
    (tmp_path / "two" / "checkpoint-00000004.safetensors").unlink()
    close(one, run(tmp_path, "two", 1, importance=True, resume=True))


@pytest.mark.slow
def test_two_processes_with_sharded_weights_train_as_one(tmp_path):
    one = run(tmp_path, "one", 1)
    close(one, run(tmp_path, "two", 2, torchrun=True, sharded=True))
    (tmp_path / "two" / "checkpoint-00000004.safetensors").unlink()
    close(one, run(tmp_path, "two", 2, sharded=True, resume=True))
