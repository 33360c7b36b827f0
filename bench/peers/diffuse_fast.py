"""This project: a ``df.Sampler`` of the artifact, with what ``runtime="auto"`` takes, with a runtime or precision by name, or as
tuned."""

from __future__ import annotations

from functools import partial
from unittest import mock

import numpy as np

import diffuse_fast as df
from diffuse_fast.kernels import set_num_threads
from diffuse_fast.runtimes import network

from ..networks import CLIP, INT8, NETWORKS, artifact, int8
from .base import Job, Unavailable


def make(job: Job, *, runtime: str = "auto", precision: str = "float32", tuned: bool = False) -> Ours:
    set_num_threads(job.threads)
    if tuned and not hasattr(df, "tune"):
        raise Unavailable("this version has no df.tune")
    return Ours(job, runtime, precision)


class Ours:
    def __init__(self, job: Job, runtime: str, precision: str):
        net = NETWORKS[job.network]
        self._batch, self._cond = job.batch, net.conditioning(job.batch)
        model = df.load(int8(job.network) if precision == "int8" and job.network in INT8 else artifact(job.network))
        plan = df.plan(
            net.schedule, "ddim", job.steps, prediction_type=net.prediction_type, clip=CLIP, timestep_spacing=job.spacing
        )
        # A Sampler leaves the threads to the runtime, and onnxruntime then takes every core and pins itself to it: the peers' limit
        # must be ours too.
        limited = partial(network, threads=job.threads)
        try:
            with mock.patch("diffuse_fast.engine.sampler.network", limited):
                self._sampler = df.Sampler(model, plan, runtime=runtime, precision=precision)
        except df.DiffuseFastError as error:
            raise Unavailable(str(error)) from None
        self._bound = self._sampler._network.bind(job.batch, net.shape, self._cond)

    def network(self, x: np.ndarray, t: int) -> np.ndarray:
        self._bound.x[...] = x
        return self._bound(float(t))

    def sample(self, noise: np.ndarray | None = None) -> np.ndarray:
        if noise is None:
            return self._sampler.sample(self._batch, seed=0, cond=self._cond)
        return self._sampler.sample(self._batch, noise=noise, cond=self._cond)
