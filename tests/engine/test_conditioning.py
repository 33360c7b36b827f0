"""Shapes of conditioning: for callables and modules axis 0 is the batch, for artifacts the declared rank decides."""

from __future__ import annotations

import numpy as np
import pytest

import diffuse_fast as df
from diffuse_fast.errors import ArgumentError

KNOWN = {"shape": (2,), "schedule": df.Schedule.linear(), "prediction_type": "epsilon"}


def seen(value, n, **more):
    """What a callable is given for ``cond={"emb": value}``."""
    given = []

    def network(x, t, emb):
        given.append(np.array(emb))
        return x * 0

    df.sample(network, n, 1, cond={"emb": value}, seed=0, timestep_spacing="trailing", **KNOWN, **more)
    return given[0]


EMB = np.arange(6.0, dtype=np.float32).reshape(3, 2)


def test_a_number_is_for_all():
    np.testing.assert_array_equal(seen(7, 3), [7, 7, 7])


def test_one_entry_is_for_all():
    np.testing.assert_array_equal(seen(EMB[None], 4), np.stack([EMB] * 4))
    np.testing.assert_array_equal(seen([5], 3), [5, 5, 5])


def test_as_many_entries_as_samples_are_one_each():
    np.testing.assert_array_equal(seen(EMB, 3), EMB)


@pytest.mark.parametrize("n", [1, 2, 4])
def test_an_embedding_for_all_needs_its_axis(n):
    with pytest.raises(ArgumentError, match=r"cond\['emb'\] has shape \(77, 64\).*give emb\[None\]"):
        seen(np.zeros((77, 64), np.float32), n)


def test_a_request_has_no_axis():
    given = []

    def network(x, t, emb):
        given.append(np.array(emb))
        return x * 0

    plan = df.plan(KNOWN["schedule"], "ddim", 1, prediction_type="epsilon", timesteps=[500])
    df.Sampler(network, plan, shape=(2,)).sample_requests([df.Request(seed=i, cond={"emb": EMB + i}) for i in range(2)])
    np.testing.assert_array_equal(given[0], np.stack([EMB, EMB + 1]))


def test_modules_have_the_same_rule():
    torch = pytest.importorskip("torch")

    class Module(torch.nn.Module):
        def forward(self, x, t, emb):
            assert emb.shape == (2, 3, 2)
            return x * 0

    df.sample(Module(), 2, 2, cond={"emb": torch.zeros(1, 3, 2)}, **KNOWN)
    with pytest.raises(ArgumentError, match=r"emb\[None\]"):
        df.sample(Module(), 2, 2, cond={"emb": torch.zeros(3, 2)}, **KNOWN)


def test_an_artifact_goes_by_the_declared_rank(small):
    model = df.load(small())
    alike = df.sample(model, 3, 3, seed=0, cond={"label": 2})
    for value in (np.int64(2), [2], [2, 2, 2]):
        np.testing.assert_array_equal(df.sample(model, 3, 3, seed=0, cond={"label": value}), alike)
    with pytest.raises(ArgumentError, match=r"the model takes \(\) for a sample.*\(3,\)"):
        df.sample(model, 3, 3, seed=0, cond={"label": [1, 2]})


@pytest.mark.parametrize(
    ("classes", "null", "right", "wrong"),
    [(4, 4, (0, 3, 4), (5, -1)), (4, None, (0, 3), (4, -1)), (3, 4, (2, 4), (3, 5)), (4, -1, (3, -1), (4, -2))],
)
def test_a_label_is_a_class_or_the_null(small, document, classes, null, right, wrong):
    """The first and the last of them, and the first that is none on either side."""
    document["conditioning"][0].update(classes=classes, null=null)
    model = df.load(small(document))
    for label in right:  # the file's table has five rows; ONNX counts −1 from its end
        df.sample(model, 1, 1, seed=0, cond={"label": [label]}, timestep_spacing="trailing")
    for label in wrong:
        with pytest.raises(ArgumentError, match=rf"label outside 0\.\.{classes - 1}"):
            df.sample(model, 1, 1, seed=0, cond={"label": [label]}, timestep_spacing="trailing")
