"""``likelihood``: bits per dimension of data under a model."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..artifact.document import VARIANCES
from ..checks import require_int
from ..console import Interval
from ..engine.arguments import Seed, seeds_of, shape_of_sample, trait
from ..engine.conditioning import conditions
from ..engine.probability_flow import takes_by_alpha
from ..engine.sample import load_cached
from ..errors import ArgumentError, ArgumentTypeError, suggest
from ..kernels import get_kernel
from ..model import Model
from ..planning import resolve_prediction_type, resolve_schedule
from ..schedule import Schedule
from ..solver.solver import Grid
from ..theory import REVERSE_VARIANCES
from ..theory.bound import cell
from .bound import estimate_bound
from .flow import estimate_flow

METHODS = ("elbo", "ode")
TRACES = ("hutchinson", "exact")
STREAM_PROBES = 5


@dataclass(frozen=True, eq=False)
class Likelihood:
    """The result of :func:`likelihood`.

    Attributes:
        bits_per_dim: −log2 p(x)/D of each sample, (n,) float64, the mean over ``draws``. With ``elbo`` an upper bound in
            expectation.
        standard_error: Standard errors of ``bits_per_dim``, (n,), from the spread of the draws: 0 if nothing is random, NaN for a
            single draw.
        terms: The terms of ``bits_per_dim``, each (n,): ``prior``, ``diffusion`` and ``decoder`` of ``elbo``, ``prior`` and
            ``change`` of ``ode``.
        method: ``elbo`` or ``ode``.
        draws: Number of independent estimates per sample.
        nfe: Network evaluations per sample.
        divergence_error: An upper estimate of the error of the mean from finite differences; 0 with autograd and with ``elbo``.
    """

    bits_per_dim: np.ndarray
    standard_error: np.ndarray
    terms: dict[str, np.ndarray]
    method: str
    draws: int
    nfe: int
    divergence_error: float = 0.0

    @property
    def mean(self) -> float:
        """The mean over the samples."""
        return float(self.bits_per_dim.mean())

    @property
    def mean_error(self) -> float:
        """The standard error of :attr:`mean` for these samples, whose draws are independent."""
        return float(np.sqrt(np.sum(self.standard_error**2)) / len(self.standard_error))


def likelihood(
    model: Any,
    x: Any,
    method: str = "elbo",
    *,
    levels: int | None = None,
    value_range: tuple[float, float] | None = None,
    draws: int | None = None,
    seed: Seed = None,
    first_index: int = 0,
    cond: Mapping[str, Any] | None = None,
    schedule: Schedule | None = None,
    prediction_type: str | None = None,
    variance: str | None = None,
    input_scale: str | None = None,
    batch_size: int | None = None,
    runtime: str = "auto",
    steps: int | None = None,
    evaluations: int | None = None,
    variance_type: str | None = None,
    trace: str = "hutchinson",
    rtol: float = 1e-5,
    atol: float = 1e-5,
    progress: Callable[[str], None] | None = None,
) -> Likelihood:
    """Bits per dimension of data under a model.

    ``elbo`` is the bound of Ho et al. 2020 (arXiv:2006.11239, eq. 5) for the sampler ``ddpm`` with these steps and this variance,
    estimated at every step or at a stratified subset. ``ode`` is the density from the probability-flow ODE (Song et al. 2021,
    arXiv:2011.13456, section 4.3 and appendix D.2), solved with SciPy's explicit Runge-Kutta method of order 8 (DOP853). It is the
    density of data with the noise of the schedule's smallest level, up to the tolerance and, if the trace is estimated, the
    standard error. For a model that takes integer timesteps the ODE is solved on these with Adams' method of order 4, with an
    error of about 1e-3 bits for 1000 timesteps.

    Args:
        model: As for :func:`~diffuse_fast.sample`. For ``ode`` divergences are computed by autograd for a torch module, otherwise
            by central differences of order 4, whose error is ``divergence_error``. A module or callable then gets fractional
            times; an artifact declares what it takes.
        x: (n, ...) data, in the model's value range.
        method: ``elbo`` or ``ode``.
        levels: For discrete data, the number of evenly spaced values over the value range: 256 for 8-bit images, 17 for the digits.
            The result is then a probability. None means continuous data and a density, whose bits can be negative. ``ode``
            dequantizes levels with uniform noise, which gives an upper bound in the mean.
        value_range: The first and the last level; None is the model's, or (−1, 1) for a bare callable.
        draws: Independent estimates per sample; their spread gives the standard error. None is 2, or 1 if nothing is random.
        seed, first_index: Seed of the draws (stream 5 of the noise), as for :func:`~diffuse_fast.sample`.
        cond, schedule, prediction_type, variance, input_scale, runtime: As for :func:`~diffuse_fast.sample`.
        batch_size: Samples per network call at most; None is all of them.
        steps: For ``elbo``, the number of times; None is every timestep of a discrete schedule, otherwise 1000. They are evenly
            spaced in the timestep of a discrete schedule, otherwise in log-SNR. For ``ode`` with a model that takes integer
            timesteps, their maximum number, about evenly spaced in log(atan(sigma/alpha)); None is 200.
        evaluations: For ``elbo``, the number of evaluated terms: one random term per stratum, for each sample. None is all.
        variance_type: For ``elbo``, as for the solver ``ddpm``. None is the model's learned variance, or ``fixed_large``, which is
            more accurate for smooth data.
        trace: For ``ode``: ``hutchinson`` estimates the divergence with one probe of random signs per draw (Grathwohl et al. 2019,
            arXiv:1810.01367); ``exact`` computes one derivative per element of the data.
        rtol, atol: For ``ode`` with fractional times, tolerance of a step. A float32 network limits it to about 1e-6.
        progress: Called with a line of text every ten seconds.

    Returns:
        The bits per dimension of each sample, with standard errors and terms.

    Raises:
        ArgumentError, ArgumentTypeError: an argument is out of range or does not fit the model; data is not on the levels or far
            outside the model's value range; the signal of the schedule jumps to 0 (``ode``).
        NonFiniteError: the network returned NaN or Inf, or the solver failed.
        MissingDependencyError: SciPy is not installed (``ode`` of fractional times).

    Example:
        >>> import numpy as np, diffuse_fast as df
        >>> schedule = df.Schedule.vp_sde()
        >>> def network(x, t):  # optimal for data N(0, 1)
        ...     return x * schedule.sigma(np.asarray(t, np.float64))[:, None].astype(np.float32)
        >>> x = np.zeros((1, 2), np.float32)
        >>> found = df.likelihood(network, x, "ode", trace="exact", schedule=schedule, prediction_type="epsilon")
        >>> round(found.mean, 2)  # ½·log2(2π)
        1.33
    """
    if isinstance(model, str | Path):
        model = load_cached(model)
    known = model if isinstance(model, Model) else None
    if method not in METHODS:
        raise ArgumentError(f"method is {method!r}.{suggest(str(method), METHODS)}")
    if trace not in TRACES:
        raise ArgumentError(f"trace is {trace!r}.{suggest(str(trace), TRACES)}")
    if variance_type is not None and variance_type not in REVERSE_VARIANCES:
        raise ArgumentError(f"variance_type is {variance_type!r}.{suggest(str(variance_type), REVERSE_VARIANCES)}")
    data = np.asarray(x)
    if data.dtype.kind not in "fiu":
        raise ArgumentTypeError(f"x has dtype {data.dtype}; it must be numbers.")
    if data.ndim < 2 or not len(data):
        raise ArgumentError(f"x has shape {data.shape}; it must be (n, ...), with n at least 1.")
    data = data.astype(np.float64)
    if not np.isfinite(data).all():
        raise ArgumentError("x has values that are not finite.")
    shape = shape_of_sample(data.shape[1:], known)
    n = len(data)
    schedule = resolve_schedule(schedule, known)
    grid = Grid(
        schedule=schedule,
        points=(),
        prediction_type=resolve_prediction_type(prediction_type, known),
        lo=-np.inf,
        hi=np.inf,
        time_convention=known.time.convention if known else None,
    )
    grid = dataclasses.replace(grid, points=grid.at_times(np.array([schedule.t_max, schedule.t_min])))
    bounds = value_range or (known.value_range if known else None) or (-1.0, 1.0)
    if known is not None and known.value_range is not None:
        lo, hi = bounds
        room = hi - lo  # continuous data may exceed the range a little, but not be on another scale such as 0 to 255
        if data.min() < lo - room or data.max() > hi + room:
            raise ArgumentError(
                f"x has values from {data.min():g} to {data.max():g}; the model's range is {lo:g} to {hi:g}; rescale x to it."
            )
    width = None if levels is None else cell(data, levels, bounds)[1] * 2.0
    drawn = method == "elbo" or trace == "hutchinson" or levels is not None
    if draws is None:
        draws = 2 if drawn else 1
    elif require_int("draws", draws, 1) > 1 and not drawn:
        raise ArgumentError(f"draws is {draws}; an exact trace of continuous data is deterministic, so all draws would be equal.")
    learned = trait("variance", variance, known, VARIANCES) or "none"
    by_alpha = takes_by_alpha(input_scale, known, grid)
    given = conditions("cond", cond, n, known.conditioning if known else None)
    seeds, indices = seeds_of(seed, n, first_index)
    kernel = get_kernel()

    size = n if batch_size is None else min(n, require_int("batch_size", batch_size, 1))
    found: list[list[dict[str, np.ndarray]]] = []
    due, calls = Interval(), 0

    def evaluated() -> None:
        nonlocal calls
        calls += 1
        if progress is not None and due():
            progress(f"likelihood: {min(n, len(found) * size):,} of {n:,} samples done, {calls:,} network evaluations")

    nfe, divergence_error = 0, 0.0
    for first in range(0, n, size):
        part = slice(first, first + size)
        count = len(data[part])

        def noise(row: int, shape: tuple[int, ...], part: slice = part, count: int = count) -> np.ndarray:
            out = np.empty((count, *shape), np.float32)
            kernel.normals(out, seeds=seeds[part], indices=indices[part], row=row, stream=STREAM_PROBES)
            return out.astype(np.float64)

        chosen = {name: value[part] for name, value in given.items()}
        common = (model, known, grid, data[part], chosen, noise, draws, runtime, learned, by_alpha, first)
        if method == "elbo":
            rows, nfe = estimate_bound(
                *common,
                steps=steps,
                evaluations=evaluations,
                variance_type=variance_type,
                levels=levels,
                value_range=bounds,
                evaluated=evaluated,
            )
        else:
            rows, nfe, error = estimate_flow(
                *common, exact=trace == "exact", width=width, rtol=rtol, atol=atol, steps=steps, evaluated=evaluated
            )
            divergence_error = max(divergence_error, error)
        found.append(rows)

    bits = 1.0 / (math.prod(shape) * math.log(2.0))
    # (draws, n) by name, in bits per dimension.
    terms = {
        name: bits * np.array([np.concatenate([rows[i][name] for rows in found]) for i in range(draws)]) for name in found[0][0]
    }
    total = np.sum(list(terms.values()), axis=0)
    spread = np.full(n, math.nan if drawn else 0.0) if draws == 1 else total.std(axis=0, ddof=1) / math.sqrt(draws)
    return Likelihood(
        total.mean(axis=0),
        spread,
        {name: value.mean(axis=0) for name, value in terms.items()},
        method,
        draws,
        nfe,
        divergence_error * bits,
    )
