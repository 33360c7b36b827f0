"""Learned solvers: the fit, the plan that it gives, the artifact that holds it, and how it is chosen."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys

import numpy as np
import pytest

import diffuse_fast as df
from diffuse_fast.errors import ArgumentError, ArgumentTypeError, ArtifactError, OutputError
from diffuse_fast.kernels.reference import apply_row
from diffuse_fast.learning import learn
from diffuse_fast.learning.fit import Parameters, _linearised, _Prediction
from diffuse_fast.learning.table import Multistep, of_plan, to_plan
from diffuse_fast.learning.task import Task

TIMES = (900, 700, 500.5, 300, 150, 40)
FAST = {"samples": 512, "held_out": 256, "batch_size": 512, "seed": 3}


def task(network, known, **change):
    given = {"samples": 32, "held_out": 8, "seed": 1, "cond": None, "reference_steps": 50, "batch_size": 32, "runtime": "auto",
             "clip": None, "report": lambda line: None, **known, **change}  # fmt: skip
    return Task(network, **given)


@pytest.mark.parametrize("steps", [1, 3, 5])
def test_a_learned_solver_is_nearer_than_any_hand_made_one(network, known, steps):
    learned = df.learn_solver(network, steps, **FAST, **known)
    # How near depends on the noises: two to four times nearer, over four seeds.
    assert learned.distance < 0.7 * learned.best.distance <= 0.7 * learned.best_default.distance
    assert (learned.plan.solver, learned.plan.steps, learned.plan.nfe) == ("learned", steps, steps)
    assert df.Plan.from_json(learned.plan.to_json()) == learned.plan


@pytest.mark.parametrize(
    "schedule, prediction_type",
    [(df.Schedule.edm(), "denoised"), (df.Schedule.flow(), "flow"), (df.Schedule.vp_sde(), "epsilon")],
    ids=["edm", "flow", "vp_sde"],
)
def test_every_family_can_be_learned_for(gaussians, schedule, prediction_type):
    network = gaussians(schedule, prediction_type)
    learned = df.learn_solver(
        network, 3, **FAST, schedule=schedule, prediction_type=prediction_type, shape=(3,), input_scale="none"
    )
    assert learned.distance < 0.7 * learned.best.distance
    x = df.Sampler(network, learned.plan, shape=(3,), input_scale="none").sample(4, seed=0)
    assert np.isfinite(x).all()


def test_the_distances_are_those_of_the_samples(network, known):
    learned = df.learn_solver(network, 3, **FAST, **known)
    fine = df.plan(known["schedule"], "dpmpp_2m", 200, prediction_type="epsilon", timestep_spacing="power", rho=1.5)

    def draw(plan):
        return df.Sampler(network, plan, shape=(3,)).sample(256, seed=3, first_index=512)

    for plan, distance in ((learned.plan, learned.distance), (learned.best.plan, learned.best.distance)):
        assert np.sqrt(np.mean((draw(plan) - draw(fine)) ** 2)) == pytest.approx(distance, rel=1e-4)


def test_the_same_seed_learns_the_same(network, known):
    first, second = (df.learn_solver(network, 2, **FAST, **known) for _ in range(2))
    assert first == second
    assert df.learn_solver(network, 2, **{**FAST, "seed": 4}, **known).plan != first.plan


def test_a_plan_deviates_by_what_it_declares(network, known):
    """Run by the oracle with a network that knows the answer: every row lands where marginal and deviation say."""
    plan = df.learn_solver(network, 4, **FAST, **known, clip=(-5.0, 5.0)).plan
    assert plan.deviation is not None and not plan.exact_marginal
    for i, row in enumerate(plan.rows):
        alpha, sigma = plan.marginals[i]
        landed = []
        for x0, eps in ((1.0, 0.0), (0.0, 1.0)):  # by linearity
            # The registers hold data predictions, which a right network makes x0 itself.
            landed.append(
                float(apply_row(row, np.array([alpha * x0 + sigma * eps]), [np.array([eps])], [np.array([x0])] * plan.registers)[0])
            )
        alpha_next, sigma_next = plan.marginals[i + 1]
        assert landed[0] == pytest.approx(alpha_next + plan.deviation[i][0], abs=1e-9)
        assert landed[1] ** 2 == pytest.approx(sigma_next**2 + plan.deviation[i][1], abs=1e-9)


@pytest.mark.parametrize("clip", [None, (-0.9, 0.9)])
@pytest.mark.parametrize("solver", ["ddim", "dpmpp_2m", "dpmpp_3m", "dpmsolver_2m", "unipc", "deis", "ipndm", "lms", "euler"])
def test_hand_made_solvers_have_the_form_that_is_learned(network, known, solver, clip):
    """A plan, and the same as a free multistep method, give the same samples."""
    # Not from 999: there alpha is so small that float32 has few digits of x0 left, in both.
    plan = df.plan(known["schedule"], solver, prediction_type="epsilon", clip=clip, timesteps=TIMES)
    method = of_plan(plan, known["schedule"])
    again = to_plan(method, task(network, known, clip=clip).grid, {})
    one, other = (df.Sampler(network, p, shape=(3,)).sample(16, seed=0) for p in (plan, again))
    assert np.abs(one - other).max() < 2e-5 * max(1.0, np.abs(one).max())


def test_plans_of_another_form_are_not_converted(known):
    def of(solver, **options):
        plan = df.plan(known["schedule"], solver, 6, prediction_type="epsilon", timestep_spacing="power", **options)
        return of_plan(plan, known["schedule"])

    assert of("pndm") is None  # four calls in a step
    assert of("ddim", clip=(-1, 1), rederive_epsilon=False) is None  # the raw ε beside the clipped x0
    assert of("ddpm") is None
    assert of("ddim") is not None


def test_a_plan_that_keeps_an_unclipped_output_has_another_form(known):
    plan = df.plan(known["schedule"], "dpmpp_2m", 6, prediction_type="epsilon", timestep_spacing="power", clip=(-1, 1))
    assert of_plan(plan, known["schedule"]) is not None and plan.rows[0].b == 0.0
    changed = dataclasses.replace(plan, rows=(dataclasses.replace(plan.rows[0], e_m=0.5), *plan.rows[1:]))
    assert of_plan(changed, known["schedule"]) is None


def test_the_derivative_is_that_of_the_samples(network, known):
    """Against central differences of the whole run, in float64, of each parameter."""
    a_task = task(network, known)
    start = of_plan(a_task.plan("dpmpp_2m", 3, timesteps=TIMES[::2]), a_task.schedule)
    free = Parameters.of(3, 2)
    noise = a_task.noise(0, 32)
    predict = _Prediction(a_task, a_task.bind(0, 32))
    residual, jacobian = _linearised(a_task, start, free, predict, noise, a_task.reference(0, 32))

    def land(method):
        plan = to_plan(method, a_task.grid, {})
        x, registers = noise.astype(np.float64) * plan.initial_scale, [None] * plan.registers
        for row in plan.rows:
            x = apply_row(row, x, [network(x, np.full(32, row.timestep))], registers)
        return x.ravel()

    assert np.abs(land(start) - a_task.reference(0, 32).ravel() - residual).max() < 1e-5
    for k in range(free.count):
        step = np.zeros(free.count)
        step[k] = 0.5 if k < 3 else 1e-3
        central = (land(free.moved(start, step, (0.0, 999.0))) - land(free.moved(start, -step, (0.0, 999.0)))) / (2 * step[k])
        assert np.linalg.norm(jacobian[k] - central) < 0.03 * np.linalg.norm(central) + 1e-6


def test_a_row_looks_back_as_far_as_it_may(network, known):
    plans = [df.learn_solver(network, 4, **FAST, **known, history=h).plan for h in (0, 3)]
    # The start of the fit may look back already; the fit adds no more than it is told.
    assert plans[1].registers == 3
    assert isinstance(of_plan(plans[0], known["schedule"]), Multistep)


# ---- the artifact -------------------------------------------------------------------------------


@pytest.fixture
def artifact(small):
    return df.load(small())


LEARN = {"samples": 16, "held_out": 16, "reference_steps": 40, "iterations": 2}


def test_stored_loaded_and_chosen(artifact, tmp_path):
    pytest.importorskip("onnxruntime")
    before = artifact.path.read_bytes()
    out = tmp_path / "learned.onnx"
    first = df.learn_solver(artifact, 2, out=out, **LEARN)
    second = df.learn_solver(out, 3, out=out, **LEARN)
    assert artifact.path.read_bytes() == before
    model = df.load(out)
    assert model.plans == second.model.plans == (first.plan, second.plan)
    assert json.loads(json.dumps(model.to_json()))["version"] == 2
    x = df.sample(out, 4, 3, solver="learned", seed=5, cond={"label": 1})
    assert np.array_equal(x, df.Sampler(model, second.plan).sample(4, seed=5, cond={"label": 1}))
    assert {path.name for path in tmp_path.iterdir()} == {"small.onnx", "learned.onnx"}
    # Again the same number of steps: the new one takes the place of the old one.
    other = learn.store(model, [dataclasses.replace(first.plan, options=())], out)
    assert [p.options == () for p in other.plans] == [True, False]


def test_an_error_of_the_learned_solver_lists_the_available_plans(artifact, network, known):
    with pytest.raises(ArgumentError, match=r"no learned plan of 4 steps; it has no learned plans"):
        df.sample(artifact, 1, 4, solver="learned")
    plan = dataclasses.replace(df.plan(artifact.schedule, "ddim", 2, prediction_type="epsilon"), solver="learned")
    model = learn.store(artifact, [plan], artifact.path)
    with pytest.raises(ArgumentError, match=r"no learned plan of 4 steps; it has plans of 2"):
        df.sample(model, 1, 4, solver="learned")
    for option in (
        {"timesteps": [5, 1]},
        {"clip": False},
        {"eta": 1.0},
        {"schedule": known["schedule"]},
        {"timestep_spacing": "linspace"},
        {"prediction_type": "epsilon"},
    ):
        with pytest.raises(ArgumentError, match=next(iter(option))):
            df.sample(model, 1, 2, solver="learned", **option)
    with pytest.raises(ArgumentTypeError, match="steps"):
        df.sample(model, 1, solver="learned")
    with pytest.raises(ArgumentError, match=r"df\.Sampler"):
        df.sample(network, 1, 2, solver="learned", **known)


def test_what_cannot_be_learned_or_written_is_refused_first(artifact, network, known, tmp_path):
    def refused(error, match, model=artifact, **change):
        with pytest.raises(error, match=match):
            df.learn_solver(model, **{"steps": 2, **LEARN, **change})

    refused(ArgumentError, "steps", steps=0)
    refused(ArgumentTypeError, "samples", samples=1.5)
    refused(ArgumentError, "history", history=9)
    refused(ArgumentError, "reference_steps", reference_steps=1)
    refused(ArgumentError, r"\.onnx", out=tmp_path / "plans.json")
    refused(OutputError, "folder", out=tmp_path / "none" / "m.onnx")
    refused(ArgumentTypeError, "out", out=3)
    refused(ArgumentError, "dynamic", clip=df.DynamicThreshold())
    refused(ArgumentError, "label", cond={"label": 3})
    refused(ArgumentError, "schedule", model=network, shape=(3,))
    refused(ArgumentError, "not an artifact", model=network, out=tmp_path / "m.onnx", **known)
    assert [path.name for path in tmp_path.iterdir()] == ["small.onnx"]


def test_a_plan_of_another_model_is_not_stored(artifact, tmp_path):
    plan = dataclasses.replace(df.plan(artifact.schedule, "ddim", 2, prediction_type="sample"), solver="learned")
    with pytest.raises(ArtifactError, match="prediction_type"):
        learn.store(artifact, [plan], tmp_path / "m.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["small.onnx"]


def test_using_a_learned_plan_needs_no_torch(artifact, tmp_path):
    pytest.importorskip("onnxruntime")
    plan = dataclasses.replace(df.plan(artifact.schedule, "dpmpp_2m", 2, prediction_type="epsilon"), solver="learned")
    learn.store(artifact, [plan], tmp_path / "m.onnx")
    code = f"""
import sys
import diffuse_fast as df
assert df.sample({str(tmp_path / "m.onnx")!r}, 2, 2, solver="learned", seed=0).shape == (2, 2, 3)
learned = df.learn_solver({str(tmp_path / "m.onnx")!r}, 1, samples=4, held_out=4, reference_steps=10, iterations=1)
assert learned.plan.steps == 1
assert not {{"torch", "triton", "onnx"}} & set(sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
