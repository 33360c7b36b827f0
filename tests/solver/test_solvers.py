"""The registry, and what `plan` says to arguments that make no sense."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

import diffuse_fast as df
from diffuse_fast.errors import ArgumentError, ArgumentTypeError, PlanError

LINEAR = df.Schedule.linear()
ZERO_SNR = LINEAR.rescale_zero_terminal_snr()


NAMES = {
    "ddpm", "ddim", "ddim_inverse", "euler", "euler_ancestral", "heun", "dpm_2", "dpmsolver_1s", "dpmsolver_2s", "dpmsolver_3s",
    "dpmsolver_singlestep",
    "dpmsolver_2m", "dpmsolver_3m", "dpmpp_2s", "dpmpp_2m", "dpmpp_3m", "dpmpp_2m_sde", "dpmpp_3m_sde", "unipc", "deis", "pndm",
    "dpmpp_3s", "ipndm", "lms", "consistency", "lcm", "tcd", "flow_euler", "flow_heun", "euler_maruyama", "langevin_pc",
}  # fmt: skip


def test_what_there_is():
    assert set(df.solvers()) >= NAMES
    df.solvers().clear()
    for name, solver in df.solvers().items():
        flow = solver.families == ("flow",)
        plan = df.plan(df.Schedule.flow() if flow else LINEAR, name, 12, prediction_type="flow" if flow else "epsilon")
        assert plan.solver == solver.name == name
        assert plan.nfe > 11 * solver.nfe_per_step  # a last step, to the clean data, is of one stage; a start may need more
        assert plan.registers <= solver.registers
        assert plan.stochastic == solver.stochastic
        assert solver.paper
        assert all(option.about for option in solver.options.values())


def test_a_plan_loads_one_solver():
    code = (
        "import sys, diffuse_fast as df; df.plan(df.Schedule.linear(), 'ddim', 4, prediction_type='epsilon'); "
        "from diffuse_fast.solver.registry import NAMES; "
        "print([name for name in NAMES if f'diffuse_fast.solver.{name}' in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "['ddim']\n"


def test_options_are_recorded_with_their_defaults():
    plan = df.plan(LINEAR, "ddim", 10, prediction_type="epsilon", eta=1)
    assert dict(plan.options) == {
        "eta": 1.0,
        "set_alpha_to_one": True,
        "steps_offset": 0,
        "rederive_epsilon": False,
        "timestep_spacing": "leading",
        "time_convention": "timestep",
        "timestep_rounding": "none",
    }
    assert plan == df.plan(LINEAR, "ddim", np.int64(10), prediction_type="epsilon", eta=np.float32(1), steps_offset=0)


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        ({"schedule": "linear"}, ArgumentTypeError, "schedule is 'linear'"),
        ({"solver": "dimm"}, ArgumentError, "Did you mean 'ddim'"),
        ({"solver": None}, ArgumentError, "Known: consistency, ddim, ddim_inverse, ddpm"),
        ({"prediction_type": "noise"}, ArgumentError, "prediction_type is 'noise'.*epsilon, sample, v_prediction"),
        ({"prediction_type": "flow"}, ArgumentError, "prediction_type is 'flow'"),
        ({"steps": 0}, ArgumentError, "steps is 0; this schedule allows 1 to 1000"),
        ({"steps": -1}, ArgumentError, "steps is -1"),
        ({"steps": 1001}, ArgumentError, "steps is 1001"),
        ({"steps": 2.0}, ArgumentTypeError, "steps is 2.0"),
        ({"steps": True}, ArgumentTypeError, "steps is True"),
        ({"steps": None}, ArgumentError, "one of steps, timesteps and sigmas must be given"),
        ({"timestep_spacing": "karas"}, ArgumentError, "Known: beta, beta_sigmas, exponential, karras, leading"),
        ({"timestep_spacing": ["leading"]}, ArgumentError, "timestep_spacing"),
        ({"timesteps": [3, 2, 1], "timestep_spacing": "leading"}, ArgumentError, "give one"),
        ({"timesteps": [3, 2]}, ArgumentError, "steps is 3, but timesteps has 2"),
        ({"timesteps": [3, 2, 2]}, ArgumentError, "2.0 comes after 2.0"),
        ({"timesteps": [1, 2, 3]}, ArgumentError, "must decrease; 2.0 comes after 1.0"),
        ({"timesteps": [1000, 2, 1]}, ArgumentError, "timesteps go from 1000.0 to 1.0: .*from 0 to 999"),
        ({"timesteps": [3, 2, -0.5]}, ArgumentError, "from 3.0 to -0.5"),
        ({"timesteps": [3, 2, float("nan")]}, ArgumentError, "nan comes after 2.0"),
        ({"timesteps": [float("nan")], "steps": 1}, ArgumentError, "timesteps go from nan"),
        ({"timesteps": [], "steps": None}, ArgumentError, "at least one"),
        ({"timesteps": [[1.0]], "steps": None}, ArgumentError, "shape"),
        ({"timesteps": "321"}, ArgumentTypeError, "sequence of numbers"),
        ({"timesteps": [3, 2, 1], "steps_offset": 1}, ArgumentError, "steps_offset"),
        ({"steps_offset": 1, "timestep_spacing": "trailing"}, ArgumentError, "only leading spacing has an offset"),
        ({"steps_offset": 400}, ArgumentError, "the first timestep would be 1066"),
        ({"steps_offset": -1}, ArgumentError, "steps_offset is -1"),
        ({"steps_offset": 0.5}, ArgumentTypeError, "an integer"),
        ({"eta": -0.1}, ArgumentError, "eta is -0.1"),
        ({"eta": float("inf")}, ArgumentError, "eta is inf"),
        ({"eta": "0"}, ArgumentTypeError, "eta is '0'"),
        ({"eta": True}, ArgumentTypeError, "eta is True"),
        ({"set_alpha_to_one": 1}, ArgumentTypeError, "set_alpha_to_one is 1"),
        ({"etta": 1.0}, ArgumentTypeError, "ddim has no option 'etta'. Did you mean 'eta'"),
        ({"variance_type": "fixed_small"}, ArgumentTypeError, "Known: eta, rederive_epsilon, set_alpha_to_one, steps_offset"),
        ({"solver": "ddpm", "eta": 1.0}, ArgumentTypeError, "Known: steps_offset, variance_type"),
        ({"solver": "ddpm", "variance_type": "fixed"}, ArgumentError, "one of fixed_small, fixed_large, learned"),
        ({"solver": "ddpm", "variance_type": None}, ArgumentError, "one of fixed_small, fixed_large"),
        ({"clip": 1.0}, ArgumentTypeError, "clip is 1.0"),
        ({"clip": (1, 2, 3)}, ArgumentTypeError, "clip"),
        ({"clip": True}, ArgumentTypeError, r"clip is True; .*\(lo, hi\).*False for no clip"),
        ({"clip": (1, -1)}, ArgumentError, "below its upper"),
        ({"clip": (-1, float("nan"))}, ArgumentError, "below its upper"),
        ({"schedule": ZERO_SNR, "timestep_spacing": "trailing"}, PlanError, "zero signal-to-noise.*epsilon"),
        ({"schedule": ZERO_SNR, "timesteps": [998.5, 1, 0]}, PlanError, "zero signal-to-noise"),
        ({"schedule": ZERO_SNR, "timesteps": [999, 998.5, 1], "prediction_type": "sample"}, ArgumentError, "same log-SNR"),
    ],
)
def test_bad_input_is_named(arguments, error, says):
    call = {"schedule": LINEAR, "solver": "ddim", "steps": 3, "prediction_type": "epsilon", **arguments}
    with pytest.raises(error, match=says) as caught:
        df.plan(**call)
    assert isinstance(caught.value, df.DiffuseFastError)


def test_zero_signal_is_no_problem_where_the_network_or_the_grid_allows_it():
    df.plan(ZERO_SNR, "ddim", 3, prediction_type="v_prediction", timestep_spacing="trailing")
    df.plan(ZERO_SNR, "ddpm", 3, prediction_type="sample", timestep_spacing="trailing")
    df.plan(ZERO_SNR, "ddim", 20, prediction_type="epsilon", timestep_spacing="leading")
