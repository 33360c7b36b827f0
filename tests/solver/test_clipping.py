"""What a clipped data prediction leaves of the network's own output, for every solver, and what guidance makes of it."""

from __future__ import annotations

import numpy as np
import pytest

import diffuse_fast as df

SCHEDULES = [df.Schedule.linear(), df.Schedule.flow(), df.Schedule.edm(), df.Schedule.vp_sde(), df.Schedule.ve_sde()]


@pytest.mark.parametrize("clip", [(-1, 1), (-np.inf, 1), df.DynamicThreshold(0.9)], ids=["both", "one", "dynamic"])
@pytest.mark.parametrize("solver", sorted(df.solvers()))
def test_no_step_keeps_the_networks_output_beside_a_clipped_prediction(solver, clip):
    planned = 0
    for schedule in SCHEDULES:
        for prediction_type in schedule.prediction_types:
            try:
                plan = df.plan(schedule, solver, 8, prediction_type=prediction_type, clip=clip)
            except df.errors.PlanError:  # not for this family or prediction type
                continue
            planned += 1
            rows = [row for row in plan.rows if row.clips]
            # A step from the clean data has no other noise than the network's.
            kept = [row for row in rows if row.b or row.e_m][int(solver == "ddim_inverse") :]
            assert rows
            assert not kept, (schedule.family, prediction_type)
    assert planned


@pytest.mark.parametrize("solver", ["ddim", "ddim_inverse"])
def test_a_plan_records_where_epsilon_is_from(solver):
    def recorded(**arguments):
        return dict(df.plan(SCHEDULES[0], solver, 4, prediction_type="epsilon", **arguments).options)["rederive_epsilon"]

    assert recorded() is False
    assert recorded(clip=(-1, 1)) is recorded(clip=df.DynamicThreshold()) is recorded(clip=(-1, 1), rederive_epsilon=None) is True
    assert recorded(clip=(-1, 1), rederive_epsilon=False) is False
    with pytest.raises(df.errors.ArgumentTypeError, match="rederive_epsilon is 'yes'; it must be True, False or None"):
        recorded(rederive_epsilon="yes")


@pytest.fixture(scope="module")
def read():
    """Which digits a support vector machine reads, trained on the digits that the model was trained on."""
    svm = pytest.importorskip("sklearn.svm")
    from diffuse_fast.training.data import digits

    split = digits()
    fitted = svm.SVC(C=10.0).fit(split.images.reshape(len(split.images), -1), split.labels)
    held_out = fitted.predict(split.held_out_images.reshape(len(split.held_out_images), -1))
    assert (held_out == split.held_out_labels).mean() > 0.98
    return lambda images: fitted.predict(images.reshape(len(images), -1))


@pytest.mark.parametrize(
    ("solver", "options"),
    [("ddim", {}), *(pytest.param(*case, marks=pytest.mark.slow) for case in (("ddim", {"eta": 1.0}), ("tcd", {})))],
)
def test_guided_samples_are_of_the_class_asked_for(read, solver, options):
    labels = np.arange(30) % 10

    def accuracy(scale, **more):
        x = df.sample(
            "digits", len(labels), 20, solver=solver, seed=0, cond={"label": labels}, guidance_scale=scale, **options, **more
        )
        return (read(x) == labels).mean()

    for scale in (1.0, 5.0):
        assert accuracy(scale) > 0.9, scale
    if solver == "ddim":
        assert accuracy(5.0, rederive_epsilon=False) < 0.5  # diffusers' way
