"""Names in other libraries, and their equivalents here, for the end of an error message."""

from __future__ import annotations

from collections.abc import Iterable

# Keywords of pipelines and samplers.
_KEYWORDS = {
    "num_inference_steps": "steps=",
    "num_steps": "steps=",
    "sampling_steps": "steps=",
    "n_steps": "steps=",
    "generator": "seed=, an integer: noise is counter-based and needs no generator",
    "num_images_per_prompt": "n, the second argument",
    "num_samples": "n, the second argument",
    "n_samples": "n, the second argument",
    "sampler": "solver=",
    "sampler_name": "solver=",
    "scheduler": "solver= and schedule=; df.Plan.from_diffusers(scheduler, steps) converts one from diffusers",
    "cfg": "guidance_scale=",
    "cfg_scale": "guidance_scale=",
    "guidance": "guidance_scale=",
    "unconditional_guidance_scale": "guidance_scale=",
    "latents": "noise=",
    "x_T": "noise=",
    "x_t": "noise=",
    "sample_shape": "shape=",
    "size": "shape=",
    "parameterization": "prediction_type=",
    "objective": "prediction_type=",
    "thresholding": "clip=df.DynamicThreshold(...)",
    "clip_sample": "clip=(-1, 1)",
    "clip_denoised": "clip=(-1, 1)",
    "strength": "begin=, a time, with data=",
    "denoising_start": "begin=, a time",
    "denoising_end": "end=, a time",
    "image": "data=, with begin=",
    "init_image": "data=, with begin=",
    "use_karras_sigmas": "timestep_spacing='karras'",
    "use_beta_sigmas": "timestep_spacing='beta_sigmas'",
    "spacing": "timestep_spacing=",
    "dtype": "precision=",
    "model_kwargs": "cond={name: value}",
    "callback_on_step_end": "callback=",
}

# Names of network inputs, which belong in cond.
_CONDITIONS = {"label", "labels", "class_label", "class_labels", "classes", "y", "prompt", "prompt_embeds", "encoder_hidden_states",
               "context", "c", "emb", "embedding"}  # fmt: skip
_NEGATIVE = {"negative_prompt", "negative_prompt_embeds", "uncond", "unconditional_conditioning"}

_PREDICTIONS = {
    "epsilon": ("eps", "noise", "pred_noise"),
    "sample": ("x0", "x_0", "x_start", "start_x", "pred_x0", "xstart", "data"),
    "v_prediction": ("v", "pred_v", "v_pred", "vpred", "velocity"),
    "flow": ("flow_prediction", "rectified_flow", "rf", "flow_matching"),
}

_SOLVERS = {
    "euler_a": "euler_ancestral",
    "plms": "pndm",
    "dpm2": "dpm_2",
    "kdpm2": "dpm_2",
    "kdpm_2": "dpm_2",
    "dpmpp": "dpmpp_2m",
    "dpmpp_sde": "dpmpp_2m_sde",
    "dpm_solver": "dpmsolver_2m",
    "dpm_solver_pp": "dpmpp_2m",
    "dpmsolver": "dpmsolver_2m",
    "dpmsolver_pp": "dpmpp_2m",
    "uni_pc": "unipc",
    "ode": "euler",
    "ddpm_ancestral": "ddpm",
}
_SPACINGS = ("karras", "exponential", "beta")


def of_keyword(name: str) -> str:
    """The equivalent of another library's keyword, as a sentence; empty for an unknown keyword.

    Example:
        >>> of_keyword("num_inference_steps")
        ' Here it is steps=.'
    """
    if name in _CONDITIONS:
        return f" Pass inputs of the network in cond: cond={{{name!r}: ...}}."
    if name in _NEGATIVE:
        return " Pass the negative condition in negative_cond: negative_cond={name: value}."
    return f" Here it is {_KEYWORDS[name]}." if name in _KEYWORDS else ""


def of_prediction(name: object) -> str:
    """As :func:`of_keyword`, for a prediction type."""
    plain = str(name).lower().replace("-", "_")
    known = next((here for here, others in _PREDICTIONS.items() if plain == here or plain in others), None)
    if known is None:
        return ""
    more = ", or 'flow' for the velocity of a flow" if plain == "velocity" else ""
    return f" Here it is {known!r}{more}."


def of_solver(name: object, known: Iterable[str]) -> str:
    """As :func:`of_keyword`, for a solver name of another program.

    Example:
        >>> of_solver("DPM++ 2M Karras", ["dpmpp_2m"])
        " Here it is solver='dpmpp_2m', timestep_spacing='karras'."
    """
    text = str(name)
    if text.endswith("Scheduler"):
        return " For a diffusers scheduler use df.Plan.from_diffusers(scheduler, steps)."
    words = text.lower().replace("++", "pp").replace("-", " ").replace("_", " ").removeprefix("k ").removeprefix("sample ").split()
    spacing = next((word for word in words if word in _SPACINGS), None)
    plain = "_".join(word for word in words if word not in (*_SPACINGS, "sampler"))
    plain = _SOLVERS.get(plain, plain)
    if plain not in known or (plain == text and spacing is None):
        return ""
    tail = "" if spacing is None else f", timestep_spacing={spacing!r}"
    return f" Here it is solver={plain!r}{tail}."
