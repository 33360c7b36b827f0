"""What a model file says about itself, read without a runtime and without trusting it.

``wire`` walks protobuf, ``graph`` knows the few ONNX messages that matter, ``external`` holds the rules for data beside
the file, ``document`` is the JSON document in the metadata. Nothing here imports onnx or any runtime.
"""
