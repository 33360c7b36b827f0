"""The solver that the options of a diffusers scheduler select: functions ``(config) -> SolverChoice``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from ...errors import ArgumentError
from .config import DPM_MULTISTEP, Config


class SolverChoice(NamedTuple):
    """A solver, the options that the scheduler fixes, and the scheduler's own options that need no further conversion."""

    name: str
    options: dict[str, Any]
    settled: tuple[str, ...] = ()


def always(solver: str, **options: Any) -> Callable[[Config], SolverChoice]:
    """The same solver for every configuration."""
    return lambda config: SolverChoice(solver, dict(options))


def ddpm(config: Config) -> SolverChoice:
    # fixed_small_log computes the same standard deviation from its logarithm.
    variance = {"fixed_small_log": "fixed_small"}.get(config["variance_type"], config["variance_type"])
    if variance == "learned":
        raise ArgumentError(
            "variance_type='learned' is not supported: diffusers uses the network's second half as the variance, while Improved "
            "DDPM defines it as the logarithm. Use df.plan with ddpm, or variance_type='learned_range'."
        )
    return SolverChoice("ddpm", {"variance_type": variance}, ("variance_type",))


# Use the network's ε even if x0 is clipped: use_clipped_model_output=False.
RAW_EPSILON: dict[str, Any] = {"rederive_epsilon": False}
# The first-order DPM-Solver uses x0 alone, so ε follows from the clipped x0.
_FIRST_ORDER: dict[str, Any] = {"rederive_epsilon": True}
_MULTISTEP: dict[tuple[str, int], tuple[str, dict[str, Any]]] = {
    ("dpmsolver++", 1): ("ddim", _FIRST_ORDER),
    ("dpmsolver++", 2): ("dpmpp_2m", {}),
    ("dpmsolver++", 3): ("dpmpp_3m", {"halved_curvature": True}),
    ("dpmsolver", 1): ("ddim", _FIRST_ORDER),
    ("dpmsolver", 2): ("dpmsolver_2m", {}),
    ("dpmsolver", 3): ("dpmsolver_3m", {"halved_curvature": True}),
    ("sde-dpmsolver++", 1): ("ddim", {**_FIRST_ORDER, "eta": 1.0}),
    ("sde-dpmsolver++", 2): ("dpmpp_2m_sde", {}),
}


# Values of other schedulers that diffusers replaces by its default, because configurations are passed between classes.
_FOREIGN_VALUES: dict[str, dict[str, tuple[str, ...]]] = {
    "dpmpp": {"algorithm_type": ("deis",), "solver_type": ("logrho", "bh1", "bh2")},
    "deis": {"algorithm_type": ("dpmsolver", "dpmsolver++"), "solver_type": ("midpoint", "heun", "bh1", "bh2")},
    "unipc": {"solver_type": ("midpoint", "heun", "logrho")},
}


def _replace_foreign_values(config: Config, defaults: Mapping[str, Any], values: Mapping[str, tuple[str, ...]]) -> None:
    for option, others in values.items():
        if config.get(option) in others:
            config[option] = defaults[option]


def multistep(config: Config) -> SolverChoice:
    _replace_foreign_values(config, DPM_MULTISTEP, _FOREIGN_VALUES["dpmpp"])
    asked = config["algorithm_type"], config["solver_order"]
    if asked == ("sde-dpmsolver++", 3):
        raise ArgumentError(
            "solver_order=3 with algorithm_type='sde-dpmsolver++' is not supported: diffusers has a sign error in that step "
            "(docs/decisions/0003-third-order-multistep.md). Use df.plan with dpmpp_3m_sde, which is k-diffusion's."
        )
    if asked not in _MULTISTEP:
        raise ArgumentError(
            f"algorithm_type={asked[0]!r} with solver_order={asked[1]!r} is not supported; use "
            f"{', '.join(f'{a} of order {o}' for a, o in _MULTISTEP)}."
        )
    solver, options = _MULTISTEP[asked]
    first = ("solver_type", "lower_order_final", "euler_at_final") if asked[1] == 1 else ()  # have no effect at order 1
    return SolverChoice(solver, dict(options), ("algorithm_type", "solver_order", *first, *_ignored_variance(config)))


def _ignored_variance(config: Config) -> tuple[str, ...]:
    """``variance_type``, if DPM-Solvers ignore it: they drop a learned variance and ignore every other value."""
    return () if config.get("variance_type") in ("learned", "learned_range") else ("variance_type",)


def singlestep(config: Config) -> SolverChoice:
    _replace_foreign_values(config, DPM_MULTISTEP, _FOREIGN_VALUES["dpmpp"])
    asked = config["algorithm_type"], config["solver_order"], config["solver_type"]
    if asked == ("sde-dpmsolver++", 3, "heun"):
        raise ArgumentError(
            "solver_type='heun' with solver_order=3 and algorithm_type='sde-dpmsolver++' is not supported: diffusers "
            "has a sign error in that step (docs/decisions/0003-third-order-multistep.md). Use df.plan with dpmsolver_singlestep."
        )
    return SolverChoice("dpmsolver_singlestep", {}, _ignored_variance(config))


def unipc(config: Config) -> SolverChoice:
    _replace_foreign_values(config, {"solver_type": "bh2"}, _FOREIGN_VALUES["unipc"])
    return SolverChoice("unipc", {})


def deis(config: Config) -> SolverChoice:
    _replace_foreign_values(config, {"algorithm_type": "deis", "solver_type": "logrho"}, _FOREIGN_VALUES["deis"])
    if config["use_flow_sigmas"]:
        raise ArgumentError(
            "use_flow_sigmas=True is not supported for DEISMultistepScheduler: its last step has zero width and leaves the noise "
            "of the last level. Use df.plan with dpmpp_2m on Schedule.flow, which ends at the data."
        )
    return SolverChoice("deis", {})


def tcd(config: Config) -> SolverChoice:
    for option in ("clip_sample", "thresholding"):
        if config[option]:
            raise ArgumentError(f"{option}=True is not supported: TCDScheduler has the option but does not clip.")
    # TCDScheduler accepts these options and ignores them: it always ends at timestep 0.
    return SolverChoice("tcd", {"set_alpha_to_one": False}, ("set_alpha_to_one", "timestep_scaling"))


def flow_lcm(config: Config) -> SolverChoice:
    if config["scale_factors"]:
        asked = config["scale_factors"]
        raise ArgumentError(f"scale_factors={asked!r} is not supported: the size of the sample would change between steps.")
    return SolverChoice("flow_euler", {"stochastic_sampling": True}, ("scale_factors", "upscale_mode"))


def lcm(config: Config) -> SolverChoice:
    return SolverChoice("lcm", {}, ("set_alpha_to_one",))  # accepted and ignored: it always ends at the data
