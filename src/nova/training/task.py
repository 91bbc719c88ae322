"""What a training loop is given: a model, an objective that holds it, and the data of every step."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, Self, TypeVar

import torch
from torch import Tensor, nn


class OnDevice(Protocol):
    """Something made of tensors."""

    def to(self, device: torch.device) -> Self:
        """The same on another device."""


Batch = TypeVar("Batch", bound=OnDevice)


@dataclass(frozen=True)
class Sums:
    """What an objective finds in a batch: sums over its samples or tokens, and how many those were.

    Their quotients are means, also over several batches. `parts["loss"]` is differentiated, the others are logged.
    """

    parts: Mapping[str, Tensor]
    weight: float


@dataclass(frozen=True)
class Task(Generic[Batch]):
    """What the loop trains.

    name: for the progress bar.  model: its trainable parameters are trained, in place.
    objective: a module that holds `model` and maps a batch to `Sums`.
    batch: the samples at some places of a step's batch, a pure function of the two.
    ids: names of these samples, for the report of a step that failed.
    sample: what one sample of a step is, in words, for the report of a step that found no memory.
    """

    name: str
    model: nn.Module
    objective: nn.Module
    batch: Callable[[int, range], Batch]
    ids: Callable[[int, range], Sequence[str]]
    sample: Callable[[int], str] = lambda step: "as the data have it"
