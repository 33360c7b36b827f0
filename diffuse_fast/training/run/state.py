"""What a run changes as it goes: the network, its moving average, the optimizer, the objective's own memory."""

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
from ..objectives.objective import AnyObjective, tell
from ..objectives.place import Place
from ..objectives.times import Listening
from .batch_order import BATCH, PART, derived_seed
from .distributed import anyone, everyone, fill, whole, world


class Pass(nn.Module):
    """One pass: from a part of a batch to its loss. It is what DDP and FSDP wrap, so that an objective with parameters of its own
    is trained with the network."""

    def __init__(self, network: nn.Module, objective: AnyObjective, config: TrainConfig):
        super().__init__()
        self.network, self.objective = network, objective
        self._config = config
        # torch.compile shares the parameters; the network itself keeps their names.
        self._called = [torch.compile(network) if config.compile else network]

    def forward(self, x0: Tensor, label: Tensor | None, step: int, first: int) -> tuple[Tensor, Tensor, Tensor]:
        """The loss of a part of the batch of a step, a scalar; its samples' losses and times, (B,) each.

        Args:
            x0: Samples ``first`` onwards of the batch.
            label: Of each, or None.
            step: What is random in the result is a function of the step and of the samples' places in its batch, but for the
                network's own dropout, which is one of the step and of ``first``.
            first: See ``x0``.
        """
        config = self._config
        place = Place(config.seed, step, first, config.batch_size)
        generator = torch.Generator().manual_seed(derived_seed(config.seed, BATCH, step))
        torch.manual_seed(derived_seed(config.seed, PART, step, first))  # dropout draws from the global generator
        cond = None
        if label is not None:
            null = {"label": self.network.num_classes}
            cond = drop_conditions({"label": label}, null, config.condition_dropout, generator, place)  # type: ignore[arg-type]  # a network's number of classes is a number
        with torch.autocast(x0.device.type, torch.bfloat16, enabled=config.precision == "bfloat16"):
            losses = self.objective(self._called[0], x0, cond, generator=generator, place=place)
        return losses.loss.float(), losses.each, losses.t


