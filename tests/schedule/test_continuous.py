"""The continuous families against their papers' formulas in 40 digits, their SDEs' moment equations, and theorems."""

from __future__ import annotations

import copy
import json
import pickle

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import diffuse_fast as df
from diffuse_fast.errors import ArgumentError, ArgumentTypeError

FAMILIES = {
    "edm": df.Schedule.edm(),
    "edm, unit data": df.Schedule.edm(0.01, 50.0, 1.0, 5.0),
    "flow": df.Schedule.flow(),
    "flow, shifted": df.Schedule.flow(1234, 3.0),
    "vp_sde": df.Schedule.vp_sde(),
    "vp_sde, from 0": df.Schedule.vp_sde(0.0, 12.0),
    "sub_vp_sde": df.Schedule.sub_vp_sde(),
    "ve_sde": df.Schedule.ve_sde(),
    "learned": df.Schedule.learned(6.0 - 16.0 * np.linspace(0, 1, 65) - np.sin(6.0 * np.linspace(0, 1, 65))),
}


def every(schedules=FAMILIES):
    return pytest.mark.parametrize("schedule", [pytest.param(s, id=name) for name, s in schedules.items()])


def only(*families):
    return every({name: s for name, s in FAMILIES.items() if s.family in families})


def exact(schedule, t):
    """(alpha, sigma) by the paper's formula, in 40 digits."""
    t = mpmath.mpf(t)
    if schedule.family == "learned":
        values = schedule.to_json()["log_snr"]
        i = min(int(t * 64), 63)
        alpha2 = 1 / (1 + mpmath.exp(-((i + 1 - 64 * t) * values[i] + (64 * t - i) * values[i + 1])))
        return mpmath.sqrt(alpha2), mpmath.sqrt(1 - alpha2)
    fields = {k: mpmath.mpf(v) for k, v in schedule.to_json().items() if k != "type"}
    if schedule.family == "edm":
        c_in = 1 / mpmath.sqrt(t**2 + fields["sigma_data"] ** 2)
        return c_in, c_in * t
    if schedule.family == "flow":
        sigma = t / fields["num_train_timesteps"]
        return 1 - sigma, sigma
    if schedule.family == "ve_sde":
        return mpmath.mpf(1), fields["sigma_min"] * (fields["sigma_max"] / fields["sigma_min"]) ** t
    low, high = fields["beta_min"], fields["beta_max"]
    alpha = mpmath.exp(-(t**2) * (high - low) / 4 - t * low / 2)
    return alpha, mpmath.sqrt(1 - alpha**2) if schedule.family == "vp_sde" else 1 - alpha**2


def some_times(schedule):
    """Times from far below sampling's smallest to its largest, at both ends densely."""
    ends = np.geomspace(1e-6, 0.5, 40)
    return np.concatenate([schedule.t_min * ends, schedule.t_max * ends, schedule.t_max * (1 - ends)])


@pytest.fixture(autouse=True)
def forty_digits():
    with mpmath.workdps(40):
        yield


@every()
def test_marginals_to_the_last_digits(schedule):
    for t in some_times(schedule):
        alpha, sigma = exact(schedule, float(t))
        assert schedule.alpha(t) == pytest.approx(float(alpha), rel=1e-14, abs=0)
        assert schedule.sigma(t) == pytest.approx(float(sigma), rel=1e-14, abs=0)
        # log(alpha) to the last digits of 1 − alpha, where alpha is close to 1.
        assert schedule.log_alpha(t) == pytest.approx(float(mpmath.log(alpha)), rel=1e-13, abs=0)
        log_snr = float(2 * mpmath.log(alpha / sigma))
        assert schedule.log_snr(t) == pytest.approx(log_snr, rel=1e-14, abs=1e-13)
        level = sigma if schedule.family == "flow" else sigma / alpha
        assert schedule.noise_level(t) == pytest.approx(float(level), rel=1e-13, abs=0)


