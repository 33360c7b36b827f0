"""Names of what a network predicts, and of the scale of the state that it takes."""

PREDICTION_TYPES = ("epsilon", "sample", "v_prediction", "flow", "denoised", "score", "edm")

# The network's input: the state alpha·x0 + sigma·ε itself, or x0 + (sigma/alpha)·ε.
INPUT_SCALES = ("none", "1/alpha")
