"""Names of the schedules' types and families, and of JSON fields that discrete schedules add."""

DISCRETE = ("linear", "scaled_linear", "cosine", "quadratic", "sigmoid", "from_betas", "from_alphas_cumprod")
CONTINUOUS = ("edm", "flow", "vp_sde", "sub_vp_sde", "ve_sde", "learned")
TYPES = (*DISCRETE, *CONTINUOUS)  # each is the name of a class method of Schedule
FAMILIES = ("discrete", *CONTINUOUS)

# JSON fields for changes to a discrete schedule after it was made.
ZERO_SNR = "rescale_zero_terminal_snr"
INTERPOLATION = "interpolation"
