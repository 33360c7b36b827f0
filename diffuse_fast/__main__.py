"""``python -m diffuse_fast``: the command ``diffuse-fast``."""

from .cli import main

main()
