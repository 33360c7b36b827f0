"""Shorten a draft: fuse operations with what surrounds them.

``fuse`` runs the table of passes to a fixed point. A pass looks at one operation and its neighbours and either changes the graph or
leaves it; it sees an operation again when something near it has changed. Each change removes an operation, or moves one to a form
that no pass moves back, so it ends.

What is fused: operations at one level (:class:`..program.Level`), where nothing else reads what lies between them. A value that
several operations read is stored, except that a copy is never needed for that alone.
"""

from __future__ import annotations

from dataclasses import replace

from ..draft import Draft
from .affine import compose_affine
from .attention import absorb_scale, match_attention, settle_scale
from .bias import add_to_bias
from .cleanup import remove_dead, remove_duplicate, remove_neutral
from .copies import place, remove_copy
from .epilogue import fuse_epilogue
from .graph import Graph
from .layout import make_channels_dense
from .operands import choose_main
from .parallel import merge_parallel
from .pointwise import convolution_to_linear
from .prologue import fuse_prologue
from .route import NoRoute

PASSES = (
    remove_dead,
    remove_neutral,
    remove_duplicate,
    remove_copy,
    convolution_to_linear,
    match_attention,
    absorb_scale,
    settle_scale,
    choose_main,
    fuse_epilogue,
    add_to_bias,
    merge_parallel,  # before a norm moves into one of its readers
    fuse_prologue,
    make_channels_dense,
    place,  # last: a copy that can be removed is not placed
)


def fuse(draft: Draft) -> Draft:
    """Return a shorter draft that computes the same. Buffers that are not used any more stay until :mod:`..finish`."""
    fused = _run(draft)
    composed = compose_affine(fused)
    return fused if len(composed.operations) == len(fused.operations) else _run(composed)


def _run(draft: Draft) -> Draft:
    graph = Graph(draft)
    waiting = [set(graph.touched) for _ in PASSES]
    graph.touched.clear()
    while True:
        number = next((number for number, indices in enumerate(waiting) if indices), None)
        if number is None:
            return replace(draft, buffers=graph.buffers, operations=[op for op in graph.operations if op is not None])
        indices, waiting[number] = waiting[number], set()
        for index in sorted(indices):
            if graph.operations[index] is not None:
                try:
                    PASSES[number](graph, index)
                except NoRoute:
                    continue
        for indices in waiting:
            indices |= graph.touched
        graph.touched.clear()
