"""Training objectives. The parts of :class:`Objective` can be combined freely.

=====================  =============================================================================================
:class:`Objective`     the squared error of a prediction, of any prediction type and schedule; flow matching is this
                       with ``Schedule.flow()`` and ``"flow"``
``weighting=``         the weight of each time: :class:`MinSNR`, :class:`P2`, :class:`EDM`; None is L_simple
``times=``             the distribution of times: :class:`UniformTimes`, :class:`ImportanceTimes`, :class:`LogNormalTimes`,
                       :class:`LogitNormalTimes`
=====================  =============================================================================================

:class:`VariationalObjective` is the ELBO itself, and Improved DDPM's hybrid with a learned variance;
:class:`LearnedScheduleObjective` trains a schedule with its network. Every objective is called
``objective(network, x0, cond, generator=...)`` and returns :class:`Losses`.
"""

from .batch_position import BatchPosition
from .forward import TARGETS, ForwardProcess, evaluate_loss, simple_loss
from .learned_schedule import LearnedScheduleObjective, LogSNRNetwork
from .objective import Losses, Objective, drop_conditions
from .times import ImportanceTimes, LogitNormalTimes, LogNormalTimes, Times, TimeSampler, UniformTimes
from .variational import VariationalObjective
from .weighting import EDM, P2, MinSNR

__all__ = [
    "EDM",
    "P2",
    "TARGETS",
    "BatchPosition",
    "ForwardProcess",
    "ImportanceTimes",
    "LearnedScheduleObjective",
    "LogNormalTimes",
    "LogSNRNetwork",
    "LogitNormalTimes",
    "Losses",
    "MinSNR",
    "Objective",
    "TimeSampler",
    "Times",
    "UniformTimes",
    "VariationalObjective",
    "drop_conditions",
    "evaluate_loss",
    "simple_loss",
]  # fmt: skip
