"""Ctrl-C and SIGTERM: a checkpoint of the step that was under way, and what the signal does otherwise."""

from __future__ import annotations

import os
import signal
import threading

import numpy as np
import pytest
import torch

import diffuse_fast as df
from diffuse_fast.training import TrainConfig
from diffuse_fast.training.run import checkpoint, loop
from diffuse_fast.training.run.interrupts import DEFAULTS, postponed

pytest.importorskip("safetensors")
DATA = np.random.default_rng(0).standard_normal((40, 2))
CONFIG = TrainConfig(steps=20, batch_size=8, checkpoint_every=10)


@pytest.fixture(autouse=True)
def handlers():
    """Python's own: a shell that starts tests in the background has them ignore Ctrl-C."""
    before = {number: signal.signal(number, default) for number, default in DEFAULTS.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


class Terminated(BaseException):
    """Instead of the end of this process."""


def run(folder, callback=None, **options):
    torch.manual_seed(0)
    network = df.nn.MLP(2, width=8, depth=1)
    return df.train(network, DATA, schedule=df.Schedule.linear(), config=CONFIG, folder=folder, callback=callback, **options)


def send(number: int, step: int):
    def callback(now: int, loss: float) -> None:
        if now == step:
            os.kill(os.getpid(), number)

    return callback


@pytest.mark.parametrize("number", DEFAULTS)
def test_a_stopped_run_leaves_a_checkpoint_and_goes_on_to_the_same_bits(tmp_path, monkeypatch, caplog, number):
    raise_signal = signal.raise_signal

    def raised(again):
        assert again == number
        assert all(signal.getsignal(n) == default for n, default in DEFAULTS.items())
        if again == signal.SIGTERM:
            raise Terminated
        raise_signal(again)

    monkeypatch.setattr(loop.signal, "raise_signal", raised)
    with pytest.raises((KeyboardInterrupt, Terminated)):
        run(tmp_path / "r", send(number, 7))
    assert [checkpoint.read(path).document["step"] for path in checkpoint.found(tmp_path / "r")] == [7]
    assert "stopped after step 7 of 20" in caplog.text
    assert run(tmp_path / "r", resume=True).record.losses == run(None).record.losses


def test_without_a_folder_ctrl_c_acts_at_once():
    steps = []
    with pytest.raises(KeyboardInterrupt):
        run(None, lambda step, loss: steps.append(step) or send(signal.SIGINT, 3)(step, loss))
    assert steps == [1, 2, 3]


def test_a_handler_of_the_callers_own_is_left_alone(tmp_path):
    seen = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: seen.append(number))
    try:
        assert len(run(tmp_path / "r", send(signal.SIGTERM, 3)).record.losses) == 20
        assert seen == [signal.SIGTERM]
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_second_signal_acts_at_once():
    with pytest.raises(KeyboardInterrupt), postponed(True) as caught:
        os.kill(os.getpid(), signal.SIGINT)
        assert caught == [signal.SIGINT]
        os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_another_thread_trains_without_signals(tmp_path):
    done = []
    thread = threading.Thread(target=lambda: done.append(run(tmp_path / "r")))
    thread.start()
    thread.join()
    assert len(done[0].record.losses) == 20
