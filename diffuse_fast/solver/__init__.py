"""Solvers: pure functions that write plans. One small file per solver.

>>> import diffuse_fast as df
>>> plan = df.plan(df.Schedule.linear(), "ddim", 4, prediction_type="epsilon")
>>> plan.timesteps.tolist()
[999.0, 749.0, 499.0, 249.0]
"""

from .build import plan
from .registry import SOLVERS, solvers

__all__ = ["SOLVERS", "plan", "solvers"]
