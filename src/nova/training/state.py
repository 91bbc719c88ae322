"""Everything that changes while training, in one place, and as the tensors and numbers of a checkpoint."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from nova.errors import CheckpointError
from nova.training.cluster import whole
from nova.training.config import OptimizerConfig
from nova.training.ema import Ema
from nova.training.optimizer import adamw

Tensors = dict[str, Tensor]
PARTS = ("weights", "ema", "optimizer")
_MOMENTS = ("exp_avg", "exp_avg_sq")


@dataclass
class TrainState:
    """Steps done, weights, optimizer, average, and the steps skipped for want of a finite loss or gradient.

    The one mutable object of a run. Random numbers are not part of it: they follow from (seed, step, place).
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
        optimizer = adamw(model, config)
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                optimizer.state[parameter] = {
                    "step": torch.zeros((), dtype=torch.float32, device=parameter.device),
                    **{name: torch.zeros_like(parameter) for name in _MOMENTS},
                }
        return cls(model, optimizer, Ema.of(model, config.ema_decay))

    @property
    def updates(self) -> int:
        """Steps that changed the weights."""
        return self.step - self.skipped

    def counters(self) -> dict[str, int]:
        """The numbers of the state."""
        return {
            "step": self.step,
            "skipped": self.skipped,
            "skipped_in_row": self.skipped_in_row,
            "ema_updates": self.ema.updates,
        }

    def tensors(self) -> Tensors:
        """The tensors of the state by name, each behind its part: `weights.`, `ema.` or `optimizer.`."""
        found = {f"weights.{name}": tensor for name, tensor in weights(self.model).items()}
        found |= {f"ema.{name}": tensor for name, tensor in self.ema.shadows.items()}
        for name, parameter in self.model.named_parameters():
            if parameter in self.optimizer.state:
                for moment in _MOMENTS:
                    found[f"optimizer.{name}.{moment}"] = self.optimizer.state[parameter][moment]
        return found

    @torch.no_grad()
    def count(self, counters: Mapping[str, int]) -> None:
        """Take over the numbers of a checkpoint whose tensors have been read into `tensors()`."""
        self.step = counters["step"]
        self.skipped = counters["skipped"]
        self.skipped_in_row = counters["skipped_in_row"]
        self.ema.updates = counters["ema_updates"]
        for state in self.optimizer.state.values():
            state["step"].fill_(self.updates)


def weights(model: nn.Module) -> Tensors:
    """Parameters and stored buffers by name; a tensor that stands under two names appears once."""
    found: Tensors = {name: parameter.detach() for name, parameter in model.named_parameters()}
    known = {id(parameter) for parameter in model.parameters()}
    for name, tensor in model.state_dict(keep_vars=True).items():
        if id(tensor) not in known:
            known.add(id(tensor))
            found[name] = tensor.detach()
    return found


class Averaged:
    """Makes models with the averaged weights of a state, which itself stays as it is.

    Made before the model is sharded, and takes no memory for parameters. Every process must ask for a model, since all
    hold parts of it.
    """

    def __init__(self, model: nn.Module) -> None:
        self._blank = _copied(model, "meta").eval()

    @torch.no_grad()
    def model(self, state: TrainState) -> nn.Module:
        """A model on the CPU, in evaluation mode."""
        made = _copied(self._blank, "cpu").cpu()
        for name, tensor in weights(made).items():
            source = state.ema.shadows.get(name)
            tensor.copy_(whole(weights(state.model)[name] if source is None else source))
        return made.requires_grad_(False)


def _copied(model: nn.Module, device: str) -> nn.Module:
    """A copy of `model` whose parameters are on `device` and have no values yet."""
    blank = {
        id(parameter): nn.Parameter(torch.empty_like(parameter, device=device), parameter.requires_grad)
        for parameter in model.parameters()
    }
    return copy.deepcopy(model, blank)


def check_names(own: Mapping[str, torch.Size], given: Mapping[str, torch.Size]) -> None:
    """Raise CheckpointError unless `given` are exactly the tensors that the state has, with their shapes."""
    wrong = sorted(own.keys() ^ given.keys()) or sorted(name for name in own if own[name] != given[name])
    if not wrong:
        return
    first = wrong[0]
    found, expected = given.get(first), own.get(first)
    detail = "missing" if found is None else "unknown" if expected is None else f"{list(found)}, not {list(expected)}"
    raise CheckpointError(
        f"{len(wrong)} tensors don't fit the configured model, the first is {first!r} ({detail}); "
        "resume with the configuration the run was started with"
    )
