"""The self-describing model file: its JSON document, and checks that its files did not change.

``document`` is the JSON document in the metadata of the ONNX file, ``write_document`` replaces it in a file, ``file_identity``
detects files that were replaced after they were checked. Nothing here imports onnx or any runtime.
"""
