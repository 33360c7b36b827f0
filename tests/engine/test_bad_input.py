"""What a caller may get wrong: each is an error of the library that names it, before anything runs."""

from __future__ import annotations

import threading

import numpy as np
import pytest

import diffuse_fast as df
from diffuse_fast.errors import ArgumentError, ArgumentTypeError, DiffuseFastError

SHAPE = (3, 5)
SCHEDULE = df.Schedule.cosine()
KNOWN = {"shape": SHAPE, "schedule": SCHEDULE, "prediction_type": "v_prediction"}


def network(x, t, label=None):
    label = np.zeros(len(x)) if label is None else np.asarray(label).reshape(len(x), -1).sum(1)
    return np.tanh(x * np.float32(0.7) + (0.01 * t + 0.1 * label)[:, None, None].astype(np.float32))


def plan(solver="ddim", steps=4, **options):
    return df.plan(SCHEDULE, solver, steps, prediction_type="v_prediction", **options)


def sampler(**options):
    return df.Sampler(network, plan(), shape=SHAPE, **options)


GUIDED = {"guidance_scale": 2.0, "negative_cond": {"label": 1}}


@pytest.mark.parametrize(("request_", "says"), [
    ({"seed": -1}, "seed"), ({"seed": 1.5}, "seed holds 1.5"), ({"seed": "x"}, "seed holds 'x'"), ({"seed": 2**64}, "seed"),
    ({"index": -1}, "index"), ({"index": "a"}, "index holds 'a'"), ({"index": 2**32}, "index"),
    ({"guidance_scale": "2"}, "guidance_scale is '2'"), ({"guidance_scale": [2.0]}, "request 0: guidance_scale"),
    ({**GUIDED, "guidance_scale": float("nan"), "cond": {"label": 1}}, "finite"),
    ({"cond": [1]}, "cond of request 0"), ({"cond": {"label": "x"}}, "must be numbers"), ({"cond": {"label": None}}, "numbers"),
    ({"cond": {"label": [[1], [1, 2]]}}, "differ in shape"), ({"cond": {1: 1}}, "names of inputs are strings"),
    ({**GUIDED, "cond": {"label": [1, 2]}}, "of one form"), (GUIDED, "of one form"), ({"noise": "x"}, "noise of request 0"),
    ({"noise": np.zeros(2)}, "noise of request 0"), ({"plan": "ddim"}, "plan of request 0 is a str"),
])  # fmt: skip
def test_requests(request_, says):
    with pytest.raises(DiffuseFastError, match=says):
        sampler().sample_requests([df.Request(**{"seed": 1, **request_})])


@pytest.mark.parametrize("n", [2**32 + 1, 10**12])
def test_more_samples_than_a_seed_has(n):
    with pytest.raises(ArgumentError, match=r"2\*\*32 - 1"):
        sampler().sample(n, seed=0, batch_size=1)


@pytest.mark.parametrize("requests", [None, 5, {"seed": 1}, [{"seed": 1}], []])
def test_requests_of_another_type_are_refused(requests):
    with pytest.raises(DiffuseFastError, match="request"):
        sampler().sample_requests(requests)


@pytest.mark.parametrize(("options", "says"), [
    ({"guidance_interval": (500.0, 600.0)}, "no row"), ({"guidance_interval": "ab"}, "pair of numbers"),
    ({"guidance_interval": (1, 2, 3)}, "pair of numbers"), ({"guidance_interval": 3.0}, "pair of numbers"),
    ({"guidance_interval": (2.0, 1.0)}, "0 <= low < high"), ({"guidance_interval": (float("nan"), 2.0)}, "0 <= low < high"),
    ({"guidance_rescale": "x"}, "number from 0 to 1"), ({"guidance_rescale": None}, "number from 0 to 1"),
    ({"guidance_scale": None}, "guidance_scale is None"), ({"guidance_batch": None}, "joined, separate"),
])  # fmt: skip
def test_guidance(options, says):
    with pytest.raises(DiffuseFastError, match=says):
        sampler(**{"guidance_scale": 2.0, **options})


@pytest.mark.parametrize("way", ["joined", "separate"])
@pytest.mark.parametrize("negative", [{}, {"label": [[1, 2]]}, {"label": 2, "z": 2}, {"label": 1.5}])
def test_what_guides_away_has_the_form_of_what_guides(way, negative):
    with pytest.raises(ArgumentError, match=r"negative_cond has the conditioning.*of one form"):
        sampler(guidance_scale=2.0, guidance_batch=way).sample(1, seed=0, cond={"label": 1}, negative_cond=negative)


