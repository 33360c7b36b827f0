"""Noise schedules: how much of the data is left at each training timestep.

A schedule says, for every timestep ``t`` of the training, the marginal of the forward process (Ho et al. 2020, eq. 4)::

    x_t = alpha(t)·x0 + sigma(t)·ε,    ε ~ N(0, I),    alpha(t)² = alphas_cumprod[t],    alpha² + sigma² = 1

Timesteps are 0-based (``t = 0`` is the cleanest, ``num_train_timesteps − 1`` the noisiest) and may be fractional:
between integers ``log(alpha)`` is linear. Note that DPM-Solver's papers write α for ``alpha`` here, DDIM's for
``alphas_cumprod``.

The arithmetic is float64 and lives in ``csrc/schedule``.
"""

from __future__ import annotations

import inspect
import math
from functools import cached_property
from typing import Any

import numpy as np

from . import _core
from .errors import ArgumentError, ArgumentTypeError, near

_TYPES = ("linear", "scaled_linear", "cosine", "quadratic", "sigmoid", "from_betas", "from_alphas_cumprod")
_ZERO_SNR = "rescale_zero_terminal_snr"


class Schedule:
    """A discrete variance-preserving noise schedule: immutable, hashable, equal by content, safe to share between
    threads.

    Made by one of its class methods (:meth:`linear`, :meth:`scaled_linear`, :meth:`cosine`, :meth:`quadratic`,
    :meth:`sigmoid`, :meth:`from_betas`, :meth:`from_alphas_cumprod`, :meth:`from_json`).

    Tables are read-only float64 arrays of shape ``(num_train_timesteps,)``.

    Example:
        >>> import diffuse_fast as df
        >>> schedule = df.Schedule.linear()
        >>> schedule.num_train_timesteps
        1000
        >>> round(schedule.alpha(0) ** 2, 6), round(schedule.sigma(999.0), 6)
        (0.9999, 0.99998)
        >>> df.Schedule.from_json(schedule.to_json()) == schedule
        True
    """

    _tables: _core.Schedule
    _document: dict[str, Any]

    def __init__(self) -> None:
        raise ArgumentTypeError(f"a Schedule is made by one of its class methods: {', '.join(_TYPES)}, from_json.")

    @classmethod
    def _make(cls, core: _core.Schedule, document: dict[str, Any]) -> Schedule:
        self = object.__new__(cls)
        self.__dict__.update(_tables=core, _document=document)
        return self

    # ---- the schedules of the field -------------------------------------------------------------

    @classmethod
    def linear(cls, num_train_timesteps: int = 1000, beta_start: float = 1e-4, beta_end: float = 0.02) -> Schedule:
        """``betas`` evenly from ``beta_start`` to ``beta_end`` (Ho et al. 2020, "Denoising Diffusion Probabilistic
        Models", section 4).

        Args:
            num_train_timesteps: Number of timesteps T, 1 to 1,000,000.
            beta_start, beta_end: First and last beta, between 0 and 1.

        Raises:
            ArgumentError: a value is out of range.
            ArgumentTypeError: a value is not a number.

        Example:
            >>> import diffuse_fast as df
            >>> df.Schedule.linear(3, beta_start=0.1, beta_end=0.3).betas.round(6).tolist()
            [0.1, 0.2, 0.3]
        """
        return cls._of_range("linear", _core.linear_betas, num_train_timesteps, beta_start, beta_end)

    @classmethod
    def scaled_linear(
        cls, num_train_timesteps: int = 1000, beta_start: float = 0.00085, beta_end: float = 0.012
    ) -> Schedule:
        """``sqrt(betas)`` evenly from ``sqrt(beta_start)`` to ``sqrt(beta_end)``: the schedule of latent diffusion
        (the code of Rombach et al. 2022, "High-Resolution Image Synthesis with Latent Diffusion Models").

        Args and errors as in :meth:`linear`.

        Example:
            >>> import diffuse_fast as df
            >>> df.Schedule.scaled_linear(3, beta_start=0.01, beta_end=0.09).betas.round(6).tolist()
            [0.01, 0.04, 0.09]
        """
        return cls._of_range("scaled_linear", _core.scaled_linear_betas, num_train_timesteps, beta_start, beta_end)

    @classmethod
    def quadratic(cls, num_train_timesteps: int = 1000, beta_start: float = 1e-4, beta_end: float = 0.02) -> Schedule:
        """The curve of :meth:`scaled_linear` over the range of :meth:`linear`: ``beta_schedule="quad"`` of the code
        of Ho et al. 2020.

        Args and errors as in :meth:`linear`.

        Example:
            >>> import diffuse_fast as df
            >>> df.Schedule.quadratic() == df.Schedule.scaled_linear(1000, 1e-4, 0.02)
            True
        """
        return cls._of_range("quadratic", _core.scaled_linear_betas, num_train_timesteps, beta_start, beta_end)

    @classmethod
    def sigmoid(cls, num_train_timesteps: int = 1000, beta_start: float = 1e-4, beta_end: float = 0.02) -> Schedule:
        """``betas = beta_start + (beta_end − beta_start)·sigmoid(u)`` with ``u`` evenly from −6 to 6 (the code of Xu
        et al. 2022, "GeoDiff").

        Args and errors as in :meth:`linear`.

        Example:
            >>> import diffuse_fast as df
            >>> df.Schedule.sigmoid(3, beta_start=0.1, beta_end=0.3).betas.round(4).tolist()
            [0.1005, 0.2, 0.2995]
        """
        return cls._of_range("sigmoid", _core.sigmoid_betas, num_train_timesteps, beta_start, beta_end)

    @classmethod
    def cosine(cls, num_train_timesteps: int = 1000, s: float = 0.008, max_beta: float = 0.999) -> Schedule:
        """``alphas_cumprod[t] ∝ cos²((u + s)/(1 + s)·π/2)`` with ``u = (t + 1)/T``, each beta at most ``max_beta``
        (Nichol & Dhariwal 2021, "Improved Denoising Diffusion Probabilistic Models", eq. 17; diffusers'
        ``squaredcos_cap_v2``).

        Args:
            num_train_timesteps: Number of timesteps T, 1 to 1,000,000.
            s: Offset that keeps the first betas from vanishing, not negative.
            max_beta: Upper bound of the betas, above 0 and at most 1 (1 leaves zero terminal SNR).

        Raises:
            ArgumentError: a value is out of range.
            ArgumentTypeError: a value is not a number.

        Example:
            >>> import diffuse_fast as df
            >>> float(df.Schedule.cosine().betas[-1])
            0.999
        """
        document: dict[str, Any] = {
            "type": "cosine",
            "num_train_timesteps": _whole("num_train_timesteps", num_train_timesteps),
            "s": _number("s", s),
            "max_beta": _number("max_beta", max_beta),
        }
        betas = _core.cosine_betas(document["num_train_timesteps"], document["s"], document["max_beta"])
        return cls._make(_core.Schedule.from_betas(betas), document)

    @classmethod
    def from_betas(cls, betas: Any) -> Schedule:
        """A schedule from its betas.

        Args:
            betas: Array-like ``(T,)``, each between 0 and 1; the last may be 1 (zero terminal SNR).

        Raises:
            ArgumentError: a value is out of range (the message says which), or the array has another shape.

        Example:
            >>> import diffuse_fast as df
            >>> df.Schedule.from_betas([0.5, 0.5]).alphas_cumprod.round(6).tolist()
            [0.5, 0.25]
        """
        values = _table("betas", betas)
        return cls._make(_core.Schedule.from_betas(values), {"type": "from_betas", "betas": values.tolist()})

    @classmethod
    def from_alphas_cumprod(cls, alphas_cumprod: Any) -> Schedule:
        """A schedule from ``alphas_cumprod`` = alpha², the cumulative product of 1 − betas.

        Args:
            alphas_cumprod: Array-like ``(T,)``, strictly falling from below 1, above 0; the last may be 0 (zero
                terminal SNR).

        Raises:
            ArgumentError: a value is out of range or does not fall (the message says which), or the array has
                another shape.

        Example:
            >>> import diffuse_fast as df
            >>> df.Schedule.from_alphas_cumprod([0.5, 0.25]).betas.round(6).tolist()
            [0.5, 0.5]
        """
        values = _table("alphas_cumprod", alphas_cumprod)
        core = _core.Schedule.from_alphas_cumprod(values)
        return cls._make(core, {"type": "from_alphas_cumprod", "alphas_cumprod": values.tolist()})

    def rescale_zero_terminal_snr(self) -> Schedule:
        """This schedule with ``alpha`` shifted and scaled so that the last is 0 and the first stays (Lin et al.
        2023, "Common Diffusion Noise Schedules and Sample Steps are Flawed", Algorithm 1; diffusers'
        ``rescale_betas_zero_snr``).

        At the last timestep nothing of the data is left, so a network that predicts epsilon cannot start there.
        ``log(alpha)`` is −inf there, and linear interpolation makes it −inf at every t above ``num_train_timesteps −
        2`` too.

        Raises:
            ArgumentError: the schedule has a single timestep.

        Example:
            >>> import diffuse_fast as df
            >>> df.Schedule.scaled_linear().rescale_zero_terminal_snr().alpha(999)
            0.0
        """
        return self._make(self._tables.rescaled_zero_terminal_snr(), {**self._document, _ZERO_SNR: True})

    @classmethod
    def _of_range(cls, kind: str, betas: Any, num_train_timesteps: int, beta_start: float, beta_end: float) -> Schedule:
        document = {
            "type": kind,
            "num_train_timesteps": _whole("num_train_timesteps", num_train_timesteps),
            "beta_start": _number("beta_start", beta_start),
            "beta_end": _number("beta_end", beta_end),
        }
        core = _core.Schedule.from_betas(
            betas(document["num_train_timesteps"], document["beta_start"], document["beta_end"])
        )
        return cls._make(core, document)

    # ---- tables over the integer timesteps ------------------------------------------------------

    @property
    def num_train_timesteps(self) -> int:
        """Number of timesteps T; they are numbered 0 to T − 1."""
        return self._tables.num_train_timesteps

    @cached_property
    def betas(self) -> np.ndarray:
        """Variance added by each step of the forward process."""
        return _read_only(self._tables.betas)

    @cached_property
    def alphas(self) -> np.ndarray:
        """1 − betas."""
        return _read_only(self._tables.alphas)

    @cached_property
    def alphas_cumprod(self) -> np.ndarray:
        """Cumulative product of ``alphas``: alpha²."""
        return _read_only(self._tables.alphas_cumprod)

    @cached_property
    def alphas_cumprod_prev(self) -> np.ndarray:
        """``alphas_cumprod`` one timestep earlier, 1 at the first."""
        return _read_only(self._tables.alphas_cumprod_prev)

    @cached_property
    def snr(self) -> np.ndarray:
        """Signal-to-noise ratio alpha²/sigma² (Kingma et al. 2021, eq. 3)."""
        return _read_only(self._tables.snr)

    @cached_property
    def posterior_mean_coef_x0(self) -> np.ndarray:
        """Weight of x0 in the mean of q(x_{t−1} | x_t, x0) (Ho et al. 2020, eq. 7)."""
        return _read_only(self._tables.posterior_mean_coef_x0)

    @cached_property
    def posterior_mean_coef_xt(self) -> np.ndarray:
        """Weight of x_t in the mean of q(x_{t−1} | x_t, x0) (Ho et al. 2020, eq. 7)."""
        return _read_only(self._tables.posterior_mean_coef_xt)

    @cached_property
    def posterior_variance(self) -> np.ndarray:
        """Variance of q(x_{t−1} | x_t, x0) (Ho et al. 2020, eq. 7); 0 at the first timestep."""
        return _read_only(self._tables.posterior_variance)

    # ---- marginals at fractional timesteps ------------------------------------------------------

    def alpha(self, t: Any) -> Any:
        """Weight of the data at timestep t.

        Args:
            t: A number or array of timesteps in [0, T − 1], fractional allowed.

        Returns:
            A float, or a float64 array of the shape of ``t``.

        Raises:
            ArgumentError: a timestep is out of range.
            ArgumentTypeError: ``t`` is not numeric.

        Example:
            >>> import diffuse_fast as df
            >>> s = df.Schedule.linear()
            >>> bool(abs(s.alpha(3.5) ** 2 - s.alpha(3) * s.alpha(4)) < 1e-15)
            True
        """
        return self._tables.alpha(_numeric("t", t))

    def log_alpha(self, t: Any) -> Any:
        """log(alpha) at timestep t, linear between integers; −inf where alpha is 0. Ratios of alpha close to 1 are
        taken from it without loss. As :meth:`alpha`.

        Example:
            >>> import diffuse_fast as df
            >>> s = df.Schedule.from_betas([1e-20, 1e-20])
            >>> s.alpha(0), s.log_alpha(0)
            (1.0, -5e-21)
        """
        return self._tables.log_alpha(_numeric("t", t))

    def sigma(self, t: Any) -> Any:
        """Standard deviation of the noise at timestep t, with full relative accuracy near t = 0. As :meth:`alpha`.

        Example:
            >>> import diffuse_fast as df
            >>> round(df.Schedule.linear(beta_start=1e-4).sigma(0), 12)
            0.01
        """
        return self._tables.sigma(_numeric("t", t))

    def log_snr(self, t: Any) -> Any:
        """log(alpha²/sigma²) at timestep t, −inf where alpha is 0 (λ of Kingma et al. 2021, twice the λ of Lu et al.
        2022). As :meth:`alpha`.

        Example:
            >>> import diffuse_fast as df
            >>> round(df.Schedule.from_betas([0.2, 0.5]).log_snr(0), 6)  # log(0.8/0.2)
            1.386294
        """
        return self._tables.log_snr(_numeric("t", t))

    def timestep_at_log_snr(self, log_snr: Any) -> Any:
        """The inverse of :meth:`log_snr`: the fractional timestep that has this log-SNR.

        Args:
            log_snr: A number or array within what the schedule covers.

        Returns:
            A float, or a float64 array of the shape of ``log_snr``.

        Raises:
            ArgumentError: the schedule does not reach the value; the message says its range.
            ArgumentTypeError: ``log_snr`` is not numeric.

        Example:
            >>> import diffuse_fast as df
            >>> s = df.Schedule.cosine()
            >>> round(s.timestep_at_log_snr(s.log_snr(123.25)), 9)
            123.25
        """
        return self._tables.timestep_at_log_snr(_numeric("log_snr", log_snr))

    # ---- JSON, equality -------------------------------------------------------------------------

    def to_json(self) -> dict[str, Any]:
        """The schedule as a JSON-ready dict: its ``type``, and the arguments that made it.

        Example:
            >>> import diffuse_fast as df
            >>> df.Schedule.linear().to_json()
            {'type': 'linear', 'num_train_timesteps': 1000, 'beta_start': 0.0001, 'beta_end': 0.02}
        """
        return {name: list(value) if isinstance(value, list) else value for name, value in self._document.items()}

    @classmethod
    def from_json(cls, document: Any) -> Schedule:
        """A schedule from :meth:`to_json`.

        Raises:
            ArgumentError: not a dict, an unknown type, a field that is missing, unknown or out of range.
            ArgumentTypeError: a field of the wrong type.
        """
        if not isinstance(document, dict):
            raise ArgumentError(f"a schedule's JSON must be an object, not {type(document).__name__}.")
        fields = dict(document)
        if "type" not in fields:
            raise ArgumentError(f"the schedule's JSON lacks the field 'type', one of {', '.join(_TYPES)}.")
        kind = fields.pop("type")
        if kind not in _TYPES:
            raise ArgumentError(f"schedule type {kind!r} is not known.{near(str(kind), _TYPES)}")
        rescale = fields.pop(_ZERO_SNR, False)
        if not isinstance(rescale, bool):
            raise ArgumentTypeError(f"the schedule's field {_ZERO_SNR!r} is {rescale!r}; it must be true or false.")
        make = getattr(cls, kind)
        expected = tuple(inspect.signature(make).parameters)
        if missing := [name for name in expected if name not in fields]:
            raise ArgumentError(f"the schedule's JSON (type {kind!r}) lacks the field {missing[0]!r}.")
        if extra := sorted(set(fields) - set(expected)):
            raise ArgumentError(
                f"the schedule's JSON (type {kind!r}) has the unknown field {extra[0]!r}; it has {', '.join(expected)}."
            )
        schedule: Schedule = make(**fields)
        return schedule.rescale_zero_terminal_snr() if rescale else schedule

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Schedule):
            return NotImplemented
        return np.array_equal(self.betas, other.betas) and np.array_equal(self.alphas_cumprod, other.alphas_cumprod)

    def __hash__(self) -> int:
        return hash(self.alphas_cumprod.tobytes())

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"a Schedule is immutable: {name!r} cannot be set.")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"a Schedule is immutable: {name!r} cannot be deleted.")

    def __reduce__(self) -> tuple[Any, ...]:
        return (Schedule.from_json, (self.to_json(),))

    def __repr__(self) -> str:
        fields = {k: v for k, v in self._document.items() if k not in ("type", _ZERO_SNR)}
        inside = ", ".join(f"{k}=<{len(v)} values>" if isinstance(v, list) else f"{k}={v!r}" for k, v in fields.items())
        tail = f".{_ZERO_SNR}()" if _ZERO_SNR in self._document else ""
        return f"Schedule.{self._document['type']}({inside}){tail}"


def _read_only(values: np.ndarray) -> np.ndarray:
    values.flags.writeable = False
    return values


def _whole(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise ArgumentTypeError(f"{name} is {value!r}; it must be a whole number.")
    whole = int(value)
    if abs(whole) >= 2**63:  # the core takes 64 bits, and says the range itself
        raise ArgumentError(f"{name} is {value!r}; that is out of any range.")
    return whole


def _number(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
        raise ArgumentTypeError(f"{name} is {value!r}; it must be a number.")
    try:
        return float(value)
    except OverflowError:
        return math.inf


def _numeric(name: str, value: Any) -> np.ndarray:
    try:
        array = np.asarray(value)
        if array.dtype.kind not in "iuf":
            raise TypeError
        return array.astype(np.float64, copy=False)
    except (TypeError, ValueError):
        raise ArgumentTypeError(f"{name} is {value!r}; it must be a number or an array of numbers.") from None


def _table(name: str, value: Any) -> np.ndarray:
    array = _numeric(name, value)
    if array.ndim != 1 or array.size == 0:
        raise ArgumentError(f"{name} has shape {array.shape}; it must be a sequence of at least one number.")
    return array
