"""How far a solver's sample is from the exact solution of the probability-flow ODE, for data N(0.3, 0.5²).

Of such data the optimal network is affine in the state, and so are the exact flow and every plan: two points through the rows of
the float64 oracle say what the plan does to all the others. The error is the root mean square over 4,096 seeded points between
the sample and the exact solution from the same noise and the same first time, to where the plan ends.

``python -m tests.solver.ode_error [SOLVER ...]`` lists the plans of these solvers, or of all, that miss the bound.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from functools import cache

import numpy as np

import diffuse_fast as df
from diffuse_fast.kernels.reference import apply_row
from diffuse_fast.solver.spacing import grid, resolve

MEAN, DEVIATION = 0.3, 0.5
NOISE = np.random.default_rng(0).standard_normal(4096)
FACTOR, FLOOR = 5.0, 1e-3  # the bound: FACTOR times DDIM's error at as many calls of the network, and FLOOR

SCHEDULES = {
    "linear": df.Schedule.linear(),
    "scaled_linear": df.Schedule.scaled_linear(),
    "cosine": df.Schedule.cosine(),
    "quadratic": df.Schedule.quadratic(),
    "sigmoid": df.Schedule.sigmoid(),
    "zero SNR": df.Schedule.scaled_linear().rescale_zero_terminal_snr(),
    "EDM": df.Schedule.edm(),
    "VP": df.Schedule.vp_sde(),
    "sub-VP": df.Schedule.sub_vp_sde(),
    "VE": df.Schedule.ve_sde(),
    "VE 1348": df.Schedule.ve_sde(sigma_max=1348.0),
    "flow": df.Schedule.flow(),
    "flow shift 3": df.Schedule.flow(shift=3.0),
    "flow shift 12": df.Schedule.flow(shift=12.0),
}
SPACINGS = ("leading", "trailing", "linspace", "karras", "exponential", "beta", "beta_sigmas", "log_snr", "power")

# Every deterministic solver of the ODE, with the options that change its formulas.
SOLVERS: dict[str, tuple[str, dict]] = {
    name: (name, {})
    for name in (
        "deis",
        "dpm_2",
        "dpmpp_2m",
        "dpmpp_2s",
        "dpmpp_3m",
        "dpmpp_3s",
        "dpmsolver_1s",
        "dpmsolver_2m",
        "dpmsolver_2s",
        "dpmsolver_3m",
        "dpmsolver_3s",
        "dpmsolver_singlestep",
        "euler",
        "flow_euler",
        "flow_heun",
        "heun",
        "ipndm",
        "lms",
        "pndm",
        "unipc",
    )
}
SOLVERS |= {
    "deis 3": ("deis", {"solver_order": 3}),
    "dpmpp_2m heun": ("dpmpp_2m", {"solver_type": "heun"}),
    "dpmpp_2s heun": ("dpmpp_2s", {"solver_type": "heun"}),
    "dpmsolver_2m heun": ("dpmsolver_2m", {"solver_type": "heun"}),
    "dpmsolver_2s heun": ("dpmsolver_2s", {"solver_type": "heun"}),
    "pndm plms": ("pndm", {"skip_prk_steps": True}),
    "unipc 3": ("unipc", {"solver_order": 3}),
    "unipc bh1": ("unipc", {"solver_type": "bh1"}),
    "unipc noise": ("unipc", {"predict_x0": False}),
    "unipc 3 noise": ("unipc", {"predict_x0": False, "solver_order": 3}),
    "singlestep 3": ("dpmsolver_singlestep", {"solver_order": 3}),
    "singlestep heun": ("dpmsolver_singlestep", {"solver_type": "heun"}),
    "singlestep 3 heun": ("dpmsolver_singlestep", {"solver_order": 3, "solver_type": "heun"}),
    "singlestep noise": ("dpmsolver_singlestep", {"algorithm_type": "dpmsolver"}),
    "singlestep noise heun": ("dpmsolver_singlestep", {"algorithm_type": "dpmsolver", "solver_type": "heun"}),
    "singlestep 3 noise": ("dpmsolver_singlestep", {"algorithm_type": "dpmsolver", "solver_order": 3}),
    "singlestep 3 noise heun": ("dpmsolver_singlestep", {"algorithm_type": "dpmsolver", "solver_order": 3, "solver_type": "heun"}),
}


def affine(plan: df.Plan, schedule: df.Schedule) -> tuple[float, float]:
    """What the plan makes of a state: ``(slope, offset)``. The network must be told the log-SNR."""
    offset, slope, *_ = responses(plan, schedule)
    return (slope - offset) / plan.initial_scale, offset


def responses(plan: df.Plan, schedule: df.Schedule) -> np.ndarray:
    """The samples where no noise is drawn, where that of the start alone is 1, and where that of each row alone is: (rows + 2,)."""
    state, registers = np.zeros(len(plan.rows) + 2), [None] * plan.registers
    state[1] = plan.initial_scale
    for i, row in enumerate(plan.rows):
        outputs = []
        if row.calls_network:
            alpha, sigma = schedule.marginal_at_log_snr(row.timestep)[1:]
            epsilon = sigma * (state - alpha * MEAN) / (alpha**2 * DEVIATION**2 + sigma**2)
            outputs.append(
                df.convert_prediction(
                    epsilon,
                    state,
                    from_="epsilon",
                    to=plan.prediction_type,
                    alpha=alpha,
                    sigma=sigma,
                    sigma_data=schedule.sigma_data,
                )
                if alpha > 0.0
                else _without_signal(plan.prediction_type, state)
            )
        state = apply_row(row, state, outputs, registers, z=np.eye(len(state))[i + 2])
    return state


def _without_signal(prediction_type: str, state: np.ndarray) -> np.ndarray:
    """What the network says of pure noise: the data is the mean, and the noise is the state."""
    return {"flow": state - MEAN, "v_prediction": -MEAN + 0.0 * state}[prediction_type]


def error(plan: df.Plan, schedule: df.Schedule) -> float:
    """Root mean square over the points of ``NOISE`` between the sample and the exact solution."""
    (alpha, sigma), (alpha_end, sigma_end) = plan.marginals[0], plan.marginals[-1]
    before, after = math.hypot(alpha * DEVIATION, sigma), math.hypot(alpha_end * DEVIATION, sigma_end)
    slope, offset = affine(plan, schedule)
    x = plan.initial_scale * NOISE
    exact = alpha_end * MEAN + after / before * (x - alpha * MEAN)
    return float(np.sqrt(np.mean((slope * x + offset - exact) ** 2)))


def make(schedule: str, solver: str, steps: int, spacing: str, **options) -> df.Plan:
    return df.plan(
        SCHEDULES[schedule],
        solver,
        steps,
        prediction_type=_prediction(schedule),
        timestep_spacing=spacing,
        time_convention="log_snr",
        **options,
    )


def _prediction(schedule: str) -> str:
    return "v_prediction" if schedule == "zero SNR" else SCHEDULES[schedule].prediction_types[0]


@cache
def ddim_error(schedule: str, calls: int, spacing: str, style: str) -> float:
    """Of the yardstick, on a grid of the solver's own style (``diffuse_fast/solver/spacing.py``)."""
    made = SCHEDULES[schedule]
    times = grid(resolve(made, spacing), made, calls, style)
    plan = df.plan(made, "ddim", prediction_type=_prediction(schedule), timesteps=times, time_convention="log_snr")
    return error(plan, made)


