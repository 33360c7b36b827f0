"""Noise schedules: the share of data and noise at each time. One file per family; :class:`Schedule` is the public class.

A schedule defines, for every time t, the marginal of the network's input::

    x_t = alpha(t)·x0 + sigma(t)·ε,    ε ~ N(0, I)

=============  =====================================  ===========================================================
family         made by                                t
=============  =====================================  ===========================================================
``discrete``   ``linear``, ``cosine``, ...            training timestep, 0 to num_train_timesteps − 1; alpha² + sigma² = 1
``edm``        ``edm``                                noise level σ; the state is c_in·(x0 + σ·ε)
``flow``       ``flow``                               σ·num_train_timesteps; alpha = 1 − σ, sigma = σ
``vp_sde``     ``vp_sde``                             0 to 1; alpha² + sigma² = 1
``sub_vp_sde`` ``sub_vp_sde``                         0 to 1; sigma = 1 − alpha²
``ve_sde``     ``ve_sde``                             0 to 1; alpha = 1
``learned``    ``learned``                            0 to 1; alpha² + sigma² = 1
=============  =====================================  ===========================================================

The discrete tables are computed in ``csrc/schedule``; the others are closed forms in NumPy. Everything is float64.
"""

from .base import Schedule
from .types import FAMILIES

__all__ = ["FAMILIES", "Schedule"]
