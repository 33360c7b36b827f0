"""The solvers by name. The module of a solver is imported when the solver is first looked up."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping

from .solver import Solver

# Every solver is the constant SOLVER of the module of its name.
NAMES = (
    "consistency",
    "ddim",
    "ddim_inverse",
    "ddpm",
    "deis",
    "dpm_2",
    "dpmpp_2m",
    "dpmpp_2m_sde",
    "dpmpp_2s",
    "dpmpp_3m",
    "dpmpp_3m_sde",
    "dpmpp_3s",
    "dpmsolver_1s",
    "dpmsolver_2m",
    "dpmsolver_2s",
    "dpmsolver_3m",
    "dpmsolver_3s",
    "dpmsolver_singlestep",
    "euler",
    "euler_ancestral",
    "euler_maruyama",
    "flow_euler",
    "flow_heun",
    "heun",
    "ipndm",
    "langevin_pc",
    "lcm",
    "lms",
    "pndm",
    "tcd",
    "unipc",
)


class _Registry(Mapping[str, Solver]):
    """A mapping from names to solvers. Names are known without an import; a lookup imports one module."""

    def __getitem__(self, name: str) -> Solver:
        if name not in self:
            raise KeyError(name)
        return importlib.import_module(f".{name}", __package__).SOLVER

    def __contains__(self, name: object) -> bool:
        return name in NAMES

    def __iter__(self) -> Iterator[str]:
        return iter(NAMES)

    def __len__(self) -> int:
        return len(NAMES)


SOLVERS: Mapping[str, Solver] = _Registry()


def solvers() -> dict[str, Solver]:
    """All solvers by name, with their order, network evaluations per step, registers, paper and options.

    Example:
        >>> import diffuse_fast as df
        >>> df.solvers()["ddim"].order, sorted(df.solvers()["ddpm"].options)
        (1, ['steps_offset', 'variance_type'])
    """
    return dict(SOLVERS)