def measured(solver: str, schedule: str, spacing: str, counts=range(1, 51)) -> Iterator[tuple[int, int, float, float]]:
    """``(steps, calls, error, bound)`` of every plan with at most 50 calls; a plan that is refused is left out."""
    name, options = SOLVERS[solver]
    for steps in counts:
        try:
            plan = make(schedule, name, steps, spacing, **options)
        except (df.errors.ArgumentError, df.errors.PlanError):
            continue
        if plan.nfe <= max(counts):
            bound = FACTOR * ddim_error(schedule, plan.nfe, spacing, df.solvers()[name].grid) + FLOOR
            yield steps, plan.nfe, error(plan, SCHEDULES[schedule]), bound


def main(solvers: list[str], counts=range(1, 51)) -> None:
    for solver in solvers or SOLVERS:
        for schedule in SCHEDULES:
            for spacing in SPACINGS:
                missed = [m for m in measured(solver, schedule, spacing, counts) if not m[2] <= m[3]]
                if missed:
                    worst = max(missed, key=lambda m: m[2] / m[3])
                    print(
                        f"{solver:24s} {schedule:14s} {spacing:12s} {len(missed):3d} missed, steps {[m[0] for m in missed][:6]}; "
                        f"worst {worst[0]:3d} steps, {worst[1]:3d} calls: {worst[2]:.3g}, bound {worst[3]:.3g}",
                        flush=True,
                    )


if __name__ == "__main__":
    main(sys.argv[1:])
