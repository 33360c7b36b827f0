"""``diffuse-fast solvers``: list the solvers."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..solver.solver import Option


def solvers() -> None:
    """List the solvers, their options and their papers."""
    from ..solver import solvers as known
    from .tables import show

    everything = known().values()
    show(
        "solvers",
        [(s.name, s.order, s.nfe_per_step, s.registers, "yes" if s.stochastic else "no", s.timestep_spacing) for s in everything],
        ("name", "order", "calls per step", "registers", "noise", "spacing"),
    )
    show("papers", [(s.name, s.paper) for s in everything])
    show(
        "options, as --option NAME=VALUE",
        [(s.name, name, _shown(o.default), _about(o)) for s in everything for name, o in s.options.items()],
        ("solver", "option", "default", ""),
    )


def _shown(default: object) -> object:
    """A default in the syntax of the command line. The largest float is no bound; None follows the clip."""
    if default is None:
        return "where clipped"
    if default == sys.float_info.max:
        return "unlimited"
    return str(default).lower() if isinstance(default, bool) else default


def _about(option: Option) -> str:
    return f"{option.about}: {', '.join(option.choices)}" if option.choices else option.about
