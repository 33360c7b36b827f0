"""A noise schedule that is trained with its network (Kingma et al. 2021, "Variational Diffusion Models", arXiv:2107.00630)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...checks import require_int, require_number
from ...errors import ArgumentError
from ...kernels.reference import STREAM_TRAINING, STREAM_TRAINING_REST
from ...schedule import Schedule
from ...schedule.learned import LearnedSchedule
from ...solver.prediction import target_weights
from .batch_position import BatchPosition, draw_part
from .forward import Levels
from .objective import Conditions, Losses, Network, sensitivity
from .variational import negative_log_decoder

TABLE = 1025  # values of an exported schedule


class LogSNRNetwork(nn.Module):
    """A log-SNR that decreases in t on [0, 1] for any weights: −γ_η(t) of VDM (appendix H).

    γ̃(t) = l1(t) + l3(sigmoid(l2(l1(t)))) has positive weights and is scaled to go from 0 to 1; log_snr goes from ``log_snr_max`` to
    ``log_snr_min`` along it.

    Args:
        log_snr_max, log_snr_min: Initial values at t = 0 and t = 1.
        hidden: Units of l2.

    Raises:
        ArgumentError: ``log_snr_max`` is not above ``log_snr_min``, or ``hidden`` is below 1.

    Example:
        >>> import torch
        >>> from diffuse_fast.training import LogSNRNetwork
        >>> network = LogSNRNetwork(6.0, -8.0)
        >>> network(torch.tensor([0.0, 1.0])).tolist()
        [6.0, -8.0]
        >>> network.schedule().family
        'learned'
    """

    def __init__(self, log_snr_max: float = 13.3, log_snr_min: float = -5.0, hidden: int = 64):
        super().__init__()
        high, low = require_number("log_snr_max", log_snr_max), require_number("log_snr_min", log_snr_min)
        if not -100.0 <= low < high <= 100.0:
            raise ArgumentError(f"log_snr_max is {log_snr_max!r} and log_snr_min {log_snr_min!r}; they must decrease, within ±100.")
        hidden = require_int("hidden", hidden, 1)
        self.ends = nn.Parameter(torch.tensor([high, low]))
        # Units evenly spaced over [0, 1], each a gentle step: close to a straight line at first, and flexible everywhere.
        self.slope = nn.Parameter(torch.tensor(0.0))
        self.rates = nn.Parameter(torch.full((hidden,), _unsoftplus(8.0)))
        self.centers = nn.Parameter((torch.arange(hidden) + 0.5) / hidden)
        self.heights = nn.Parameter(torch.full((hidden,), _unsoftplus(1.0 / hidden)))

    def _raw(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """The monotone function before scaling to [0, 1], and its derivative."""
        slope, rates, heights = F.softplus(self.slope), F.softplus(self.rates), F.softplus(self.heights)
        step = torch.sigmoid(rates * (t[:, None] - self.centers))
        return slope * t + step @ heights, slope + (step * (1.0 - step)) @ (heights * rates)

    def shape(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """γ̃(t), which rises from 0 to 1, and its derivative, for t (B,)."""
        value, derivative = self._raw(t)
        (first, last), _ = self._raw(torch.tensor([0.0, 1.0], dtype=t.dtype, device=t.device))
        return (value - first) / (last - first), derivative / (last - first)

    def forward(self, t: Tensor) -> Tensor:
        """log_snr(t), (B,)."""
        high, low = self.ends
        return high + (low - high) * self.shape(t)[0]

    @torch.no_grad()
    def schedule(self) -> LearnedSchedule:
        """The current schedule, as a table of 1,025 values without torch, for plans, samplers and artifacts."""
        before = next(self.parameters()).dtype
        try:
            values = self.double()(torch.linspace(0.0, 1.0, TABLE, dtype=torch.float64)).numpy()
        finally:
            self.to(before)
        return Schedule.learned(values)


def _unsoftplus(value: float) -> float:
    return math.log(math.expm1(value))


class LearnedScheduleObjective(nn.Module):
    """The ELBO in continuous time, which trains a network and its noise schedule together.

    L = E_t[½·(−d log_snr/dt)·‖ε − ε̂‖²] + L_prior + L_decoder (VDM, eq. 11 and 17), in nats per dimension. Its mean does not
    depend on the schedule between the ends (VDM, section 5.1), but its variance over t does. So the network and the ends
    get the gradient of L, and the shape between the ends that of E[L²], which minimises the variance (VDM, appendix I.2).

    The parameters of this module are those of the schedule; give them to the optimizer with the network's.

    Args:
        log_snr: The schedule.
        prediction_type: ``epsilon``, ``sample`` or ``v_prediction``.
        levels, value_range: As in :class:`VariationalObjective`. For continuous data (``levels=None``) the bound hardly depends
            on the ends, which then stay fixed.

    Example:
        >>> import torch
        >>> from diffuse_fast.training import LearnedScheduleObjective, LogSNRNetwork
        >>> objective = LearnedScheduleObjective(LogSNRNetwork(6.0, -8.0), "epsilon")
        >>> network = lambda x, log_snr: torch.zeros_like(x)
        >>> objective(network, torch.zeros(8, 2), generator=torch.Generator().manual_seed(0)).each.shape
        torch.Size([8])
    """

    def __init__(
        self,
        log_snr: LogSNRNetwork,
        prediction_type: str,
        *,
        levels: int | None = None,
        value_range: tuple[float, float] = (-1.0, 1.0),
    ):
        super().__init__()
        if prediction_type not in LearnedSchedule.prediction_types:
            raise ArgumentError(
                f"prediction_type is {prediction_type!r}; with a learned schedule it is one of "
                f"{', '.join(LearnedSchedule.prediction_types)}."
            )
        if levels is not None:
            levels = require_int("levels", levels, 2)
        self.log_snr, self.prediction_type = log_snr, prediction_type
        self.levels, self.value_range = levels, value_range
        log_snr.ends.requires_grad_(levels is not None)

    def schedule(self) -> LearnedSchedule:
        """:meth:`LogSNRNetwork.schedule`."""
        return self.log_snr.schedule()

    def forward(
        self,
        network: Network,
        x0: Tensor,
        cond: Conditions | None = None,
        *,
        generator: torch.Generator,
        position: BatchPosition | None = None,
    ) -> Losses:
        """The losses of a batch; arguments as in :meth:`Objective.__call__`, where the time of ``network`` is the log-SNR."""
        start = torch.rand(1, generator=generator)
        # Evenly spaced from a random start (VDM, appendix I.1).
        t = draw_part(len(x0), position, lambda count: (start + torch.arange(count) / count) % 1.0).to(self.log_snr.ends)
        noise = _noise(x0, generator, position, STREAM_TRAINING)
        later: list[Tensor] = []
        shape, rate = (_scaled(value, later) for value in self.log_snr.shape(t))
        high, low = self.log_snr.ends
        log_snr = high + (low - high) * shape
        each = (-1,) + (1,) * (x0.ndim - 1)
        levels = Levels(torch.sigmoid(log_snr).sqrt(), torch.sigmoid(-log_snr).sqrt(), log_snr.exp())
        alpha, sigma = levels.alpha.reshape(each), levels.sigma.reshape(each)
        u, w = target_weights(self.prediction_type, alpha, sigma, 1.0)
        prediction = network(alpha * x0 + sigma * noise, log_snr, **(cond or {}))
        error = (prediction - (u * x0 + w * noise)).square().flatten(1).mean(1)
        # ‖ε − ε̂‖² from the error of the prediction: dε/dx0 is −alpha/sigma.
        error = error * levels.snr / sensitivity(self.prediction_type, levels, 1.0).square()
        diffusion = 0.5 * (high - low) * rate * error
        later.append(2.0 * diffusion.detach())
        losses = diffusion + self._ends(x0, high, low, _noise(x0, generator, position, STREAM_TRAINING_REST))
        return Losses(losses.mean(), losses.detach(), t)

    def _ends(self, x0: Tensor, high: Tensor, low: Tensor, noise: Tensor) -> Tensor:
        """L_prior and L_decoder of each sample, per dimension; ``noise`` makes the state at t = 0."""
        # KL(N(alpha·x0, sigma²) ‖ N(0, 1)) at t = 1, where alpha² = sigmoid(low).
        squares = torch.sigmoid(low) * x0.square().flatten(1).mean(1)
        prior = 0.5 * (squares + torch.sigmoid(-low) - 1.0 - F.logsigmoid(-low))
        # At t = 0, x0 is known from the state up to a deviation of sigma/alpha = exp(−high/2).
        width = -0.5 * high
        mean = x0 + width.exp() * noise
        decoder = negative_log_decoder(x0, mean, width, self.levels, self.value_range)
        return prior + decoder.flatten(1).mean(1)


def _noise(x0: Tensor, generator: torch.Generator, position: BatchPosition | None, stream: int) -> Tensor:
    # Not the compiled pass, because x_t has a gradient here: the schedule's.
    noise = torch.randn(x0.shape, generator=generator) if position is None else position.normals(x0.shape, stream)
    return noise.to(x0.device)


def _scaled(value: Tensor, factor: list[Tensor]) -> Tensor:
    """Return the same tensor, with its gradient multiplied by ``factor[0]``, which is filled in before the backward pass.

    With twice the loss of each sample, the gradient of the mean loss becomes that of the mean squared loss.
    """
    same = value * 1.0
    if same.requires_grad:
        same.register_hook(lambda gradient: gradient * factor[0])
    return same