@pytest.mark.parametrize(("options", "says"), [
    ({"timesteps": [900, 900, 1]}, "must decrease"), ({"timesteps": [1, 900]}, "must decrease"),
    ({"timesteps": [900, float("nan")]}, "must decrease"),
    ({"timesteps": [[900], [1, 2]]}, "sequence of numbers"), ({"timesteps": 900}, "sequence"), ({"timesteps": "900"}, "sequence"),
    ({"timesteps": []}, "at least one"), ({"timesteps": [None]}, "numbers"), ({"timesteps": [2000.0]}, "2000"),
    ({"sigmas": [0.0]}, "above 0"), ({"steps": True}, "an integer"), ({"steps": 2.0}, "an integer"),
    ({"clip": ("a", "b")}, "clip is"), ({"clip": (float("nan"), 1.0)}, "clip is"),
    ({"timestep_rounding": ["none"]}, "timestep_rounding is"), ({"guidance_scale": [[1], [1, 2]]}, "one per sample"),
    ({"callback": 5}, "callback is a int"), ({"step_noise": 5}, "step_noise is a int"),
    ({"shape": (1,) * 65}, "shape has 65 dimensions; a sample has at most 30"),
    ({"shape": 3}, "shape is 3"), ({"shape": "ab"}, "shape is 'ab'"), ({"shape": (None,)}, "dimension of shape is None"),
    ({"seed": ["a"]}, "seed holds 'a'"), ({"seed": [None]}, "seed holds None"),
    ({"seed": [3], "first_index": 1}, "first_index is 1"),
])  # fmt: skip
def test_sample(options, says):
    with pytest.raises(DiffuseFastError, match=says):
        df.sample(network, 1, **{**KNOWN, "steps": None if {"timesteps", "sigmas"} & options.keys() else 3, **options})


@pytest.mark.parametrize("value", ["0", 0, [0.5], [[1]], [None], [-1]])
def test_an_option_that_is_a_list(value):
    with pytest.raises(DiffuseFastError, match="disable_corrector is"):
        plan("unipc", disable_corrector=value)


@pytest.mark.parametrize("options", [
    {"_class_name": ["x"]}, {"num_train_timesteps": "a"}, {"beta_start": None}, {"clip_sample_range": "a"}, {"steps_offset": "1"},
    {"thresholding": 1}, {"beta_schedule": ["linear"]}, {"prediction_type": [1]}, {"trained_betas": "x"},
    {"_class_name": "DPMSolverMultistepScheduler", "solver_order": [1]},
    {"_class_name": "DPMSolverMultistepScheduler", "lambda_min_clipped": "x"},
    {"_class_name": "FlowMatchEulerDiscreteScheduler", "shift_terminal": "x"},
    {"_class_name": "LCMScheduler", "original_inference_steps": None},
])  # fmt: skip
def test_a_configuration_with_a_value_of_the_wrong_type(options):
    with pytest.raises(ArgumentTypeError, match=list(options)[-1]):
        df.Plan.from_diffusers({"_class_name": "DDIMScheduler", **options}, 5)


@pytest.mark.parametrize(("options", "says"), [
    ({"rtol": "x"}, "rtol is 'x'"), ({"rtol": 0.0}, "rtol is 0.0"), ({"atol": -1.0}, "atol is -1.0"),
    ({"prediction_type": "epsilonn"}, "prediction_type is 'epsilonn'"),
])  # fmt: skip
def test_probability_flow(options, says):
    with pytest.raises(DiffuseFastError, match=says):
        df.probability_flow(network, 1, **{**KNOWN, "schedule": df.Schedule.vp_sde(), "prediction_type": "epsilon", **options})


def test_a_callback_s_own_error_passes_and_the_sampler_goes_on():
    def fails(*_):
        raise KeyError("mine")

    ours = sampler()
    before = ours.sample(2, seed=1)
    requests = [df.Request(seed=1)]
    for call in (lambda: ours.sample(2, seed=1, callback=fails), lambda: ours.sample_requests(requests, callback=fails)):
        with pytest.raises(KeyError, match="mine"):
            call()
    np.testing.assert_array_equal(ours.sample(2, seed=1), before)


def test_one_sampler_many_threads():
    ours, plans = sampler(), [plan(), plan("ddpm", 7), plan("dpmpp_2m", 5), plan("unipc", 3)]
    asked = [
        df.Request(
            seed=i,
            plan=plans[i % 4],
            cond={"label": i},
            guidance_scale=(1.0, 2.0, 0.0)[i % 3],
            negative_cond=None if i % 3 == 0 else {"label": 1},
        )
        for i in range(12)
    ]
    wanted, results = ours.sample_requests(asked), []

    def work():
        results.extend(ours.sample_requests(asked, batch_size=size) for size in (1, 3, None))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 12
    for result in results:
        np.testing.assert_array_equal(result, wanted)
