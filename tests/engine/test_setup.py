"""The setup of a model file: kept from call to call while nothing that it depends on has changed."""

from __future__ import annotations

import os
import shutil

import numpy as np
import pytest

import diffuse_fast as df
from diffuse_fast.engine.setup import setup_for
from diffuse_fast.errors import ArgumentError, ArgumentTypeError, ArtifactError, UnavailableError

OPTIONS = {"runtime": "auto", "threads": None, "precision": "float32", "device": "auto", "graph": "auto"}


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "digits.onnx"
    shutil.copy(df.load("digits").path, path)
    return df.load(path)


def test_equal_calls_share_a_setup(model):
    assert setup_for(model, **OPTIONS) is setup_for(model, **OPTIONS)
    assert df.Sampler(model, "ddim", 3).setup is df.Sampler(model, "ddpm", 5).setup


@pytest.mark.parametrize("other", [{"threads": 1}, {"runtime": "onnx"}, {"variance": "none"}, {"guidance_rescale": 0.5}])
def test_other_options_make_another(model, other):
    first = setup_for(model, **OPTIONS)
    assert setup_for(model, **{**OPTIONS, **other}) is not first
    np.testing.assert_array_equal(df.sample(model, 2, 3, seed=0), df.sample(model, 2, 3, seed=0))


def test_equal_values_of_another_type_are_checked(model):
    setup_for(model, **{**OPTIONS, "threads": 1})
    with pytest.raises(ArgumentTypeError, match="threads is True"):
        setup_for(model, **{**OPTIONS, "threads": True})


def test_options_that_the_caller_may_change_are_not_kept(model):
    shape = [1, 8, 8]
    assert setup_for(model, **OPTIONS, shape=shape).shape == (1, 8, 8)
    shape[0] = 2
    with pytest.raises(ArgumentError, match="shape"):
        setup_for(model, **OPTIONS, shape=shape)


def test_a_forced_kernel_applies_to_the_next_call(model, monkeypatch):
    before = setup_for(model, **OPTIONS).kernel.name
    monkeypatch.setenv("DIFFUSE_FAST_KERNEL", "reference")
    assert setup_for(model, **OPTIONS).kernel.name == "reference" != before
    monkeypatch.setenv("DIFFUSE_FAST_KERNEL", "none of them")
    with pytest.raises(UnavailableError):
        setup_for(model, **OPTIONS)


def test_a_file_that_was_replaced_is_refused(model):
    setup_for(model, **OPTIONS)
    os.utime(model.path, ns=(1, 1))
    with pytest.raises(ArtifactError, match="was replaced or written to"):
        setup_for(model, **OPTIONS)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs affinities")
def test_other_cores_make_another(model, monkeypatch):
    first = setup_for(model, **OPTIONS)
    monkeypatch.setattr("diffuse_fast.machine.affinity", lambda: (4096,))
    monkeypatch.setattr("diffuse_fast.machine.physical_cores", lambda: 1)
    assert setup_for(model, **OPTIONS) is not first


def test_other_models_are_never_kept():
    def network(x, t):
        return x

    plan = df.plan(df.Schedule.linear(), "ddim", 2, prediction_type="epsilon")
    first, second = (df.Sampler(network, plan, shape=(3,)).setup for _ in range(2))
    assert first is not second
