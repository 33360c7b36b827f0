"""Classifier guidance: a network whose output is shifted along the gradient of a classifier. Needs torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from .errors import ArgumentError, ArgumentTypeError
from .schedule import Schedule
from .solver.prediction import noise_prediction


class ClassifierGuidance(torch.nn.Module):
    """A network guided by a classifier: ``ε̂ = ε − scale·sigma·∇_x log p(y | x_t)`` (Dhariwal & Nichol 2021, "Diffusion Models Beat
    GANs on Image Synthesis", arXiv:2105.05233, Algorithm 2, eq. 14), for any prediction type.

    The result is a torch module for :func:`~diffuse_fast.sample`.

    Args:
        network: ``f(x, t, **cond)``, a torch module or function that returns a tensor, or an object with ``.sample``.
        log_prob: ``g(x, t, **cond) -> (batch,)``: the log-probability of the condition, differentiable in x.
        scale: Strength of the guidance; 0 is the network alone.
        schedule: The schedule of the network.
        prediction_type: What the network predicts.
        network_cond: Names of the conditioning inputs that the network takes; ``log_prob`` gets all of them.

    Raises:
        ArgumentError: ``log_prob`` does not return one number per sample, or does not depend on x.
        ArgumentTypeError: ``schedule`` is not a schedule.

    Example:
        >>> import torch, diffuse_fast as df
        >>> schedule = df.Schedule.linear()
        >>> def towards_two(x, t):
        ...     return -((x - 2) ** 2).flatten(1).sum(1)
        >>> guided = df.ClassifierGuidance(lambda x, t: x, towards_two, 0.5, schedule=schedule, prediction_type="epsilon")
        >>> df.sample(guided, 2, 5, shape=(3,), schedule=schedule, prediction_type="epsilon", seed=0).shape
        torch.Size([2, 3])
    """

    def __init__(
        self,
        network: Callable[..., Any],
        log_prob: Callable[..., torch.Tensor],
        scale: float,
        *,
        schedule: Schedule,
        prediction_type: str,
        network_cond: tuple[str, ...] = (),
    ):
        super().__init__()
        if not isinstance(schedule, Schedule):
            raise ArgumentTypeError(f"schedule is a {type(schedule).__name__}; give a df.Schedule.")
        self.network, self.log_prob, self.scale = network, log_prob, float(scale)
        self.schedule, self.prediction_type, self.network_cond = schedule, prediction_type, tuple(network_cond)

    def forward(self, x: torch.Tensor, t: torch.Tensor, **cond: Any) -> torch.Tensor:
        # The gradient first and on copies, because the network may work in place.
        guided = self.scale != 0.0
        if guided:
            shift, gradient = self._shift(t, x.ndim), self._gradient(x, t, cond)
        output = self.network(x, t, **{name: cond[name] for name in self.network_cond})
        output = getattr(output, "sample", output)
        return output + shift.to(output) * gradient if guided else output

    def _gradient(self, x: torch.Tensor, t: torch.Tensor, cond: dict[str, Any]) -> torch.Tensor:
        # Sampling runs in inference mode; a clone made outside of it can be differentiated.
        with torch.inference_mode(False), torch.enable_grad():
            at = x.clone().requires_grad_()
            given = {name: value.clone() if isinstance(value, torch.Tensor) else value for name, value in cond.items()}
            value = self.log_prob(at.clone(), t.clone(), **given)
            if value.shape != (len(x),):
                raise ArgumentError(f"log_prob returned the shape {tuple(value.shape)}; it must be ({len(x)},), one per sample.")
            if not value.requires_grad:
                raise ArgumentError("log_prob does not depend on x; it must be differentiable in x.")
            return torch.autograd.grad(value.sum(), at)[0]

    def _shift(self, t: torch.Tensor, ndim: int) -> torch.Tensor:
        """The change of the output per unit of gradient: ε = p·x + q·m decreases by scale·sigma."""
        times = t.double().cpu().numpy()
        shift = []
        for alpha, sigma in zip(self.schedule.alpha(times), self.schedule.sigma(times), strict=True):
            _, q = noise_prediction(self.prediction_type, float(alpha), float(sigma), self.schedule.sigma_data)
            shift.append(-self.scale * float(sigma) / q)
        return torch.tensor(shift).reshape(-1, *(1,) * (ndim - 1))
