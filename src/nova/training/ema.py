"""The moving average of the weights: what a run exports, because it is better than the last step's weights."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from nova.training.cluster import local


@dataclass
class Ema:
    """Float32 shadows of the trainable parameters, by name, and the number of updates they have seen.

    Update u moves each shadow by 1 - min(`decay`, (1 + u) / (10 + u)) of the way to its parameter: a short
    run is not an average over its random start. Shadows of sharded parameters are sharded alike.
    """

    decay: float
    shadows: dict[str, Tensor]
    updates: int = 0

    @classmethod
    def of(cls, model: nn.Module, decay: float) -> Ema:
        """An average that starts at the model's present weights."""
        shadows = {
            name: parameter.detach().to(torch.float32, copy=True)
            for name, parameter in model.named_parameters()
            if parameter.requires_grad
        }
        return cls(decay, shadows)

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Take one step towards the model's present weights."""
        weight = 1 - min(self.decay, (1 + self.updates) / (10 + self.updates))
        parameters = dict(model.named_parameters())
        present = [local(parameters[name].detach()).float() for name in self.shadows]
        torch._foreach_lerp_([local(shadow) for shadow in self.shadows.values()], present, weight)
        self.updates += 1
