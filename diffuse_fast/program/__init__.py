"""Networks as programs: an ONNX graph lowered to a short list of fused operations, which the compiled core runs."""
