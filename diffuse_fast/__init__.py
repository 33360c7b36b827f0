"""diffuse_fast: an inference engine for diffusion models. A solver is a table, a step is one fused kernel.

>>> import diffuse_fast as df
>>> x = df.sample("digits", 16, 20, seed=0)
>>> x.shape
(16, 1, 8, 8)

Names are loaded on first use: importing the package loads neither torch nor an ONNX runtime.
"""

from __future__ import annotations

import importlib
import importlib.util
import types
from typing import TYPE_CHECKING, Any

from . import telemetry as _telemetry

__version__ = "0.1.0"

_telemetry.decline()  # before any module here imports a runtime

# Said three times: __all__ is for `import *` and readers, the imports below are for type checkers, and this is what runs.
# tests/test_package.py holds them together.
_HOME = {
    "ClassifierGuidance": "guidance",
    "DiffuseFastError": "errors",
    "DynamicThreshold": "plans.clip",
    "Model": "model",
    "Plan": "plans.plan",
    "Request": "engine.request",
    "Row": "plans.row",
    "Sampler": "engine.sampler",
    "Schedule": "schedule",
    "compile_model": "compiling",
    "convert_prediction": "solver.prediction",
    "export": "exporting",
    "grid": "saving",
    "interop": "interop",
    "learn_solver": "learning",
    "likelihood": "log_likelihood",
    "load": "model",
    "nn": "nn",
    "noise": "engine.noise",
    "plan": "solver.build",
    "probability_flow": "engine.probability_flow",
    "quantize": "quantization",
    "sample": "engine.sample",
    "save": "saving",
    "set_num_threads": "kernels",
    "solvers": "solver.registry",
    "step": "kernels",
    "theory": "theory",
    "to_uint8": "model",
    "train": "training",
    "tune": "tuning",
}

_MODULES = ("interop", "nn", "theory")  # public names that are modules
_NEED_TORCH = ("ClassifierGuidance", "nn", "train")

__all__ = [
    "ClassifierGuidance",
    "DiffuseFastError",
    "DynamicThreshold",
    "Model",
    "Plan",
    "Request",
    "Row",
    "Sampler",
    "Schedule",
    "__version__",
    "compile_model",
    "convert_prediction",
    "export",
    "grid",
    "interop",
    "learn_solver",
    "likelihood",
    "load",
    "nn",
    "noise",
    "plan",
    "probability_flow",
    "quantize",
    "sample",
    "save",
    "set_num_threads",
    "solvers",
    "step",
    "theory",
    "to_uint8",
    "train",
    "tune",
]

if not TYPE_CHECKING and importlib.util.find_spec("torch") is None:
    # What needs torch is not there without it: for `import *`, help, hasattr and completion.
    __all__ = [name for name in __all__ if name not in _NEED_TORCH]

if TYPE_CHECKING:
    from . import interop as interop
    from . import nn as nn
    from . import theory as theory
    from .compiling.write_compiled import compile_model as compile_model
    from .engine.noise import noise as noise
    from .engine.probability_flow import probability_flow as probability_flow
    from .engine.request import Request as Request
    from .engine.sample import sample as sample
    from .engine.sampler import Sampler as Sampler
    from .errors import DiffuseFastError as DiffuseFastError
    from .exporting.write_artifact import export as export
    from .guidance import ClassifierGuidance as ClassifierGuidance
    from .kernels import set_num_threads as set_num_threads
    from .kernels.step import step as step
    from .learning.learn import learn_solver as learn_solver
    from .log_likelihood.likelihood import likelihood as likelihood
    from .model import Model as Model
    from .model import load as load
    from .model import to_uint8 as to_uint8
    from .plans.clip import DynamicThreshold as DynamicThreshold
    from .plans.plan import Plan as Plan
    from .plans.row import Row as Row
    from .quantization.quantize import quantize as quantize
    from .saving import grid as grid
    from .saving import save as save
    from .schedule import Schedule as Schedule
    from .solver.build import plan as plan
    from .solver.prediction import convert_prediction as convert_prediction
    from .solver.registry import solvers as solvers
    from .training.run.loop import train as train
    from .tuning.search import tune as tune


if not TYPE_CHECKING:  # a type checker would take every misspelt name for one that this finds

    def __getattr__(name: str) -> Any:
        if name == "_core":
            return _compiled()
        home = _HOME.get(name)
        if home is None:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        try:
            module = importlib.import_module(f".{home}", __name__)
        except ImportError as error:
            if name not in _NEED_TORCH:
                raise
            from .errors import UnavailableNameError, install_hint

            raise UnavailableNameError(f"df.{name} needs torch ({error}): {install_hint('train')}", name=name) from error
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
