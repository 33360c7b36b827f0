"""The interface of all noise schedules."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from ..checks import to_float64, unwrap_scalar
from ..errors import ArgumentError, ArgumentTypeError
from .factories import ScheduleFactories
from .serialization import from_json
from .types import INTERPOLATION, TYPES, ZERO_SNR


class Schedule(ScheduleFactories):
    """A noise schedule: immutable, hashable, equal by content, safe to share between threads.

    Made by one of its class methods (:meth:`linear`, :meth:`scaled_linear`, :meth:`cosine`, :meth:`quadratic`,
    :meth:`sigmoid`, :meth:`from_betas`, :meth:`from_alphas_cumprod`, :meth:`edm`, :meth:`flow`, :meth:`vp_sde`,
    :meth:`sub_vp_sde`, :meth:`ve_sde`, :meth:`learned`, :meth:`from_json`). Families add their own attributes: the tables of a
    discrete schedule, EDM's preconditioning, the drift of an SDE.

    Attributes:
        family: ``discrete``, ``edm``, ``flow``, ``vp_sde``, ``sub_vp_sde``, ``ve_sde`` or ``learned``.
        prediction_types: What a network trained on it can predict.
        time_conventions: The forms in which a network can take the time (:meth:`network_time`); the first is the default.
        timestep_spacing: The default time grid; None means the solver's.
        t_min, t_max: The default range of times at which sampling calls the network.
        sigma_data: Standard deviation of the data that the prediction types assume; 1 except in EDM.

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

    family: ClassVar[str]
    prediction_types: ClassVar[tuple[str, ...]]
    time_conventions: ClassVar[tuple[str, ...]]
    timestep_spacing: ClassVar[str | None]
    t_min: float
    t_max: float
    sigma_data: float = 1.0
    _document: dict[str, Any]

    def __init__(self) -> None:
        raise ArgumentTypeError(f"a Schedule is made by one of its class methods: {', '.join(TYPES)}, from_json.")

    @classmethod
    def _make(cls, document: dict[str, Any], **attributes: Any) -> Any:
        self = object.__new__(cls)
        self.__dict__.update(attributes, _document=document)
        return self

    # ---- marginals ------------------------------------------------------

    def alpha(self, t: Any) -> Any:
        """Weight of the data in the state at time t.

        Args:
            t: A number or array of times, fractional allowed.

        Returns:
            A float, or a float64 array of the shape of ``t``.

        Raises:
            ArgumentError: a time is out of range.
            ArgumentTypeError: ``t`` is not numeric.

        Example:
            >>> import diffuse_fast as df
            >>> s = df.Schedule.linear()
            >>> bool(abs(s.alpha(3.5) ** 2 - s.alpha(3) * s.alpha(4)) < 1e-15)
            True
        """
        return unwrap_scalar(self._alpha(self._times(t)))

    def log_alpha(self, t: Any) -> Any:
        """log(alpha) at time t; −inf where alpha is 0. Accurate also for alpha close to 1. Arguments as for :meth:`alpha`.

        Example:
            >>> import diffuse_fast as df
            >>> s = df.Schedule.from_betas([1e-20, 1e-20])
            >>> s.alpha(0), s.log_alpha(0)
            (1.0, -5e-21)
        """
        return unwrap_scalar(self._log_alpha(self._times(t)))

    def sigma(self, t: Any) -> Any:
        """Standard deviation of the noise in the state at time t, with full relative accuracy where it is small. Arguments as for
        :meth:`alpha`.

        Example:
            >>> import diffuse_fast as df
            >>> round(df.Schedule.linear(beta_start=1e-4).sigma(0), 12)
            0.01
        """
        return unwrap_scalar(self._sigma(self._times(t)))

    def log_snr(self, t: Any) -> Any:
        """log(alpha²/sigma²) at time t, −inf where alpha is 0 and inf where sigma is (λ of Kingma et al. 2021, twice the λ of
        Lu et al. 2022). Arguments as for :meth:`alpha`.

        Example:
            >>> import diffuse_fast as df
            >>> round(df.Schedule.from_betas([0.2, 0.5]).log_snr(0), 6)  # log(0.8/0.2)
            1.386294
        """
        return unwrap_scalar(self._log_snr(self._times(t)))

    def timestep_at_log_snr(self, log_snr: Any) -> Any:
        """The inverse of :meth:`log_snr`: the time that has this log-SNR.

        Args:
            log_snr: A number or array within the range of the schedule.

        Returns:
            A float, or a float64 array of the shape of ``log_snr``.

        Raises:
            ArgumentError: a value is outside the range of the schedule, which the message names.
            ArgumentTypeError: ``log_snr`` is not numeric.

        Example:
            >>> import diffuse_fast as df
            >>> s = df.Schedule.cosine()
            >>> round(s.timestep_at_log_snr(s.log_snr(123.25)), 9)
            123.25
        """
        return unwrap_scalar(self._timestep_at_log_snr(to_float64("log_snr", log_snr)))

    def noise_level(self, t: Any) -> Any:
        """The noise level σ at time t, as in diffusers and k-diffusion: sigma/alpha, the noise on data of weight 1; in a flow,
        sigma. ``sigmas=`` and the spacings over noise levels use it. Arguments as for :meth:`alpha`.

        Example:
            >>> import diffuse_fast as df
            >>> df.Schedule.edm().noise_level(2.5), df.Schedule.flow().noise_level(250)
            (2.5, 0.25)
        """
        return unwrap_scalar(self._noise_level(self._times(t)))

    def timestep_at_noise_level(self, sigma: Any) -> Any:
        """The inverse of :meth:`noise_level`.

        Args:
            sigma: A number or array of noise levels above 0, within the range of the schedule.

        Raises:
            ArgumentError: a value is outside the range of the schedule, which the message names.
            ArgumentTypeError: ``sigma`` is not numeric.

        Example:
            >>> import diffuse_fast as df
            >>> round(df.Schedule.ve_sde(0.01, 100).timestep_at_noise_level(1.0), 12)
            0.5
        """
        values = to_float64("sigma", sigma)
        if not np.all(values > 0.0):
            raise ArgumentError(f"a noise level is {float(np.min(values))!r}; it must be above 0.")
        return unwrap_scalar(self._timestep_at_noise_level(values))

    def marginal_at_log_snr(self, log_snr: float) -> tuple[float, float, float]:
        """``(log(alpha), alpha, sigma)`` at this log-SNR, without the rounding of a time in between.

        Example:
            >>> import diffuse_fast as df
            >>> df.Schedule.flow().marginal_at_log_snr(0.0)[1:]
            (0.5, 0.5)
        """
        t = self.timestep_at_log_snr(log_snr)
        return self.log_alpha(t), self.alpha(t), self.sigma(t)

    # ---- time as the network takes it -----------------------------------------------------------

    def network_time(self, t: Any, convention: str | None = None) -> Any:
        """The time input of a network of this convention at time t.

        Args:
            t: A number or array of times.
            convention: None is the first of ``time_conventions``.

                ==============  =================================================================================
                ``timestep``    the training timestep; in a flow σ·num_train_timesteps
                ``sigma``       the noise level (:meth:`noise_level`)
                ``c_noise``     log(σ)/4 (EDM, Table 1)
                ``continuous``  t of an SDE; σ of a flow; (timestep + 1)/num_train_timesteps of a discrete schedule
                ``log_snr``     log(alpha²/sigma²)
                ==============  =================================================================================

        Raises:
            ArgumentError: a time out of range, or a convention that the family does not have.

        Example:
            >>> import diffuse_fast as df
            >>> df.Schedule.edm().network_time(1.0), df.Schedule.edm().network_time(1.5, "sigma")
            (0.0, 1.5)
        """
        if convention is None:
            convention = self.time_conventions[0]
        if convention not in self.time_conventions:
            raise ArgumentError(
                f"the time convention is {convention!r}; with a schedule of the family {self.family} it must be one of "
                f"{', '.join(self.time_conventions)}."
            )
        if convention == "log_snr":
            return self.log_snr(t)
        if convention == "sigma":
            return self.noise_level(t)
        if convention == "c_noise":
            with np.errstate(divide="ignore"):
                return unwrap_scalar(np.log(to_float64("t", self.noise_level(t))) / 4.0)
        return unwrap_scalar(self._continuous(self._times(t)) if convention == "continuous" else self._times(t) + 0.0)

    # ---- to be defined by each family -----------------------------------------------------------

    def _times(self, t: Any) -> np.ndarray:
        """Times as float64, with their range checked."""
        raise NotImplementedError

    def _alpha(self, t: np.ndarray) -> np.ndarray:
        return np.exp(self._log_alpha(t))

    def _log_alpha(self, t: np.ndarray) -> np.ndarray:
        raise NotImplementedError

    def _sigma(self, t: np.ndarray) -> np.ndarray:
        raise NotImplementedError

    def _log_snr(self, t: np.ndarray) -> np.ndarray:
        raise NotImplementedError

    def _timestep_at_log_snr(self, log_snr: np.ndarray) -> np.ndarray:
        raise NotImplementedError

    def _noise_level(self, t: np.ndarray) -> np.ndarray:
        return np.exp(-0.5 * self._log_snr(t))

    def _timestep_at_noise_level(self, sigma: np.ndarray) -> np.ndarray:
        return self._timestep_at_log_snr(-2.0 * np.log(sigma))

    def _continuous(self, t: np.ndarray) -> np.ndarray:
        return t

    # ---- JSON, equality -------------------------------------------------------------------------

    def to_json(self) -> dict[str, Any]:
        """The schedule as a JSON-ready dict: its ``type``, and the arguments of that class method.

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
        return from_json(document, cls)

    def same_marginals(self, other: Schedule) -> bool:
        """Whether both schedules have the same marginals, so that a network trained on one fits the other. The default grids and
        the interpolation of a discrete schedule may differ.

        Example:
            >>> import diffuse_fast as df
            >>> df.Schedule.flow().same_marginals(df.Schedule.flow(shift=3.0))
            True
            >>> df.Schedule.linear().same_marginals(df.Schedule.cosine())
            False
        """
        if self.family != other.family:
            return False
        if self.family == "discrete":
            one, two = (np.asarray(s.alphas_cumprod) for s in (self, other))  # type: ignore[attr-defined]  # the family has it
            return one.shape == two.shape and bool(np.allclose(one, two, rtol=1e-6, atol=0.0))
        of_grid = {"flow": {"shift"}, "edm": {"sigma_min", "sigma_max", "rho"}}.get(self.family, {"sampling_eps"})
        mine, its = ({k: v for k, v in s._document.items() if k not in of_grid} for s in (self, other))
        return mine == its

    def __eq__(self, other: object) -> bool:
        return self._document == other._document if isinstance(other, Schedule) else NotImplemented

    def __hash__(self) -> int:
        return hash(tuple(self._document.items()))

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"a Schedule is immutable: {name!r} cannot be set.")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"a Schedule is immutable: {name!r} cannot be deleted.")

    def __reduce__(self) -> tuple[Any, ...]:
        return (Schedule.from_json, (self.to_json(),))

    def __repr__(self) -> str:
        fields = {k: v for k, v in self._document.items() if k not in ("type", ZERO_SNR, INTERPOLATION)}
        inside = ", ".join(f"{k}=<{len(v)} values>" if isinstance(v, list) else f"{k}={v!r}" for k, v in fields.items())
        tail = f".{ZERO_SNR}()" if ZERO_SNR in self._document else ""
        if INTERPOLATION in self._document:
            tail += f".with_interpolation({self._document[INTERPOLATION]!r})"
        return f"Schedule.{self._document['type']}({inside}){tail}"
