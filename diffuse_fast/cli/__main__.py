"""``python -m diffuse_fast.cli``: the command for launchers that start modules, such as ``torchrun``."""

from . import main

main()
