"""Draw many samples into a folder of shards, on several processes of this machine: ``diffuse-fast batch``.

Sample i is index i of one seed, so a shard has the same bits whoever draws it, and whenever. :mod:`.supervisor` hands out the
shards, :mod:`.worker` draws them, :mod:`.shard` writes and reads their files, and :mod:`.recipe` says what the folder holds.
"""

from .recipe import Recipe
from .supervisor import Result, run

__all__ = ["Recipe", "Result", "run"]
