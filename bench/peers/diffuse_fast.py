"""This project: a ``df.Sampler`` of the artifact, with what ``runtime="auto"`` takes, with a runtime or precision by name, or as
tuned."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np

import diffuse_fast as df
from diffuse_fast.kernels import set_num_threads
from diffuse_fast.runtimes import tuning_cache

from ..networks import CLIP, FOLDER, NETWORKS, artifact, int8
from .base import Job, Unavailable


def make(job: Job, *, runtime: str = "auto", precision: str = "float32", tuned: bool = False) -> Ours:
    # Not the user's own answers, nor any unless asked: what was tuned is kept beside the networks.
    os.environ[tuning_cache.ENVIRONMENT] = str(FOLDER / "tuned") if tuned else "off"
    set_num_threads(job.threads)
    if tuned:
        _tune(artifact(job.network), job.batch, precision)
    # Unless told, onnxruntime takes every core and pins itself to it: the peers' limit must be ours too. Tuning counted the cores
    # of this process, which are as many.
    return Ours(job, runtime, precision, None if tuned else job.threads)


def _tune(path: Path, batch: int, precision: str) -> None:
    """As a user does, in a process of its own: what it tried is not in the memory of the one that draws, on whose cores it runs."""
    command = [sys.executable, "-m", "diffuse_fast.cli", "tune", str(path), "--batch-size", str(batch), "--precision", precision]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise Unavailable(f"tune ended with status {done.returncode}: {done.stderr.strip()[-300:]}")


class Ours:
    def __init__(self, job: Job, runtime: str, precision: str, threads: int | None):
        net = NETWORKS[job.network]
        self._batch, self._cond = job.batch, net.conditioning(job.batch)
        model = df.load(int8(job.network) if precision == "int8" else artifact(job.network))
        # ε as the network predicts it, as the peers' DDIM takes it.
        plan = df.plan(
            net.schedule,
            "ddim",
            job.steps,
            prediction_type=net.prediction_type,
            clip=CLIP,
            timestep_spacing=job.spacing,
            rederive_epsilon=False,
        )
        try:
            self._sampler = df.Sampler(model, plan, runtime=runtime, precision=precision, threads=threads)
        except df.DiffuseFastError as error:
            raise Unavailable(str(error)) from None
        self._bound = self._sampler.setup.network.bind(job.batch, net.shape, self._cond)

    def network(self, x: np.ndarray, t: int) -> np.ndarray:
        self._bound.x[...] = x
        return self._bound(float(t))

    def sample(self, noise: np.ndarray | None = None) -> np.ndarray:
        if noise is None:
            return self._sampler.sample(self._batch, seed=0, cond=self._cond)
        return self._sampler.sample(self._batch, noise=noise, cond=self._cond)