@every()
def test_inverses(schedule):
    t = some_times(schedule)
    found = schedule.timestep_at_log_snr(schedule.log_snr(t))
    # Near σ = 1 a flow's alpha is a difference of t, whose rounding is that of 1.
    ill = 8 * 2.0**-52 / schedule.alpha(t) if schedule.family == "flow" else 0.0
    assert np.all(np.abs(schedule.log_snr(found) - schedule.log_snr(t)) < 1e-12 + ill)
    np.testing.assert_allclose(found, t, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(schedule.timestep_at_noise_level(schedule.noise_level(t)), t, rtol=1e-9, atol=1e-12)


@every()
def test_marginal_at_a_log_snr(schedule):
    for log_snr in np.linspace(schedule.log_snr(0.999 * schedule.t_max), schedule.log_snr(schedule.t_min), 31):
        log_alpha, alpha, sigma = schedule.marginal_at_log_snr(log_snr)
        t = schedule.timestep_at_log_snr(log_snr)
        assert (alpha, sigma) == pytest.approx((schedule.alpha(t), schedule.sigma(t)), rel=1e-12)
        assert np.exp(log_alpha) == pytest.approx(alpha, rel=1e-14)
        assert 2 * np.log(alpha / sigma) == pytest.approx(log_snr, rel=1e-13, abs=1e-13)


@pytest.mark.parametrize("log_snr", [-1400.0, -80.0, 80.0, 1400.0])
def test_marginal_at_the_ends_of_floating_point(log_snr):
    flow = df.Schedule.flow()
    log_alpha, alpha, sigma = flow.marginal_at_log_snr(log_snr)
    assert alpha + sigma == 1.0
    assert log_alpha - np.log(sigma) == pytest.approx(log_snr / 2, rel=1e-14)
    assert min(alpha, sigma) > 0


@only("vp_sde", "sub_vp_sde", "ve_sde")
def test_an_sde_has_its_marginals(schedule):
    # dx = f·x dt + g dw: d log(alpha)/dt = f, d(sigma²)/dt = 2·f·sigma² + g² (Särkkä & Solin 2019, eq. 5.50, 5.51).
    for t in (0.01, 0.3, 0.77, 0.999):
        slope = mpmath.diff(lambda u: mpmath.log(exact(schedule, u)[0]), t)
        assert schedule.drift(t) == pytest.approx(float(slope), rel=1e-12, abs=1e-15)
        growth = mpmath.diff(lambda u: exact(schedule, u)[1] ** 2, t)
        of_sde = 2 * schedule.drift(t) * schedule.sigma(t) ** 2 + schedule.diffusion(t) ** 2
        assert of_sde == pytest.approx(float(growth), rel=1e-10)


@only("edm")
def test_edm_preconditioning(schedule):
    # Karras et al. 2022, appendix B.6: unit variance in and out, and c_skip makes c_out as small as can be.
    data = schedule.sigma_data
    for sigma in np.geomspace(1e-4, 1e3, 23):
        c_in, c_out, c_skip = schedule.c_in(sigma), schedule.c_out(sigma), schedule.c_skip(sigma)
        assert c_in**2 * (data**2 + sigma**2) == pytest.approx(1, rel=1e-14)
        assert (1 - c_skip) ** 2 * data**2 + c_skip**2 * sigma**2 == pytest.approx(c_out**2, rel=1e-9)
        assert c_skip * (data**2 + sigma**2) == pytest.approx(data**2, rel=1e-14)
        assert schedule.c_noise(sigma) == pytest.approx(np.log(sigma) / 4, rel=1e-15, abs=1e-16)
        assert c_in == schedule.alpha(sigma)


def test_flow_is_shifted_as_published():
    # Esser et al. 2024, eq. 23: the shift m/n is the ratio of sigma/alpha.
    flow = df.Schedule.flow(shift=2.5)
    sigma = np.linspace(0.01, 0.99, 21)
    moved = flow.shifted(sigma)
    np.testing.assert_allclose(moved / (1 - moved), 2.5 * sigma / (1 - sigma), rtol=1e-12)
    assert (flow.shifted(0.0), flow.shifted(1.0)) == (0.0, 1.0)


# ---- what the network is told ---------------------------------------------------------------------


def test_the_time_that_the_network_gets():
    edm, flow, vp, ve = df.Schedule.edm(), df.Schedule.flow(1000), df.Schedule.vp_sde(), df.Schedule.ve_sde(0.01, 100)
    linear = df.Schedule.linear()
    assert edm.network_time(np.exp(2.0)) == edm.network_time(np.exp(2.0), "c_noise") == pytest.approx(0.5, rel=1e-15)
    assert edm.network_time(3.0, "sigma") == 3.0
    assert edm.network_time(3.0, "log_snr") == -2 * np.log(3.0)
    assert flow.network_time(250.0) == flow.network_time(250.0, "timestep") == 250.0
    assert flow.network_time(250.0, "continuous") == flow.network_time(250.0, "sigma") == 0.25
    assert vp.network_time(0.25) == 0.25
    assert ve.network_time(0.5) == 1.0 and ve.network_time(0.5, "continuous") == 0.5
    assert linear.network_time([3, 7.5]).tolist() == [3.0, 7.5]
    assert linear.network_time(999, "continuous") == 1.0  # Lu et al. 2022, section 3.4: t_n = n/N, 1-based
    assert linear.network_time(500, "sigma") == pytest.approx(linear.sigma(500) / linear.alpha(500), rel=1e-14)
    for schedule, convention in ((edm, "timestep"), (linear, "c_noise"), (vp, "timestep"), (flow, "seconds")):
        with pytest.raises(ArgumentError, match=f"convention is '{convention}'.*{schedule.family}"):
            schedule.network_time(0.5, convention)


# ---- as objects -------------------------------------------------------------------------------------


@every()
def test_json_both_ways(schedule):
    again = df.Schedule.from_json(json.loads(json.dumps(schedule.to_json(), allow_nan=False)))
    assert again == schedule and hash(again) == hash(schedule) and type(again) is type(schedule)
    assert pickle.loads(pickle.dumps(schedule)) == copy.deepcopy(schedule) == schedule
    if schedule.family == "learned":
        assert repr(schedule) == "Schedule.learned(log_snr=<65 values>)"
    else:
        assert eval(repr(schedule), {"Schedule": df.Schedule}) == schedule
    with pytest.raises(AttributeError, match="immutable"):
        schedule.t_max = 3.0
    assert isinstance(schedule, df.Schedule)


def test_equality_is_by_content():
    different = [*FAMILIES.values(), df.Schedule.linear(), df.Schedule.edm(rho=6.0), df.Schedule.flow(shift=2.0)]
    assert len(set(different)) == len(different)
    assert df.Schedule.edm(1, 80) == df.Schedule.edm(1.0, 80.0)
    assert df.Schedule.edm() != "edm"


@every()
def test_scalars_and_arrays(schedule):
    t = schedule.t_max * np.array([[0.1, 0.2, 0.3], [0.4, 0.5, 0.6]])
    for function in (schedule.alpha, schedule.sigma, schedule.log_snr, schedule.log_alpha, schedule.noise_level):
        values = function(t)
        assert values.shape == (2, 3) and values.dtype == np.float64
        one = function(t[1, 2])
        assert type(one) is float and one == pytest.approx(values[1, 2], rel=1e-15)
    assert type(schedule.timestep_at_log_snr(0)) is float
    assert schedule.alpha([]).shape == (0,)


@settings(derandomize=True, max_examples=100)
@given(
    schedule=st.one_of(
        st.builds(df.Schedule.edm, st.floats(1e-4, 1.0), st.floats(2.0, 1e3), st.floats(0.01, 100.0)),
        st.builds(df.Schedule.flow, st.integers(2, 10**6), st.floats(0.1, 20.0)),
        st.builds(df.Schedule.vp_sde, st.floats(0, 0.5), st.floats(1.0, 40.0)),
        st.builds(df.Schedule.sub_vp_sde, st.floats(0, 0.5), st.floats(1.0, 40.0)),
        st.builds(df.Schedule.ve_sde, st.floats(1e-4, 1.0), st.floats(2.0, 2e3)),
    ),
    where=st.lists(st.floats(0, 1), min_size=2, max_size=20, unique=True),
)
def test_noise_rises_with_time(schedule, where):
    t = schedule.t_min + np.sort(where) * (schedule.t_max - schedule.t_min)
    assert 0 < schedule.t_min <= schedule.t_max
    assert np.all(np.diff(schedule.log_snr(t)) <= 0)
    assert np.all(np.diff(schedule.alpha(t)) <= 0) and np.all(np.diff(schedule.noise_level(t)) >= 0)
    inside = t[schedule.alpha(t) > 1e-6]
    again = schedule.timestep_at_log_snr(schedule.log_snr(inside))
    np.testing.assert_allclose(schedule.log_snr(again), schedule.log_snr(inside), rtol=1e-9, atol=1e-9)


# ---- bad input --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (lambda: df.Schedule.edm(80, 0.002), ArgumentError, "sigma_min is 80 and sigma_max 0.002.*empty"),
        (lambda: df.Schedule.edm(1, 1), ArgumentError, "empty"),
        (lambda: df.Schedule.edm(0.0), ArgumentError, "sigma_min is 0.0"),
        (lambda: df.Schedule.edm(sigma_max=float("inf")), ArgumentError, "sigma_max is inf"),
        (lambda: df.Schedule.edm(sigma_data=-1), ArgumentError, "sigma_data is -1"),
        (lambda: df.Schedule.edm(rho="7"), ArgumentTypeError, "rho is '7'"),
        (lambda: df.Schedule.flow(0), ArgumentError, "num_train_timesteps is 0"),
        (lambda: df.Schedule.flow(10.0), ArgumentTypeError, "num_train_timesteps"),
        (lambda: df.Schedule.flow(shift=0), ArgumentError, "shift is 0"),
        (lambda: df.Schedule.vp_sde(20, 0.1), ArgumentError, "beta_min is 20 and beta_max 0.1"),
        (lambda: df.Schedule.vp_sde(-1, 20), ArgumentError, "0 <= beta_min"),
        (lambda: df.Schedule.sub_vp_sde(sampling_eps=1), ArgumentError, "sampling_eps is 1"),
        (lambda: df.Schedule.ve_sde(50, 0.01), ArgumentError, "empty"),
        (lambda: df.Schedule.edm().alpha(-1), ArgumentError, r"time is -1\.0; it must be from 0"),
        (lambda: df.Schedule.flow().alpha([3, 1001]), ArgumentError, r"time is 1001\.0; it must be from 0 to 1000"),
        (lambda: df.Schedule.vp_sde().sigma(float("nan")), ArgumentError, "time is nan"),
        (lambda: df.Schedule.vp_sde().sigma("0.1"), ArgumentTypeError, "t is '0.1'"),
        (lambda: df.Schedule.vp_sde().timestep_at_log_snr(-20), ArgumentError, "log_snr is -20.*-10.05"),
        (lambda: df.Schedule.ve_sde().timestep_at_log_snr(20), ArgumentError, "log_snr is 20"),
        (lambda: df.Schedule.flow().timestep_at_noise_level(1.5), ArgumentError, "at most 1"),
        (lambda: df.Schedule.edm().timestep_at_noise_level(0), ArgumentError, "above 0"),
        (lambda: df.Schedule.learned([1.0]), ArgumentError, "has 1 values"),
        (lambda: df.Schedule.learned([3.0, 1.0, 1.0]), ArgumentError, "from 1.0 to 1.0 at value 2; it must decrease"),
        (lambda: df.Schedule.learned([np.inf, 1.0]), ArgumentError, "finite"),
        (lambda: df.Schedule.learned(["a", "b"]), ArgumentTypeError, "log_snr"),
        (lambda: df.Schedule.learned([3.0, 1.0]).timestep_at_log_snr(0.0), ArgumentError, "has 1 to 3"),
        (lambda: df.Schedule.from_json({"type": "edm", "sigma_min": 0.1}), ArgumentError, "lacks the field 'sigma_max'"),
        (lambda: df.Schedule.from_json({"type": "flow", "num_train_timesteps": 10, "shift": 1.0, "interpolation": "sigma"}),
         ArgumentError, "unknown field 'interpolation'"),
    ],
)  # fmt: skip
def test_bad_input_is_named(call, error, says):
    with pytest.raises(error, match=says):
        call()
