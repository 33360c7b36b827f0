"""Read and edit untrusted ONNX files without the onnx package.

``protobuf`` parses the wire format, ``header`` reads inputs, outputs, metadata and references to external data, ``external_data``
checks those references, ``graph`` edits the nodes in memory, ``tensor`` reads the values of a tensor.
"""