class TrainState:
    """Everything that a checkpoint holds, and the step that changes it.

    Args:
        first: With several processes, samples and labels of a pass on the device of the network.
    """

    def __init__(self, network: nn.Module, objective: AnyObjective, config: TrainConfig, first: Batch | None = None):
        self.network, self.objective, self.config = network, objective, config
        self.average = copy.deepcopy(network).eval().requires_grad_(False)
        self.forward: nn.Module = Pass(network, objective, config)
        if config.sharded:
            _shard(self.forward)
        elif world() > 1:
            assert first is not None
            unused = _leaves_some_out(self.forward, *first)
            # Asked for only where it is needed: it walks through the graph of every step.
            self.forward = nn.parallel.DistributedDataParallel(self.forward, find_unused_parameters=unused)
        named = {name.removeprefix("module."): p for name, p in self.forward.named_parameters()}
        self.parameters = {name: p for name, p in named.items() if p.requires_grad}
        self._frozen = {name: p for name, p in named.items() if not p.requires_grad}
        self._averaged = {n: p.detach().clone() for n, p in self.parameters.items() if n.startswith("network.")}
        rate = config.learning_rate
        # All parameters in one pass: of a small network torch's own loop over them takes four times as long.
        self.optimizer = torch.optim.AdamW(self.parameters.values(), lr=rate, weight_decay=config.weight_decay, fused=True)

    def apply(self, step: int, rate: float) -> float:
        """Use the gradients that were gathered; returns their global norm before clipping.

        Nothing is changed where the norm is not finite.
        """
        values = list(self.parameters.values())
        limit = self.config.gradient_clip if self.config.gradient_clip is not None else float("inf")
        norm = float(whole(nn.utils.clip_grad_norm_(values, limit)))
        if norm != norm or norm == float("inf"):
            return norm
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        # The decay rises to its value, so that the average soon forgets the random start.
        decay = min(self.config.ema_decay, step / (step + 10))
        with torch.no_grad():
            torch._foreach_lerp_(list(self._averaged.values()), [self.parameters[n].detach() for n in self._averaged], 1.0 - decay)
        return norm

    def hear(self, t: list[Tensor], losses: list[Tensor]) -> None:
        """What the parts of a batch have cost, for a sampler of times that listens; every process must call it."""
        times = getattr(self.objective, "times", None)
        if isinstance(times, Listening):
            cost = torch.cat(losses)
            tell(times, everyone(torch.cat(t).to(cost.device)).cpu(), everyone(cost).cpu())

    def averaged(self) -> nn.Module:
        """The network with the averaged weights, in eval mode; every process must call it. It is the same module every time."""
        own = dict(self.average.named_parameters())
        for name, value in self._averaged.items():
            own[name.removeprefix("network.")].data.copy_(whole(value))
        for name, value in self._frozen.items():
            if name.startswith("network."):
                own[name.removeprefix("network.")].data.copy_(whole(value))
        for kept, last in zip(self.average.buffers(), self.network.buffers(), strict=True):
            kept.copy_(last)
        return self.average

    def tensors(self) -> dict[str, Tensor]:
        """All of it by name, in full and on the CPU; every process must call it."""
        out = {name: whole(value.detach()) for name, value in self._read().items()}
        out |= {f"average.{name}": whole(a) for name, a in self._averaged.items()}
        for name, p in self.parameters.items():
            out |= {f"optimizer.{name}.{key}": whole(value) for key, value in self.optimizer.state[p].items()}
        out |= {f"times.{name}": value for name, value in self._memory().items()}
        # A copy: a checkpoint must not share its memory with what goes on, nor two names with each other.
        return {name: value.detach().cpu().clone() for name, value in out.items()}

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Take what :meth:`tensors` gave.

        Raises:
            ArgumentError: the tensors are of another network or objective; nothing is changed then.
        """
        expected = self._read() | {f"average.{n}": a for n, a in self._averaged.items()}
        for name, value in expected.items():
            if name not in tensors:
                raise ArgumentError(f"the checkpoint has no {name}; it is of another network.")
            if tensors[name].shape != value.shape:
                raise ArgumentError(
                    f"{name} is {tuple(tensors[name].shape)} in the checkpoint and {tuple(value.shape)} in this network."
                )
        known = tuple(self.parameters)
        if extra := [n for n in tensors if not (n in expected or n.startswith(("optimizer.", "times.")))]:
            raise ArgumentError(f"the checkpoint has {extra[0]}, which this network, of {len(known)} parameters, lacks.")
        for name, value in expected.items():
            fill(value.detach(), tensors[name])
        for name, p in self.parameters.items():
            prefix = f"optimizer.{name}."
            saved = {n.removeprefix(prefix): v for n, v in tensors.items() if n.startswith(prefix)}
            state: dict[str, Tensor] = {}
            for key, value in saved.items():
                if value.shape == p.shape:
                    state[key] = torch.zeros_like(p)
                    fill(state[key].detach(), value)
                else:
                    state[key] = value.to(p.device)
            self.optimizer.state[p] = state
        if memory := {n.removeprefix("times."): v for n, v in tensors.items() if n.startswith("times.")}:
            self.objective.times.load_state_dict(memory)  # type: ignore[attr-defined]  # it had one when it was saved

    def _read(self) -> dict[str, Tensor]:
        """What the forward pass reads, by name: trained parameters, frozen ones and buffers."""
        buffers = {name.removeprefix("module."): b for name, b in self.forward.named_buffers()}
        return {**self.parameters, **self._frozen, **buffers}

    def _memory(self) -> dict[str, Any]:
        times = getattr(self.objective, "times", None)
        return times.state_dict() if isinstance(times, Listening) else {}


def _leaves_some_out(forward: nn.Module, x0: Tensor, label: Tensor | None) -> bool:
    """Whether a pass uses less than all trained parameters, in any process. Nothing is changed by it."""
    buffers = [buffer.clone() for buffer in forward.buffers()]
    forward(x0, label, 1, 0)[0].backward()
    left_out = any(p.grad is None for p in forward.parameters() if p.requires_grad)
    forward.zero_grad()
    for buffer, before in zip(forward.buffers(), buffers, strict=True):
        buffer.copy_(before)
    return anyone(left_out, x0.device)


def restore(network: nn.Module, objective: AnyObjective, tensors: Mapping[str, Tensor]) -> None:
    """Give a network the averaged weights of :meth:`TrainState.tensors`, and an objective its own parameters.

    Raises:
        ArgumentError: the tensors are of another network or objective.
    """
    parts = {"network.": network, **({"objective.": objective} if isinstance(objective, nn.Module) else {})}
    for prefix, part in parts.items():
        for name, own in (*part.named_parameters(), *part.named_buffers()):
            value = tensors.get(f"average.{prefix}{name}", tensors.get(f"{prefix}{name}"))
            if value is None or value.shape != own.shape:
                shape = tuple(own.shape)
                raise ArgumentError(f"the checkpoint has no {prefix}{name} of the shape {shape}; it is of another network.")
            fill(own.detach(), value)


def _shard(module: Pass) -> None:
    """Shard every block of the network, then what is left. A block is a part of a list of parts."""
    from torch.distributed.fsdp import fully_shard

    lists = [m for m in module.modules() if isinstance(m, nn.ModuleList | nn.Sequential)]
    for part in lists:
        for block in part.children():
            if not isinstance(block, nn.ModuleList) and any(True for _ in block.parameters()):
                fully_shard(block)
    fully_shard(module)
