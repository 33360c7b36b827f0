"""The state of a run: the network, its moving average, the optimizer, the state of the objective's sampler of times."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ...errors import ArgumentError
from ..config.train_config import TrainConfig
from ..data.source import Batch
from ..objectives import drop_conditions
from ..objectives.batch_position import BatchPosition
from ..objectives.objective import AnyObjective, report_losses
from ..objectives.times import AdaptiveTimes
from .batch_order import BATCH, PART, derived_seed
from .distributed import all_gather, any_process, full_tensor, load_full, world


class Pass(nn.Module):
    """The forward pass from a part of a batch to its loss. DDP and FSDP wrap this module, so that the parameters of an objective
    are trained with the network's."""

    def __init__(self, network: nn.Module, objective: AnyObjective, config: TrainConfig):
        super().__init__()
        self.network, self.objective = network, objective
        self._config = config
        # torch.compile shares the parameters; the network itself keeps their names.
        self._called = [torch.compile(network) if config.compile else network]

    def forward(self, x0: Tensor, label: Tensor | None, step: int, first: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return the loss of a part of a batch, a scalar, and its samples' losses and times, (B,) each.

        All randomness is a function of the step and of each sample's index in the batch, except for the network's dropout, which
        is a function of the step and ``first``.

        Args:
            x0: Samples of the batch.
            label: Their labels, or None.
            step: Number of the training step.
            first: Index in the batch of the first sample of x0.
        """
        config = self._config
        position = BatchPosition(config.seed, step, first, config.batch_size)
        generator = torch.Generator().manual_seed(derived_seed(config.seed, BATCH, step))
        torch.manual_seed(derived_seed(config.seed, PART, step, first))  # dropout draws from the global generator
        cond = None
        if label is not None:
            null = {"label": self.network.num_classes}
            cond = drop_conditions({"label": label}, null, config.condition_dropout, generator, position)  # type: ignore[arg-type]  # a network's number of classes is a number
        with torch.autocast(x0.device.type, torch.bfloat16, enabled=config.precision == "bfloat16"):
            losses = self.objective(self._called[0], x0, cond, generator=generator, position=position)
        return losses.loss.float(), losses.each, losses.t


class TrainState:
    """The state that a checkpoint holds, and the optimizer step that changes it.

    Args:
        first: With several processes, samples and labels of one pass, on the device of the network.
    """

    def __init__(self, network: nn.Module, objective: AnyObjective, config: TrainConfig, first: Batch | None = None):
        self.network, self.objective, self.config = network, objective, config
        self.average = copy.deepcopy(network).eval().requires_grad_(False)
        self.forward: nn.Module = Pass(network, objective, config)
        if config.sharded:
            _shard(self.forward)
        elif world() > 1:
            assert first is not None
            unused = _has_unused_parameters(self.forward, *first)
            # find_unused_parameters traverses the graph in every step, so it is only set where needed.
            self.forward = nn.parallel.DistributedDataParallel(self.forward, find_unused_parameters=unused)
        named = {name.removeprefix("module."): p for name, p in self.forward.named_parameters()}
        self.parameters = {name: p for name, p in named.items() if p.requires_grad}
        self._frozen = {name: p for name, p in named.items() if not p.requires_grad}
        self._averaged = {n: p.detach().clone() for n, p in self.parameters.items() if n.startswith("network.")}
        rate = config.learning_rate
        # Fused: for a small network, torch's loop over the parameters takes four times as long.
        self.optimizer = torch.optim.AdamW(self.parameters.values(), lr=rate, weight_decay=config.weight_decay, fused=True)

    def apply(self, step: int, rate: float) -> float:
        """Update the weights with the accumulated gradients; returns their global norm before clipping.

        If the norm is not finite, nothing changes.
        """
        values = list(self.parameters.values())
        limit = self.config.gradient_clip if self.config.gradient_clip is not None else float("inf")
        norm = float(full_tensor(nn.utils.clip_grad_norm_(values, limit)))
        if norm != norm or norm == float("inf"):
            return norm
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        # The decay increases to its value, so that the average forgets the random start quickly.
        decay = min(self.config.ema_decay, step / (step + 10))
        with torch.no_grad():
            torch._foreach_lerp_(list(self._averaged.values()), [self.parameters[n].detach() for n in self._averaged], 1.0 - decay)
        return norm

    def update_times(self, t: list[Tensor], losses: list[Tensor]) -> None:
        """Report the losses of a batch's parts to an adaptive sampler of times. Every process must call this."""
        times = getattr(self.objective, "times", None)
        if isinstance(times, AdaptiveTimes):
            cost = torch.cat(losses)
            report_losses(times, all_gather(torch.cat(t).to(cost.device)).cpu(), all_gather(cost).cpu())

    def averaged(self) -> nn.Module:
        """The network with the averaged weights, in eval mode, always the same module. Every process must call this."""
        own = dict(self.average.named_parameters())
        for name, value in self._averaged.items():
            own[name.removeprefix("network.")].data.copy_(full_tensor(value))
        for name, value in self._frozen.items():
            if name.startswith("network."):
                own[name.removeprefix("network.")].data.copy_(full_tensor(value))
        for kept, last in zip(self.average.buffers(), self.network.buffers(), strict=True):
            kept.copy_(last)
        return self.average

    def tensors(self) -> dict[str, Tensor]:
        """All tensors by name, unsharded and on the CPU. Every process must call this."""
        out = {name: full_tensor(value.detach()) for name, value in self._read().items()}
        out |= {f"average.{name}": full_tensor(a) for name, a in self._averaged.items()}
        for name, p in self.parameters.items():
            out |= {f"optimizer.{name}.{key}": full_tensor(value) for key, value in self.optimizer.state[p].items()}
        out |= {f"times.{name}": value for name, value in self._memory().items()}
        # A copy: a checkpoint must not share memory with the running state, nor two names with each other.
        return {name: value.detach().cpu().clone() for name, value in out.items()}

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Restore the tensors of :meth:`tensors`.

        Raises:
            ArgumentError: the tensors are of another network or objective; then nothing changes.
        """
        expected = self._read() | {f"average.{n}": a for n, a in self._averaged.items()}
        for name, value in expected.items():
            if name not in tensors:
                raise ArgumentError(f"the checkpoint has no {name}; it is from another network.")
            if tensors[name].shape != value.shape:
                raise ArgumentError(
                    f"{name} is {tuple(tensors[name].shape)} in the checkpoint and {tuple(value.shape)} in this network."
                )
        known = tuple(self.parameters)
        if extra := [n for n in tensors if not (n in expected or n.startswith(("optimizer.", "times.")))]:
            raise ArgumentError(f"the checkpoint has {extra[0]}, which is not among the {len(known)} parameters of this network.")
        for name, value in expected.items():
            load_full(value.detach(), tensors[name])
        for name, p in self.parameters.items():
            prefix = f"optimizer.{name}."
            saved = {n.removeprefix(prefix): v for n, v in tensors.items() if n.startswith(prefix)}
            state: dict[str, Tensor] = {}
            for key, value in saved.items():
                if value.shape == p.shape:
                    state[key] = torch.zeros_like(p)
                    load_full(state[key].detach(), value)
                else:
                    state[key] = value.to(p.device)
            self.optimizer.state[p] = state
        if memory := {n.removeprefix("times."): v for n, v in tensors.items() if n.startswith("times.")}:
            self.objective.times.load_state_dict(memory)  # type: ignore[attr-defined]  # it had a state when it was saved

    def _read(self) -> dict[str, Tensor]:
        """The inputs of the forward pass by name: trained and frozen parameters, and buffers."""
        buffers = {name.removeprefix("module."): b for name, b in self.forward.named_buffers()}
        return {**self.parameters, **self._frozen, **buffers}

    def _memory(self) -> dict[str, Any]:
        times = getattr(self.objective, "times", None)
        return times.state_dict() if isinstance(times, AdaptiveTimes) else {}


def _has_unused_parameters(forward: nn.Module, x0: Tensor, label: Tensor | None) -> bool:
    """Whether a pass leaves trained parameters unused in any process. It has no side effects."""
    buffers = [buffer.clone() for buffer in forward.buffers()]
    forward(x0, label, 1, 0)[0].backward()
    left_out = any(p.grad is None for p in forward.parameters() if p.requires_grad)
    forward.zero_grad()
    for buffer, before in zip(forward.buffers(), buffers, strict=True):
        buffer.copy_(before)
    return any_process(left_out, x0.device)


def restore(network: nn.Module, objective: AnyObjective, tensors: Mapping[str, Tensor]) -> None:
    """Load the averaged weights of :meth:`TrainState.tensors` into a network, and an objective's parameters into it.

    Raises:
        ArgumentError: the tensors are of another network or objective.
    """
    parts = {"network.": network, **({"objective.": objective} if isinstance(objective, nn.Module) else {})}
    for prefix, part in parts.items():
        for name, own in (*part.named_parameters(), *part.named_buffers()):
            value = tensors.get(f"average.{prefix}{name}", tensors.get(f"{prefix}{name}"))
            if value is None or value.shape != own.shape:
                shape = tuple(own.shape)
                raise ArgumentError(f"the checkpoint has no {prefix}{name} of the shape {shape}; it is from another network.")
            load_full(own.detach(), value)


def _shard(module: Pass) -> None:
    """Shard every block of the network, then the rest. A block is a child of a ModuleList or Sequential."""
    from torch.distributed.fsdp import fully_shard

    lists = [m for m in module.modules() if isinstance(m, nn.ModuleList | nn.Sequential)]
    for part in lists:
        for block in part.children():
            if not isinstance(block, nn.ModuleList) and any(True for _ in block.parameters()):
                fully_shard(block)
    fully_shard(module)
