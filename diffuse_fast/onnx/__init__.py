"""Reads and edits ONNX files without the onnx package, and without trusting them.

``protobuf`` parses the wire format, ``header`` reads inputs, outputs, metadata and references to external data, ``external_data``
holds the rules for those, ``graph`` edits the nodes in memory, ``tensor`` reads the numbers of a tensor.
"""
