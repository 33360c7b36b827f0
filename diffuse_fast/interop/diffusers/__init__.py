"""Convert diffusers schedulers to schedules and plans, from their configuration alone. diffusers itself is not needed.

``schedulers.SCHEDULERS`` lists the supported scheduler classes with their options and defaults, and the solver that each becomes.
Every option is either part of the schedule, the time grid or the clip; or an option of the solver under the same name; or has
its default; or has no effect (``config.INERT``). Anything else raises an error that names the option. Options of *other*
scheduler classes are ignored, as diffusers ignores them: its configurations keep such options when one class is made from another.

Known differences from diffusers, all intended:

* diffusers computes its tables in float32, and its cosine table loses digits in 1 − alphas_cumprod; here they are float64.
* DDIM and PNDM compute the previous timestep as t − T // steps, which is not on the grid with ``linspace``, nor with ``trailing``
  where steps does not divide T. Here it is the next timestep of the grid (diffusers #9261).
* PNDM's Runge-Kutta start uses a half step of T // steps // 2 even where T // steps is odd; here it ends at the grid's timestep.
* DDPM adds noise to its result if its last timestep is not 0 (visible with ``fixed_large``); here it does not (Algorithm 2).
* UniPC returns NaN at sigma 0 with ``bh1``, ``predict_x0=False`` or ``lower_order_final=False``; here the last step is first order.
* PNDM combines raw network outputs from several states, also v; here it combines noise predictions, as the paper does.
* DPMSolverSinglestep thresholds with the alpha of another timestep if ``algorithm_type`` is ``dpmsolver``; here with its own.
* ``trailing`` grids of diffusers have an extra timestep, −1, for some step counts; here they do not.
* Where diffusers rounds down a time that is an integer up to rounding error, the integer is kept here.
* DDIMInverse with ``trailing`` computes the previous timestep from T // steps; here it is the grid's.
* DEIS with a spacing over noise levels and one step returns its input; here it goes to the cleanest timestep.
* EDM schedulers with ``exponential`` and one step start at the smallest level; here they start at the largest.
* A list of ``sigmas`` for Euler whose first or last value was rounded out of the schedule's range is clamped to the range.
* ScoreSdeVe with one step uses the smallest noise level; here it uses the largest, where sampling starts. Its corrector averages
  norms over the batch; here each sample has its own.

Steps that are too long for their solver (``solver/leaps.py``) are taken as diffusers takes them, with a ``LongStepWarning``;
``df.plan`` takes them at first order.
"""

from .convert import plan_from_diffusers as plan
from .convert import schedule_from_diffusers as schedule
from .schedulers import SCHEDULERS, UNSUPPORTED

__all__ = ["SCHEDULERS", "UNSUPPORTED", "plan", "schedule"]
