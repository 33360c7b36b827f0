"""A network's output and the trace of its Jacobian, by autograd or by finite differences."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import NetworkError
from ..runtimes.base import network_error

# Step relative to the noise level, which is the length scale of the network's output; rounding in float32 prevents smaller steps.
STEP = 0.05

Derived = tuple[np.ndarray, np.ndarray, float]


class Gradient:
    """Autograd of a torch module, in its own dtype: one vector-Jacobian product per probe.

    Attributes:
        calls: Network evaluations so far.
    """

    def __init__(self, runs: Any, cond: dict[str, np.ndarray], shape: tuple[int, ...]):
        import torch

        self._torch, self._module, self._dtype, self._shape = torch, runs.module, runs.dtype, shape
        given = {name: torch.from_numpy(np.array(value)) for name, value in cond.items()}
        self._cond = {name: v.to(self._dtype) if v.is_floating_point() else v for name, v in given.items()}
        self.calls = 0

    def __call__(self, x: np.ndarray, time: float, sigma: float, probes: np.ndarray | None) -> Derived:
        """The output (n, *shape) and the trace (n,), both float64, and an error bound of the trace, which is 0."""
        torch, n = self._torch, len(x)
        self.calls += 1
        state = torch.from_numpy(x).to(self._dtype).requires_grad_()
        t = torch.full((n,), time, dtype=torch.promote_types(self._dtype, torch.float32))
        with torch.enable_grad():
            try:
                # Copies, because layers that work in place are not allowed on leaves of the graph.
                result = self._module(state.clone(), t, **{name: value.clone() for name, value in self._cond.items()})
            except Exception as error:
                raise network_error(time, error) from error
            output = getattr(result, "sample", result)[:, : self._shape[0]]
            if output.shape != state.shape or not output.requires_grad:
                raise NetworkError(
                    f"the network returned {tuple(output.shape)}{'' if output.requires_grad else ' without a gradient'}; a "
                    f"likelihood needs the gradient of {tuple(state.shape)}."
                )
            if probes is not None:
                directions = [torch.from_numpy(probes).to(self._dtype)]
            else:
                eye = torch.eye(x[0].size, dtype=self._dtype).reshape(-1, 1, *self._shape)
                directions = [axis.expand(n, *self._shape) for axis in eye]
            trace = sum(
                (torch.autograd.grad(output, state, z, retain_graph=True)[0] * z).double().flatten(1).sum(1) for z in directions
            )
        return output.detach().double().numpy(), trace.numpy(), 0.0


class Difference:
    """Central differences of order 4 along each probe, for any bound network, in float32.

    Attributes:
        calls: Network evaluations so far.
    """

    def __init__(self, call: Any, shape: tuple[int, ...]):
        self._call, self._channels = call, shape[0]
        self.calls = 0

    def __call__(self, x: np.ndarray, time: float, sigma: float, probes: np.ndarray | None) -> Derived:
        """The output (n, *shape) and the trace (n,), both float64, and the mean difference between the traces of order 4 and 2, an
        upper estimate of the error."""
        output = self._at(x, time)[1]
        if probes is not None:
            directions = [probes]
        else:
            directions = [np.broadcast_to(axis, x.shape) for axis in np.eye(x[0].size).reshape(-1, 1, *x.shape[1:])]
        coarse, fine = np.zeros(len(x)), np.zeros(len(x))
        for z in directions:
            near, far = (self._along(x, time, z, k * STEP * sigma) for k in (1, 2))
            coarse += near
            fine += (4.0 * near - far) / 3.0
        return output, fine, float(np.mean(np.abs(fine - coarse)))

    def _along(self, x: np.ndarray, time: float, z: np.ndarray, step: float) -> np.ndarray:
        """zᵀ·J·z by a central difference."""
        (after, above), (before, below) = self._at(x + step * z, time), self._at(x - step * z, time)
        axes = tuple(range(1, x.ndim))
        # The step after rounding to float32.
        made = ((after - before) * z).sum(axes) / (z * z).sum(axes)
        return ((above - below) * z).sum(axes) / made

    def _at(self, x: np.ndarray, time: float) -> tuple[np.ndarray, np.ndarray]:
        self.calls += 1
        self._call.x[...] = x
        seen = self._call.x.astype(np.float64)
        return seen, self._call(float(time))[:, : self._channels].astype(np.float64)
