"""The class methods that make schedules."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .base import Schedule
    from .discrete import DiscreteSchedule
    from .edm import EDMSchedule
    from .flow import FlowSchedule
    from .learned import LearnedSchedule
    from .sde import SubVPSchedule, VESchedule, VPSchedule


class ScheduleFactories:
    """The schedules of the literature, by name. A family's module is imported when one of its schedules is made."""

    @classmethod
    def linear(cls, num_train_timesteps: int = 1000, beta_start: float = 1e-4, beta_end: float = 0.02) -> DiscreteSchedule:
        """``betas`` evenly spaced from ``beta_start`` to ``beta_end`` (Ho et al. 2020, "Denoising Diffusion Probabilistic
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
        """``sqrt(betas)`` evenly spaced from ``sqrt(beta_start)`` to ``sqrt(beta_end)``: the schedule of latent diffusion
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
        """``betas = beta_start + (beta_end − beta_start)·sigmoid(u)`` with ``u`` evenly spaced from −6 to 6 (the code of Xu
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
            s: Offset that keeps the first betas above zero, not negative.
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
            alphas_cumprod: Array-like ``(T,)``, strictly decreasing, between 0 and 1; the last may be 0 (zero terminal
                SNR).

        Raises:
            ArgumentError: a value is out of range or not below the one before (the message says which), or the array
                has another shape.

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
        arXiv:2206.00364): t is the noise level σ of x = x0 + σ·ε, and the state is the network's input c_in·x.

        Args:
            sigma_min, sigma_max: Noise levels between which sampling calls the network. Marginals are defined at every σ.
            sigma_data: Standard deviation of the data, assumed by the preconditioning.
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
            num_train_timesteps: The network's time at σ = 1; 1 to 1,000,000.
            shift: Shifts the default grid towards noise, σ → shift·σ/(1 + (shift − 1)·σ) (Esser et al. 2024,
                arXiv:2403.03206, eq. 23). It changes the grids, not the marginals. The default grid (``linspace``) is that of
                diffusers and of Stable Diffusion 3: evenly spaced from σ = 1 to the shifted 1/num_train_timesteps, then shifted.
                So its last level is shifted twice, the others once; ``trailing`` shifts every level once, as Flux does.

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
            beta_min, beta_max: Range of β; beta_min may be 0.
            sampling_eps: The time at which sampling stops, above 0 and below 1.

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
            sampling_eps: The time at which sampling stops, above 0 and below 1.

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
        """A schedule that was learned together with its network (Kingma et al. 2021, "Variational Diffusion Models",
        arXiv:2107.00630, section 4), as a table: t goes from 0 to 1, and the log-SNR is linear between the table's values.
        :class:`diffuse_fast.training.LogSNRNetwork` learns it.

        Args:
            log_snr: Array-like (K,), log(alpha²/sigma²) = −γ at K evenly spaced times from 0 to 1, strictly decreasing.

        Raises:
            ArgumentError: a value is not finite or not below the one before (the message says which), or a wrong shape.
            ArgumentTypeError: the values are not numbers.

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
            scheduler: A scheduler; its configuration as a dict with the name of the class under ``_class_name``, as in
                ``scheduler_config.json``; or the path of such a file, of its folder or of a pipeline's folder.
                ``diffuse_fast.interop.diffusers`` lists the classes and their options.
            mu: What the pipeline computes from the sample's size if the configuration has ``use_dynamic_shifting``.

        Raises:
            ArgumentError: the class or an option is not supported; the message names it.
            ArgumentTypeError: neither a scheduler nor a dict nor a path.

        Example:
            >>> import diffuse_fast as df
            >>> config = {"_class_name": "DDIMScheduler", "beta_schedule": "squaredcos_cap_v2"}
            >>> df.Schedule.from_diffusers(config) == df.Schedule.cosine()
            True
        """
        from ..interop import diffusers

        return diffusers.schedule(scheduler, mu=mu)
