"""What every schedule has, and the ways to make one."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from ..errors import ArgumentError, ArgumentTypeError, suggest
from .checks import numeric, plain

if TYPE_CHECKING:
    from .discrete import DiscreteSchedule
    from .edm import EDMSchedule
    from .flow import FlowSchedule
    from .learned import LearnedSchedule
    from .sde import SubVPSchedule, VESchedule, VPSchedule

DISCRETE = ("linear", "scaled_linear", "cosine", "quadratic", "sigmoid", "from_betas", "from_alphas_cumprod")
CONTINUOUS = ("edm", "flow", "vp_sde", "sub_vp_sde", "ve_sde", "learned")
TYPES = (*DISCRETE, *CONTINUOUS)
FAMILIES = ("discrete", *CONTINUOUS)
# What may have been done to a discrete schedule after it was made: fields of its JSON.
ZERO_SNR = "rescale_zero_terminal_snr"
INTERPOLATION = "interpolation"


class Schedule:
    """A noise schedule: immutable, hashable, equal by content, safe to share between threads.

    Made by one of its class methods (:meth:`linear`, :meth:`scaled_linear`, :meth:`cosine`, :meth:`quadratic`,
    :meth:`sigmoid`, :meth:`from_betas`, :meth:`from_alphas_cumprod`, :meth:`edm`, :meth:`flow`, :meth:`vp_sde`,
    :meth:`sub_vp_sde`, :meth:`ve_sde`, :meth:`learned`, :meth:`from_json`). Each family adds what only it has: the tables of a
    discrete one, EDM's preconditioning, the drift of an SDE.

    Attributes:
        family: ``discrete``, ``edm``, ``flow``, ``vp_sde``, ``sub_vp_sde``, ``ve_sde`` or ``learned``.
        prediction_types: What a network trained on it can predict.
        time_conventions: What a network can be told of the time (:meth:`network_time`); the first is the default.
        timestep_spacing: The default time grid; None leaves it to the solver.
        t_min, t_max: Between these times sampling calls the network, unless it is told otherwise.
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

    # ---- the schedules of the field -------------------------------------------------------------

    @classmethod
    def linear(cls, num_train_timesteps: int = 1000, beta_start: float = 1e-4, beta_end: float = 0.02) -> DiscreteSchedule:
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
        from . import discrete

        return discrete.of_range("linear", num_train_timesteps, beta_start, beta_end)

    @classmethod
    def scaled_linear(
        cls, num_train_timesteps: int = 1000, beta_start: float = 0.00085, beta_end: float = 0.012
    ) -> DiscreteSchedule:
        """``sqrt(betas)`` evenly from ``sqrt(beta_start)`` to ``sqrt(beta_end)``: the schedule of latent diffusion
        (the code of Rombach et al. 2022, "High-Resolution Image Synthesis with Latent Diffusion Models").

        Args and errors as in :meth:`linear`.

        Example:
            >>> import diffuse_fast as df
            >>> df.Schedule.scaled_linear(3, beta_start=0.01, beta_end=0.09).betas.round(6).tolist()
            [0.01, 0.04, 0.09]
        """
        from . import discrete

        return discrete.of_range("scaled_linear", num_train_timesteps, beta_start, beta_end)

    @classmethod
    def quadratic(cls, num_train_timesteps: int = 1000, beta_start: float = 1e-4, beta_end: float = 0.02) -> DiscreteSchedule:
        """The curve of :meth:`scaled_linear` over the range of :meth:`linear`: ``beta_schedule="quad"`` of the code
        of Ho et al. 2020.

        Args and errors as in :meth:`linear`.

        Example:
            >>> import diffuse_fast as df
            >>> df.Schedule.quadratic() == df.Schedule.scaled_linear(1000, 1e-4, 0.02)
            True
        """
        from . import discrete

        return discrete.of_range("quadratic", num_train_timesteps, beta_start, beta_end)

    @classmethod
    def sigmoid(cls, num_train_timesteps: int = 1000, beta_start: float = 1e-4, beta_end: float = 0.02) -> DiscreteSchedule:
        """``betas = beta_start + (beta_end − beta_start)·sigmoid(u)`` with ``u`` evenly from −6 to 6 (the code of Xu
        et al. 2022, "GeoDiff").

        Args and errors as in :meth:`linear`.

        Example:
            >>> import diffuse_fast as df
            >>> df.Schedule.sigmoid(3, beta_start=0.1, beta_end=0.3).betas.round(4).tolist()
            [0.1005, 0.2, 0.2995]
        """
        from . import discrete

        return discrete.of_range("sigmoid", num_train_timesteps, beta_start, beta_end)

    @classmethod
    def cosine(cls, num_train_timesteps: int = 1000, s: float = 0.008, max_beta: float = 0.999) -> DiscreteSchedule:
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
        from . import discrete

        return discrete.of_cosine(num_train_timesteps, s, max_beta)

    @classmethod
    def from_betas(cls, betas: Any) -> DiscreteSchedule:
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
        from . import discrete

        return discrete.of_betas(betas)

    @classmethod
    def from_alphas_cumprod(cls, alphas_cumprod: Any) -> DiscreteSchedule:
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
        from . import discrete

        return discrete.of_alphas_cumprod(alphas_cumprod)

    @classmethod
    def edm(cls, sigma_min: float = 0.002, sigma_max: float = 80.0, sigma_data: float = 0.5, rho: float = 7.0) -> EDMSchedule:
        """EDM (Karras et al. 2022, "Elucidating the Design Space of Diffusion-Based Generative Models",
        arXiv:2206.00364): t is the noise level σ of x = x0 + σ·ε, and the state is what the network takes, c_in·x.

        Args:
            sigma_min, sigma_max: Noise levels between which sampling calls the network. Marginals are defined at every σ.
            sigma_data: Standard deviation of the data, which the preconditioning assumes.
            rho: Exponent of the default grid, ``karras``.

        Raises:
            ArgumentError: a value is not positive and finite, or sigma_min is not below sigma_max.
            ArgumentTypeError: a value is not a number.

        Example:
            >>> import diffuse_fast as df
            >>> schedule = df.Schedule.edm(sigma_data=1.0)
            >>> schedule.log_snr(1.0) == 0.0, round(schedule.alpha(1.0) ** 2, 12)
            (True, 0.5)
        """
        from . import edm

        return edm.of(sigma_min, sigma_max, sigma_data, rho)

    @classmethod
    def flow(cls, num_train_timesteps: int = 1000, shift: float = 1.0) -> FlowSchedule:
        """Rectified flow and flow matching with straight paths: x_t = (1 − σ)·x0 + σ·ε with σ = t/num_train_timesteps
        (Liu et al. 2022, arXiv:2209.03003; Lipman et al. 2023, arXiv:2210.02747).

        Args:
            num_train_timesteps: What the network is told at σ = 1; 1 to 1,000,000.
            shift: Moves the default grid to noise, σ → shift·σ/(1 + (shift − 1)·σ) (Esser et al. 2024,
                arXiv:2403.03206, eq. 23). It changes the grids, not the marginals. The default grid (``linspace``) is that of
                diffusers and of Stable Diffusion 3: even from σ = 1 to the shifted 1/num_train_timesteps, and then shifted. So
                its last level is shifted twice, the others once; ``trailing`` shifts every level once, as Flux does.

        Raises:
            ArgumentError: a value is out of range.
            ArgumentTypeError: a value is not a number.

        Example:
            >>> import diffuse_fast as df
            >>> schedule = df.Schedule.flow()
            >>> schedule.alpha(250), schedule.sigma(250)
            (0.75, 0.25)
        """
        from . import flow

        return flow.of(num_train_timesteps, shift)

    @classmethod
    def vp_sde(cls, beta_min: float = 0.1, beta_max: float = 20.0, sampling_eps: float = 1e-3) -> VPSchedule:
        """The variance-preserving SDE dx = −β(t)/2·x dt + sqrt(β(t)) dw, β(t) = beta_min + t·(beta_max − beta_min), t from
        0 to 1 (Song et al. 2021, "Score-Based Generative Modeling through Stochastic Differential Equations",
        arXiv:2011.13456, eq. 32 and 33).

        Args:
            beta_min, beta_max: Ends of β; beta_min may be 0.
            sampling_eps: Where sampling stops, above 0 and below 1.

        Raises:
            ArgumentError: a value is out of range.
            ArgumentTypeError: a value is not a number.

        Example:
            >>> import diffuse_fast as df
            >>> round(df.Schedule.vp_sde().log_alpha(1.0), 6)
            -5.025
        """
        from . import sde

        return sde.of_vp(beta_min, beta_max, sampling_eps)

    @classmethod
    def sub_vp_sde(cls, beta_min: float = 0.1, beta_max: float = 20.0, sampling_eps: float = 1e-3) -> SubVPSchedule:
        """The sub-VP SDE, with the alpha of :meth:`vp_sde` and sigma = 1 − alpha² (Song et al. 2021, eq. 28 and 29).

        Args and errors as in :meth:`vp_sde`.

        Example:
            >>> import diffuse_fast as df
            >>> schedule = df.Schedule.sub_vp_sde()
            >>> round(schedule.alpha(0.5) ** 2 + schedule.sigma(0.5), 12)
            1.0
        """
        from . import sde

        return sde.of_sub_vp(beta_min, beta_max, sampling_eps)

    @classmethod
    def ve_sde(cls, sigma_min: float = 0.01, sigma_max: float = 50.0, sampling_eps: float = 1e-5) -> VESchedule:
        """The variance-exploding SDE: x_t = x0 + sigma(t)·ε with sigma(t) = sigma_min·(sigma_max/sigma_min)^t, t from 0 to 1
        (Song et al. 2021, eq. 30 and 31).

        Args:
            sigma_min, sigma_max: Noise levels at t = 0 and t = 1.
            sampling_eps: Where sampling stops, above 0 and below 1.

        Raises:
            ArgumentError: a value is out of range.
            ArgumentTypeError: a value is not a number.

        Example:
            >>> import diffuse_fast as df
            >>> df.Schedule.ve_sde(0.01, 100).sigma(0.5)
            1.0
        """
        from . import sde

        return sde.of_ve(sigma_min, sigma_max, sampling_eps)

    @classmethod
    def learned(cls, log_snr: Any) -> LearnedSchedule:
        """A schedule that was learned with its network (Kingma et al. 2021, "Variational Diffusion Models", arXiv:2107.00630,
        section 4), as a table: t goes from 0 to 1, and the log-SNR is linear between the table's values.
        :class:`diffuse_fast.training.LogSNRNetwork` is what is trained, and makes it.

        Args:
            log_snr: Array-like (K,), log(alpha²/sigma²) = −γ at K even times from 0 to 1, strictly falling.

        Raises:
            ArgumentError: a value is not finite or does not fall (the message says which), or the array has another shape.
            ArgumentTypeError: values that are no numbers.

        Example:
            >>> import diffuse_fast as df
            >>> schedule = df.Schedule.learned([6.0, 0.0, -10.0])
            >>> schedule.log_snr(0.25), schedule.timestep_at_log_snr(-5.0)
            (3.0, 0.75)
        """
        from . import learned

        return learned.of(log_snr)

    @classmethod
    def from_diffusers(cls, scheduler: Any, *, mu: float | None = None) -> Schedule:
        """The noise schedule of a diffusers scheduler. diffusers itself is not needed.

        Args:
            scheduler: A scheduler, or its configuration as a dict with the name of the class under ``_class_name``, as
                ``scheduler_config.json`` has it. ``diffuse_fast/interop.py`` lists the classes and their options.
            mu: What the pipeline makes of the sample's size, where the configuration has ``use_dynamic_shifting``.

        Raises:
            ArgumentError: the class has no counterpart here, or an option is not honoured; the message names it.
            ArgumentTypeError: neither a scheduler nor a dict.

        Example:
            >>> import diffuse_fast as df
            >>> config = {"_class_name": "DDIMScheduler", "beta_schedule": "squaredcos_cap_v2"}
            >>> df.Schedule.from_diffusers(config) == df.Schedule.cosine()
            True
        """
        from ..interop import schedule_from_diffusers

        return schedule_from_diffusers(scheduler, mu=mu)

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
        return plain(self._alpha(self._times(t)))

    def log_alpha(self, t: Any) -> Any:
        """log(alpha) at time t; −inf where alpha is 0. Ratios of alpha close to 1 are
        taken from it without loss. As :meth:`alpha`.

        Example:
            >>> import diffuse_fast as df
            >>> s = df.Schedule.from_betas([1e-20, 1e-20])
            >>> s.alpha(0), s.log_alpha(0)
            (1.0, -5e-21)
        """
        return plain(self._log_alpha(self._times(t)))

    def sigma(self, t: Any) -> Any:
        """Standard deviation of the noise in the state at time t, with full relative accuracy where it is small. As :meth:`alpha`.

        Example:
            >>> import diffuse_fast as df
            >>> round(df.Schedule.linear(beta_start=1e-4).sigma(0), 12)
            0.01
        """
        return plain(self._sigma(self._times(t)))

    def log_snr(self, t: Any) -> Any:
        """log(alpha²/sigma²) at time t, −inf where alpha is 0 and inf where sigma is (λ of Kingma et al. 2021, twice the λ of
        Lu et al. 2022). As :meth:`alpha`.

        Example:
            >>> import diffuse_fast as df
            >>> round(df.Schedule.from_betas([0.2, 0.5]).log_snr(0), 6)  # log(0.8/0.2)
            1.386294
        """
        return plain(self._log_snr(self._times(t)))

    def timestep_at_log_snr(self, log_snr: Any) -> Any:
        """The inverse of :meth:`log_snr`: the time that has this log-SNR.

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
        return plain(self._timestep_at_log_snr(numeric("log_snr", log_snr)))

    def noise_level(self, t: Any) -> Any:
        """The noise level σ at time t as diffusers and k-diffusion count it: sigma/alpha, the noise on data of weight 1; in a
        flow, sigma. What ``sigmas=`` and the spacings over noise levels mean. As :meth:`alpha`.

        Example:
            >>> import diffuse_fast as df
            >>> df.Schedule.edm().noise_level(2.5), df.Schedule.flow().noise_level(250)
            (2.5, 0.25)
        """
        return plain(self._noise_level(self._times(t)))

    def timestep_at_noise_level(self, sigma: Any) -> Any:
        """The inverse of :meth:`noise_level`.

        Args:
            sigma: A number or array of noise levels above 0, within what the schedule covers.

        Raises:
            ArgumentError: the schedule does not reach the value; the message says its range.
            ArgumentTypeError: ``sigma`` is not numeric.

        Example:
            >>> import diffuse_fast as df
            >>> round(df.Schedule.ve_sde(0.01, 100).timestep_at_noise_level(1.0), 12)
            0.5
        """
        values = numeric("sigma", sigma)
        if not np.all(values > 0.0):
            raise ArgumentError(f"a noise level is {float(np.min(values))!r}; it must be above 0.")
        return plain(self._timestep_at_noise_level(values))

    def marginal_at_log_snr(self, log_snr: float) -> tuple[float, float, float]:
        """``(log(alpha), alpha, sigma)`` where the log-SNR has this value, without the rounding of a time in between.

        Example:
            >>> import diffuse_fast as df
            >>> df.Schedule.flow().marginal_at_log_snr(0.0)[1:]
            (0.5, 0.5)
        """
        t = self.timestep_at_log_snr(log_snr)
        return self.log_alpha(t), self.alpha(t), self.sigma(t)

    # ---- what a network is told -----------------------------------------------------------------

    def network_time(self, t: Any, convention: str | None = None) -> Any:
        """What a network of this convention is told at time t.

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
                f"the time convention is {convention!r}; a network of a schedule of the family {self.family} is told one of "
                f"{', '.join(self.time_conventions)}."
            )
        if convention == "log_snr":
            return self.log_snr(t)
        if convention == "sigma":
            return self.noise_level(t)
        if convention == "c_noise":
            with np.errstate(divide="ignore"):
                return plain(np.log(numeric("t", self.noise_level(t))) / 4.0)
        return plain(self._continuous(self._times(t)) if convention == "continuous" else self._times(t) + 0.0)

    # ---- what a family defines ------------------------------------------------------------------

    def _times(self, t: Any) -> np.ndarray:
        """Times, checked for their range, float64."""
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
            raise ArgumentError(f"the schedule's JSON lacks the field 'type', one of {', '.join(TYPES)}.")
        kind = fields.pop("type")
        if kind not in TYPES:
            raise ArgumentError(f"schedule type {kind!r} is not known.{suggest(str(kind), TYPES)}")
        rescale = fields.pop(ZERO_SNR, False) if kind in DISCRETE else False
        if not isinstance(rescale, bool):
            raise ArgumentTypeError(f"the schedule's field {ZERO_SNR!r} is {rescale!r}; it must be true or false.")
        interpolation = fields.pop(INTERPOLATION, None) if kind in DISCRETE else None
        make = getattr(cls, kind)
        expected = tuple(inspect.signature(make).parameters)
        if missing := [name for name in expected if name not in fields]:
            raise ArgumentError(f"the schedule's JSON (type {kind!r}) lacks the field {missing[0]!r}.")
        if extra := sorted(set(fields) - set(expected)):
            raise ArgumentError(
                f"the schedule's JSON (type {kind!r}) has the unknown field {extra[0]!r}; it has {', '.join(expected)}."
            )
        schedule = make(**fields)
        if rescale:
            schedule = schedule.rescale_zero_terminal_snr()
        return schedule if interpolation is None else schedule.with_interpolation(interpolation)

    def same_marginals(self, other: Schedule) -> bool:
        """Whether a network that was trained on this schedule is one of the other: the marginals are the same; the default grids
        and what is between the timesteps of a discrete one may differ.

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
