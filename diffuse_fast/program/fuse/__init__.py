"""Shorten a draft: fuse operations with what surrounds them.

``fuse`` runs the table of passes to a fixed point. A pass looks at one operation and its neighbours and either changes the graph or
leaves it; it sees an operation again when something near it has changed. Each change removes an operation, or moves one to a form
that no pass moves back, so it ends.

What is fused: operations at one level (:class:`..program.Level`), where nothing else reads what lies between them. A value that
several operations read is stored, except that a copy is never needed for that alone.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import replace

from ...errors import ArtifactError, UnsupportedError
from ..draft import Draft
from ..encoding import KINDS
from ..program import Attention, Convolution, Linear, Map, Pool, Reduce, Softmax
from .affine import compose_affine
from .attention import absorb_scale, match_attention, settle_scale
from .bias import add_to_bias
from .cleanup import remove_dead, remove_duplicate, simplify_numbers
from .copies import place, remove_copy
from .epilogue import fuse_epilogue
from .graph import Graph
from .layout import make_channels_dense
from .operands import choose_main
from .parallel import merge_parallel
from .pointwise import convolution_to_linear
from .prologue import fuse_prologue

MAX_SECONDS = 10.0

# Each pass with the kinds of operation that it looks at.
PASSES: tuple[tuple[Callable[[Graph, int], None], tuple[type, ...]], ...] = (
    (remove_dead, KINDS),
    (simplify_numbers, KINDS),
    (remove_duplicate, KINDS),
    (remove_copy, (Map,)),
    (convolution_to_linear, (Convolution,)),
    (match_attention, (Softmax,)),
    (absorb_scale, (Attention,)),
    (settle_scale, (Attention,)),
    (choose_main, (Map,)),
    (fuse_epilogue, (Map,)),
    (add_to_bias, (Linear, Convolution)),
    (merge_parallel, (Linear,)),  # before a norm moves into one of its readers
    (fuse_prologue, (Convolution, Linear, Pool, Softmax, Reduce)),
    (make_channels_dense, (Convolution, Linear)),
    (place, (Map,)),  # last: a copy that can be removed is not placed
)


def fuse(draft: Draft) -> Draft:
    """Return a shorter draft that computes the same. Buffers that are not used any more stay until :mod:`..finish`.

    Raises:
        ArtifactError: It takes more than ten seconds, as it would only for a hostile file.
    """
    deadline = time.monotonic() + MAX_SECONDS
    fused = _run(draft, deadline)
    composed = compose_affine(fused)
    return fused if len(composed.operations) == len(fused.operations) else _run(composed, deadline)


def _run(draft: Draft, deadline: float) -> Draft:
    """Run the passes until none finds anything to change, always the first one that has something to look at."""
    graph = Graph(draft)
    waiting: list[set[int]] = [set() for _ in PASSES]
    lookers = {kind: [indices for indices, (_, kinds) in zip(waiting, PASSES, strict=True) if kind in kinds] for kind in KINDS}
    while True:
        for index in graph.touched:
            for indices in lookers[type(graph[index].kind)]:
                indices.add(index)
        graph.touched.clear()
        number = next((number for number, indices in enumerate(waiting) if indices), None)
        if number is None:
            return replace(draft, buffers=graph.buffers, operations=[op for op in graph.operations if op is not None])
        look, looks_at = PASSES[number]
        found = sorted(waiting[number])
        waiting[number].clear()
        for index in found:
            if time.monotonic() > deadline:
                raise ArtifactError(f"the graph takes more than {MAX_SECONDS:g} s to fuse; it is not read further.")
            op = graph.operations[index]
            if op is not None and type(op.kind) in looks_at:
                with contextlib.suppress(UnsupportedError):
                    look(graph, index)
