"""diffuse_fast: an inference engine for diffusion models. A solver is a table, a step is one fused kernel.

>>> import diffuse_fast as df
>>> x = df.sample("digits", 16, 20, seed=0)
>>> x.shape
(16, 1, 8, 8)

Names are loaded on first use: importing the package loads neither torch nor an ONNX runtime.
"""

from __future__ import annotations

import importlib
import sys
import types
from typing import TYPE_CHECKING, Any

from . import telemetry as _telemetry

__version__ = "0.1.0"

_telemetry.decline()  # before any module here imports a runtime

# public name -> the module that defines it
_HOME = {
    "Schedule": "schedule",
    "DynamicThreshold": "plan",
    "Plan": "plan",
    "Row": "plan",
    "plan": "solvers",
    "solvers": "solvers",
    "convert_prediction": "solvers.prediction",
    "Sampler": "engine",
    "sample": "engine",
    "Request": "engine",
    "probability_flow": "engine",
    "ClassifierGuidance": "guidance",
    "step": "kernels",
    "set_num_threads": "kernels",
    "Model": "model",
    "load": "model",
    "to_uint8": "model",
    "export": "export",
    "learn_solver": "learning",
    "tune": "tuning",
    "quantize": "quantization",
    "train": "training",
    "nn": "nn",
    "theory": "theory",
    "likelihood": "likelihood",
    "DiffuseFastError": "errors",
}

_MODULES = ("nn", "theory")  # public names that are modules

__all__ = ["__version__", *_HOME]

if TYPE_CHECKING:
    from . import nn, theory
    from .engine import Request, Sampler, probability_flow, sample  # type: ignore[no-redef]  # engine/sample.py has the function's name
    from .errors import DiffuseFastError
    from .export import export
    from .guidance import ClassifierGuidance
    from .kernels import set_num_threads, step  # type: ignore[no-redef]  # as does kernels/step.py
    from .learning import learn_solver
    from .likelihood import likelihood  # type: ignore[no-redef]  # as does likelihood/
    from .model import Model, load, to_uint8
    from .plan import DynamicThreshold, Plan, Row
    from .quantization import quantize  # type: ignore[no-redef]  # as does quantization/quantize.py
    from .schedule import Schedule
    from .solvers import plan, solvers
    from .solvers.prediction import convert_prediction
    from .training import train
    from .tuning import tune


class _Package(types.ModuleType):
    """Importing a submodule makes it an attribute of its package. The public functions `plan`, `solvers` and
    `export` have the names of submodules, and would be a function or a module depending on what was imported first:
    the function wins."""

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(value, types.ModuleType) and name in _HOME and name not in _MODULES:
            return
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package


def __getattr__(name: str) -> Any:
    if name == "_core":
        return _compiled()
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.import_module(f".{home}", __name__)
    value = module if name in _MODULES else getattr(module, name)
    globals()[name] = value
    return value


def _compiled() -> types.ModuleType:
    """The compiled core, which lies in an installed package and not in the source folder of a checkout."""
    try:
        return importlib.import_module("._core", __name__)
    except ModuleNotFoundError as error:
        if error.name != f"{__name__}._core":
            raise
    from .errors import CoreMissingError

    raise CoreMissingError(
        f"{__path__[0]!r} has no compiled core: it is the source folder of a checkout, and Python found it before the installed "
        f"package because it was started in the checkout. Start it in another folder, or with `python -P` (a script: with "
        f"PYTHONSAFEPATH=1); or build the core for this folder with `pip install -e .`."
    )


def __dir__() -> list[str]:
    return sorted(__all__)
