"""What a network is trained for: an objective, of three parts that go together as one likes.

=====================  =============================================================================================
:class:`Objective`     the squared error of a prediction, of any prediction type and schedule; flow matching is this
                       with ``Schedule.flow()`` and ``"flow"``
``weighting=``         how its times count: :class:`MinSNR`, :class:`P2`, :class:`EDM`; all the same without (L_simple)
``times=``             which times are drawn: :class:`UniformTimes`, :class:`ImportanceTimes`, :class:`LogNormalTimes`,
                       :class:`LogitNormalTimes`
=====================  =============================================================================================

:class:`VariationalObjective` is the ELBO itself, and Improved DDPM's hybrid with a learned variance;
:class:`LearnedScheduleObjective` trains a schedule with its network. Every objective is called
``objective(network, x0, cond, generator=...)`` and answers :class:`Losses`; the loop needs to know nothing else.
"""

from .forward import TARGETS, ForwardProcess, evaluate_loss, simple_loss
from .learned_schedule import LearnedScheduleObjective, LogSNRNetwork
from .objective import Losses, Objective, drop_conditions
from .place import Place
from .times import ImportanceTimes, LogitNormalTimes, LogNormalTimes, Times, TimeSampler, UniformTimes
from .variational import VariationalObjective
from .weighting import EDM, P2, MinSNR

__all__ = [
    "EDM", "P2", "TARGETS", "ForwardProcess", "ImportanceTimes", "LearnedScheduleObjective", "LogNormalTimes", "LogSNRNetwork",
    "LogitNormalTimes", "Losses", "MinSNR", "Objective", "Place", "TimeSampler", "Times", "UniformTimes", "VariationalObjective",
    "drop_conditions", "evaluate_loss", "simple_loss",
]  # fmt: skip
