"""Graph rewrites for onnxruntime and OpenVINO, which run what the native runtime does not: int8, bfloat16, other networks.

A pass is a function ``(Graph) -> bool`` that edits the graph in place and returns True if it changed it. A pass with parameters is
made by a function that returns one. :mod:`.passes` lists the passes of each runtime.
"""
