"""Read the configurations of other libraries.

>>> import diffuse_fast as df
>>> df.interop.diffusers.plan({"_class_name": "DDIMScheduler", "timestep_spacing": "trailing"}, 4).timesteps.tolist()
[999.0, 749.0, 499.0, 249.0]
"""

from . import diffusers

__all__ = ["diffusers"]
