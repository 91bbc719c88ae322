"""One training step: gradients of the mean loss over a batch, and what the weights learn from them.

A batch may come in parts and be spread over processes; gradients are sums, divided by what they are over. The loop
around it, its log and its checkpoints are `nova.training.train`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from nova.machine import keep_freed_memory
from nova.training.cluster import Cluster, gradient_factor, gradients_later, shared
from nova.training.compiled import compile_blocks
from nova.training.config import RunConfig
from nova.training.optimizer import clipped, gradient_norm, move
from nova.training.recompute import autocast, recompute_blocks
from nova.training.state import TrainState
from nova.training.task import Batch


@dataclass(frozen=True)
class Step:
    """What a step found before it changed anything: figures over the whole batch, and whether someone asked to stop."""

    losses: Mapping[str, float]
    norm: float
    """Of the gradient of the mean loss."""
    factor: float
    """By which the sums that the parameters hold become that gradient, clipped."""
    asked_to_stop: bool

    @property
    def finite(self) -> bool:
        """Whether the weights may learn from it."""
        return math.isfinite(self.losses["loss"]) and math.isfinite(self.norm)


def prepare(objective: nn.Module, config: RunConfig, cluster: Cluster) -> nn.Module:
    """`objective` on its device, compiled, recomputing and shared with other processes as configured.

    On a CPU the process keeps what memory it frees from here on.
    """
    if cluster.device.type == "cpu":
        keep_freed_memory()
    by_compiler = config.compile and config.recompute == "cheap"
    if not by_compiler:
        recompute_blocks(objective, config.recompute)
    objective.to(cluster.device)
    if config.compile:
        compile_blocks(objective, thrifty=by_compiler)
    return shared(objective, config.sharding, cluster)


def differentiate(
    network: nn.Module,
    loaded: Iterator[Batch],
    parts: int,
    config: RunConfig,
    cluster: Cluster,
    asked_to_stop: Callable[[], bool] = lambda: False,
) -> Step:
    """Gradients of the loss, summed over the whole batch. This process takes the next `parts` of `loaded`.

    What one process answers to `asked_to_stop` all of them learn.
    """
    precision = autocast(cluster.device, config.precision == "bfloat16", config.recompute)
    sums: dict[str, Tensor] = {}
    weight = 0.0
    for part in range(parts):
        batch = next(loaded).to(cluster.device)
        with gradients_later(network, wait=part + 1 < parts):
            with precision:
                found = network(batch)
            found.parts["loss"].backward()
        weight += found.weight
        sums = {name: sums.get(name, 0) + value.detach() for name, value in found.parts.items()}
    own = torch.tensor([weight, asked_to_stop()], dtype=torch.float64, device=cluster.device)
    told = torch.stack([*(value.double() for value in sums.values()), *own])
    *values, weight, asked = cluster.total(told).tolist()
    mean = gradient_factor(network) / weight
    norm = mean * gradient_norm(network)
    losses = {name: value / weight for name, value in zip(sums, values, strict=True)}
    return Step(losses, norm, mean * clipped(norm, config.optimizer.clip_norm), asked > 0)


def update(state: TrainState, step: Step, rate: float, config: RunConfig) -> None:
    """Move weights and average by what `step` has found, at a learning rate of `rate`."""
    for group in state.optimizer.param_groups:
        group["lr"] = rate
    move(state.optimizer, step.factor)
    if (state.step + 1) % config.optimizer.ema_every == 0:
        state.ema.update(state.model)
