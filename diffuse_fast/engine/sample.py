"""``sample``: one call from a model to samples. It makes the plan and a :class:`Sampler`, and delegates."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..checks import require_int
from ..errors import ArgumentError
from ..model import Model, find, load
from ..planning import plan_for
from ..plans.plan import DynamicThreshold
from ..schedule import Schedule
from .arguments import Seed, is_tensor, seeds_of
from .conditioning import conditions
from .known_region import known_region
from .request import Request
from .sampler import Sampler
from .slots import OnRow
from .start import start_of


def sample(
    model: Any,
    n: int,
    steps: int | None = None,
    *,
    solver: str = "ddim",
    seed: Seed = None,
    timestep_spacing: str | None = None,
    timesteps: Any = None,
    guidance_scale: float | Sequence[float] = 1.0,
    guidance_interval: tuple[float, float] | None = None,
    guidance_rescale: float = 0.0,
    guidance_batch: str = "joined",
    cond: Mapping[str, Any] | None = None,
    negative_cond: Mapping[str, Any] | None = None,
    shape: Sequence[int] | None = None,
    schedule: Schedule | None = None,
    prediction_type: str | None = None,
    variance: str | None = None,
    input_scale: str | None = None,
    clip: tuple[float, float] | DynamicThreshold | bool | None = None,
    data: Any = None,
    noise: Any = None,
    known: Any = None,
    mask: Any = None,
    step_noise: Callable[[int], Any] | None = None,
    batch_size: int | None = None,
    first_index: int = 0,
    runtime: str = "auto",
    threads: int | None = None,
    device: str = "auto",
    precision: str = "float32",
    graph: str = "auto",
    progress: bool = False,
    callback: OnRow | None = None,
    **solver_options: Any,
) -> Any:
    """Draw ``n`` samples from a diffusion model in ``steps`` steps.

    Args:
        model: A path to an artifact or a bundled name, a ``df.Model``, a ``torch.nn.Module``, an onnxruntime session, or any
            callable ``f(x, t, **cond)`` with x (batch, *shape) float32 and t (batch,).
        n: Number of samples, from 1.
        steps: Intervals of the time grid (num_inference_steps); None with ``timesteps``.
        solver: Name of a solver; ``df.solvers()`` lists them. ``learned`` takes the artifact's own plan for ``steps``
            (:func:`diffuse_fast.learn_solver`), which fixes the times, the clip and the rows: no option of a grid or solver may be
            given with it.
        seed: One seed (samples are its indices 0..n-1), a list of n seeds (each sample is its seed's index 0), or None for a
            fresh one, which is logged.
        timestep_spacing, timesteps: Name of a spacing, or the times themselves, falling. The default of ``ddim`` and ``ddpm`` is
            ``leading``, or ``trailing`` if leading would start below 0.9·num_train_timesteps (:func:`diffuse_fast.plan`). For a
            model of integer timesteps, the times of a spacing are rounded to the nearest, and ``timesteps`` must be integers.
        guidance_scale: Scale of classifier-free guidance, one number or one per sample. A sample with scale 1 uses the conditional
            model alone, and costs one evaluation.
        guidance_interval: Guide only where the noise level sigma/alpha is in ``[low, high)`` (Kynkäänniemi et al. 2024).
        guidance_rescale: How far the standard deviation of the guided output is moved back to that of the conditional one, 0 to 1
            (Lin et al. 2023, section 3.4).
        guidance_batch: ``joined`` calls the network once with both evaluations of every guided sample, ``separate`` twice, with
            half the memory for its activations. With a batch-invariant network the results are the same. It has no effect with
            ``native``, which copies nothing for guidance.
        cond, negative_cond: Conditioning by input name. For an artifact, an array has the declared shape of its input, for all
            samples, or one axis more with one entry per sample. For a callable or module, axis 0 is always the batch, of length n,
            or 1 for all samples: an embedding (77, 64) for all is ``emb[None]``; a number is for all. An input that is not given
            gets the model's null value. An array on the CUDA device that is sampled on stays there, like ``noise`` and the results
            of ``step_noise``; its values are not inspected.
        shape, schedule, prediction_type: Needed for a callable or module; an artifact has them.
        variance: ``none`` (default), or ``learned`` or ``learned_range`` for a callable or module with twice the channels, whose
            second half is the variance (Improved DDPM, ADM, DiT): ``ddpm`` uses it with ``variance_type="learned_range"``, other
            solvers ignore it. An artifact has it.
        input_scale: ``none`` (default) if the network takes the state alpha·x0 + sigma·ε of the schedule, which is c_in·x with
            ``Schedule.edm()``; ``1/alpha`` if it takes x0 + (sigma/alpha)·ε, as EDM's denoiser D(x; σ) and k-diffusion's wrappers
            do. Needed for a callable or module that predicts ``denoised`` with ``Schedule.edm()``. An artifact has it.
        clip: None for the artifact's clip (a callable: no clip), False for no clip, (lo, hi), or a ``df.DynamicThreshold``.
        data: Data to start from, (n, *shape) in the model's value range. It is noised to the start of the plan, which ``begin``
            sets (image-to-image: ``begin`` is where diffusers' ``strength`` starts). Needed with ``begin``, unless ``noise`` is.
        noise: N(0, 1) of shape (n, *shape) to start from, in place of the generator. With ``begin`` and without ``data`` it is
            the noised state itself, as a run with ``end`` at that time returns it.
        known, mask: Data to keep, and where to keep it (inpainting). ``known`` is floating, in the model's value range, of shape
            ``shape`` for all samples or (n, *shape). ``mask`` is 1 where the data is kept and 0 elsewhere; it broadcasts to
            ``shape``, or has one axis more, of length n or 1. After each row, the state there is replaced by the data noised to the
            level of that row (stream 2 of the generator); values between 0 and 1 blend. Where the mask is 1, samples are exactly
            the data. This is the replacement method (Song et al. 2021, arXiv:2011.13456, appendix I.2; Lugmayr et al. 2022,
            arXiv:2201.09865, without its resampling), which approximates the conditional distribution. Both are read on the host.
        step_noise: ``i -> N(0, 1)`` of that shape for row i, in place of the generator.
        batch_size: The most samples per network call; bounds memory, and changes no result of a batch-invariant network.
        first_index: Index of the first sample under ``seed``: continues where another call stopped.
        runtime: Name of a runtime, or ``auto``: the choice of :func:`diffuse_fast.tune` if there is one, else ``native`` where it
            supports the network, else by the order of the registry.
        threads: Threads inside one network call of an artifact; None for the choice of :func:`diffuse_fast.tune`, else the physical
            cores. They change no bit of ``native``. A module and a session have their own setting (``torch.set_num_threads``,
            ``SessionOptions``); ``df.set_num_threads`` is for the step and ``native``.
        precision: Precision of the network, as far as the runtime has it: ``float32`` (exact to rounding), ``float32-fast``
            (native), ``bfloat16`` (OpenVINO and torch, if the CPU has it), ``int8`` (an artifact from
            :func:`diffuse_fast.quantize`).
        device: ``cpu``, ``cuda``, ``cuda:1``, or ``auto``: a torch module is sampled on its device, everything else on the CPU.
        graph: On a CUDA device: ``tick`` captures a network call and its step as one graph, replayed for every row; ``trajectory``
            captures all rows; ``none`` captures nothing. ``auto`` is ``tick`` for torch modules and functions, ``none`` for a model
            file (``tick`` lets onnxruntime capture it). Python values that a module's ``forward`` reads are fixed by the capture.
        progress: Show a bar on a terminal, elsewhere a line now and then, on standard error.
        callback: Called as ``callback(row, x)`` after each row; x is a view that changes.
        **solver_options: Options of the solver (``eta``, ``variance_type``, ...) and of the grid (``sigmas``, ``begin``, ``end``,
            ``rho``, ``sigma_min``, ``sigma_max``, ``beta_shape``, ``time_convention``: see :func:`diffuse_fast.plan`).

    Returns:
        (n, *shape) float32: a new NumPy array; for a torch module, or if ``noise`` is a tensor, a tensor on the device that was
        sampled on.

    Raises:
        DiffuseFastError: see :mod:`diffuse_fast.errors`; every error is also the built-in that one would expect.

    Example:
        >>> import diffuse_fast as df
        >>> df.sample("digits", 4, 10, seed=0, cond={"label": 7}).shape
        (4, 1, 8, 8)

        Keep the upper half of a digit, and draw three lower halves:

        >>> import numpy as np
        >>> seven = df.sample("digits", 1, 10, seed=0, cond={"label": 7})
        >>> mask = np.zeros((1, 8, 8))
        >>> mask[:, :4] = 1
        >>> x = df.sample("digits", 3, 10, seed=1, known=seven[0], mask=mask)
        >>> bool((x[:, :, :4] == seven[:, :, :4]).all())
        True
    """
    if isinstance(model, str | Path):
        model = load_cached(model)
    plan = plan_for(
        model if isinstance(model, Model) else None,
        solver,
        steps,
        schedule=schedule,
        prediction_type=prediction_type,
        clip=clip,
        timestep_spacing=timestep_spacing,
        timesteps=timesteps,
        **solver_options,
    )
    each = not isinstance(guidance_scale, int | float | np.integer | np.floating)
    sampler = Sampler(
        model,
        plan,
        shape=shape,
        variance=variance,
        input_scale=input_scale,
        guidance_interval=guidance_interval,
        guidance_scale=1.0 if each else guidance_scale,  # type: ignore[arg-type]  # a number, where not each
        guidance_rescale=guidance_rescale,
        guidance_batch=guidance_batch,
        runtime=runtime,
        threads=threads,
        device=device,
        precision=precision,
        graph=graph,
    )
    if each:
        if step_noise is not None:
            raise ArgumentError(
                "step_noise needs one guidance_scale for all samples; with one per sample they are drawn as separate requests."
            )
        return _with_each_scale(
            sampler,
            n,
            guidance_scale,
            seeds_of(seed, require_int("n", n, 1), first_index),
            cond=cond,
            negative_cond=negative_cond,
            data=data,
            noise=noise,
            known=known,
            mask=mask,
            batch_size=batch_size,
            progress=progress,
            callback=callback,
        )
    return sampler.sample(
        n,
        seed=seed,
        cond=cond,
        negative_cond=negative_cond,
        data=data,
        noise=noise,
        known=known,
        mask=mask,
        step_noise=step_noise,
        batch_size=batch_size,
        first_index=first_index,
        progress=progress,
        callback=callback,
    )


def _with_each_scale(
    sampler: Sampler,
    n: int,
    scales: Any,
    keys: tuple[np.ndarray, np.ndarray],
    *,
    cond: Any,
    negative_cond: Any,
    data: Any,
    noise: Any,
    known: Any,
    mask: Any,
    **options: Any,
) -> Any:
    """Draw samples with a guidance scale of their own, as requests."""
    try:
        values = np.asarray(scales)
    except ValueError:
        values = np.array(None)
    if values.shape != (n,) or values.dtype.kind not in "iuf":
        raise ArgumentError(f"guidance_scale is {scales!r}; give one number, or one per sample ({n}).")
    setup, (seeds, indices) = sampler.setup, keys
    region = known_region(known, mask, n, setup.shape)
    start = start_of(sampler.plan, data, noise, (n, *setup.shape), seeds, indices, setup.device)
    given = conditions("cond", cond, n, setup.inputs, setup.device)
    other = None if negative_cond is None else conditions("negative_cond", negative_cond, n, setup.inputs, setup.device)
    requests = [
        Request(
            seed=int(seeds[i]),
            index=int(indices[i]),
            guidance_scale=float(values[i]),
            cond={name: value[i] for name, value in given.items()},
            negative_cond=None if other is None or values[i] == 1 else {name: value[i] for name, value in other.items()},
            noise=None if start is None else start[i],
            known=None if region is None else region.data[i],
            mask=None if region is None else region.mask[i],
        )
        for i in range(n)
    ]
    result = sampler.sample_requests(requests, **options)
    if not isinstance(result, np.ndarray) or not (is_tensor(noise) or is_tensor(data) or setup.network.name == "torch"):
        return result
    tensor = sys.modules["torch"].from_numpy(result)
    return tensor.to(noise.device) if is_tensor(noise) else tensor


def load_cached(model: str | Path) -> Model:
    """Load the model of a path or bundled name. Returns the same object, and so the same session, while its files are unchanged."""
    found = _load_cached(find(model), Path(model))
    if not found.files.current:
        _load_cached.cache_clear()
        found = _load_cached(find(model), Path(model))
    return found


@functools.lru_cache(maxsize=8)
def _load_cached(path: Path, asked: Path) -> Model:
    return load(asked)
