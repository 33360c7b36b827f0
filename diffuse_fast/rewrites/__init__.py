"""Graph rewrites: passes that turn a model's graph into the operations that a runtime computes correctly and fastest.

A pass is a function ``(Graph) -> bool`` that edits the graph in place and returns True if it changed it. A pass with parameters is
made by a function that returns one. :mod:`.passes` lists the passes of each runtime.
"""
