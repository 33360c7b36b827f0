"""Noise schedules: how much of the data is left at each time. One file per family; :class:`Schedule` is the public name.

A schedule says, for every time t, the marginal of the state that the network sees::

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

The discrete tables are made in ``csrc/schedule``; the others are closed forms of a few operations, here in NumPy. All of it
is float64.
"""

from .base import Schedule
from .types import FAMILIES

__all__ = ["FAMILIES", "Schedule"]
