"""Everything that changes while training, in one place, and as the files of a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from nova.errors import CheckpointError
from nova.training.config import OptimizerConfig
from nova.training.ema import Ema
from nova.training.optimizer import adamw

Tensors = dict[str, Tensor]


@dataclass
class TrainState:
    """Steps done, weights, optimizer, average, and the steps skipped for want of a finite loss or gradient.

    The one mutable object of a run. Random numbers are not part of it: they follow from (seed, step).
    """

    model: nn.Module
    optimizer: torch.optim.AdamW
    ema: Ema
    step: int = 0
    skipped: int = 0
    skipped_in_row: int = 0

    @classmethod
    def start(cls, model: nn.Module, config: OptimizerConfig) -> TrainState:
        """The state before the first step of a run that begins with `model`'s weights."""
        return cls(model, adamw(model, config), Ema.of(model, config.ema_decay))

    def counters(self) -> dict[str, int]:
        """The numbers of the state."""
        return {
            "step": self.step,
            "skipped": self.skipped,
            "skipped_in_row": self.skipped_in_row,
            "ema_updates": self.ema.updates,
        }

    def tensors(self) -> dict[str, Tensors]:
        """The tensors of the state: `weights`, `ema`, `optimizer`; each by parameter name."""
        moments: Tensors = {}
        for name, parameter in self.model.named_parameters():
            for key, value in self.optimizer.state.get(parameter, {}).items():
                moments[f"{name}.{key}"] = value
        return {"weights": weights(self.model), "ema": dict(self.ema.shadows), "optimizer": moments}

    @torch.no_grad()
    def load(self, tensors: Mapping[str, Tensors], counters: Mapping[str, int]) -> None:
        """Take over what `tensors` and `counters` gave. Raises CheckpointError before anything is changed."""
        own = self.tensors()
        _check_names("weights", own["weights"], tensors["weights"])
        _check_names("ema", own["ema"], tensors["ema"])
        _copy(own["weights"], tensors["weights"])
        _copy(own["ema"], tensors["ema"])
        for name, parameter in self.model.named_parameters():
            moments = {
                key: tensors["optimizer"][f"{name}.{key}"].to(parameter.device)
                for key in ("step", "exp_avg", "exp_avg_sq")
                if f"{name}.{key}" in tensors["optimizer"]
            }
            if moments:
                self.optimizer.state[parameter] = moments
        self.step = counters["step"]
        self.skipped = counters["skipped"]
        self.skipped_in_row = counters["skipped_in_row"]
        self.ema.updates = counters["ema_updates"]


def weights(model: nn.Module) -> Tensors:
    """Parameters and stored buffers by name; a tensor that stands under two names appears once."""
    found: Tensors = {name: parameter.detach() for name, parameter in model.named_parameters()}
    known = {id(parameter) for parameter in model.parameters()}
    for name, tensor in model.state_dict(keep_vars=True).items():
        if id(tensor) not in known:
            known.add(id(tensor))
            found[name] = tensor.detach()
    return found


def _check_names(part: str, own: Tensors, given: Tensors) -> None:
    wrong = sorted(own.keys() ^ given.keys()) or sorted(name for name in own if own[name].shape != given[name].shape)
    if wrong:
        raise CheckpointError(
            f"{part}: {len(wrong)} tensors don't fit the configured model, the first is {wrong[0]!r}; "
            "resume with the configuration the run was started with"
        )


def _copy(own: Tensors, given: Tensors) -> None:
    for name, tensor in own.items():
        tensor.copy_(given[name])
