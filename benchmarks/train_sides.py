"""The two sides of the comparison of training steps: ours here, the published code's in `peer`."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Generic, Literal, TypeVar

import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode
from train_cases import Case, batch, case
from workers import Memory

from nova.checkpoints.published import write_weights
from nova.machine import forget_peak, memory_now, memory_peak, seconds
from nova.models.nova import NovaTransformer
from nova.training.cluster import Cluster
from nova.training.config import Recompute, RunConfig
from nova.training.optimizer import move
from nova.training.state import Averaged, TrainState
from nova.training.step import differentiate, prepare
from nova.training.transformer import LatentBatch, TransformerObjective


@dataclasses.dataclass(frozen=True)
class Setting:
    """What both sides are told. `weights` is a file with our names; `compile` and `recompute` concern our side only."""

    name: str
    batch: int
    weights: Path
    precision: Literal["float32", "bfloat16"]
    device: str
    threads: int
    compile: bool = False
    recompute: Recompute = "nothing"

    @property
    def case(self) -> Case:
        """The case of this name and batch size."""
        return case(self.name, self.batch)


@dataclasses.dataclass(frozen=True)
class Findings:
    """What one forward and backward pass in float32 finds, before any weight has changed."""

    losses: Mapping[str, float]
    """`loss` of an image model; `first` and `later` of a video model."""
    gradient_norms: Mapping[str, float]
    """Of every trained parameter, under its published name."""
    forward_flops: int
    """Operations of matrix products and attention in the forward pass, as counted; masked attention counts as dense."""


_CPU_ATTENTION = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu


def _attention_flops(query: torch.Size, key: torch.Size, *_: object, **__: object) -> int:
    """Two products, for the one attention that torch's counter leaves out."""
    return 4 * query.numel() * key[-2]


Given = TypeVar("Given")


class Side(ABC, Generic[Given]):
    """A training step that can be asked for. One side has one model and one optimizer."""

    def __init__(self, setting: Setting) -> None:
        torch.set_num_threads(setting.threads)
        torch.backends.cudnn.allow_tf32 = False  # float32 is float32 in convolutions too
        self.setting, self.case = setting, setting.case
        self.device = torch.device(setting.device)
        self._before = memory_now(self.device)

    def given(self, step: int) -> Given:
        """The batch of a step, as the side takes it."""
        return self.ready(batch(self.case, step).to(self.device))

    def findings(self) -> Findings:
        """Losses and gradients of the batch of step 0."""
        given = self.given(0)
        with FlopCounterMode(display=False, custom_mapping={_CPU_ATTENTION: _attention_flops}) as counter:
            losses = self.losses(given)
        torch.stack(list(losses.values())).sum().backward()
        norms = self.gradient_norms()
        return Findings({name: loss.item() for name, loss in losses.items()}, norms, counter.get_total_flops())

    def start(self) -> None:
        """Get ready to train."""
        self.begin()
        forget_peak(self.device)

    def step(self, number: int) -> tuple[float, float]:
        """Seconds and loss of one step on the batch of `number`; its data and draws are not in the time."""
        given, found = self.given(number), []
        time = seconds(lambda: found.append(self.train(given)), self.device)
        return time, found[0]

    def averaging(self) -> float:
        """Seconds of one update of the averaged weights."""
        return seconds(self.average, self.device)

    def memory(self) -> Memory:
        """Of the steps so far."""
        return Memory(self._before, memory_peak(self.device))

    @abstractmethod
    def ready(self, made: LatentBatch) -> Given:
        """A batch as `losses` and `train` take it."""

    @abstractmethod
    def losses(self, given: Given) -> dict[str, Tensor]:
        """The parts of the loss, in float32; their sum is what is trained."""

    @abstractmethod
    def gradient_norms(self) -> dict[str, float]:
        """By published name; forgets the gradients."""

    @abstractmethod
    def begin(self) -> None:
        """Make optimizer and averaged weights."""

    @abstractmethod
    def train(self, given: Given) -> float:
        """One step; its loss."""

    @abstractmethod
    def average(self) -> None:
        """Move the averaged weights."""


class Ours(Side[LatentBatch]):
    """The step of `nova.training.train`, without its log, its checkpoints and its loader."""

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self.model = NovaTransformer(self.case.shape)
        self.model.load_state_dict(load_file(setting.weights))
        for name, parameter in self.model.named_parameters():
            parameter.requires_grad_(not name.startswith(self.case.frozen))
        self.objective = TransformerObjective(self.model, self.case.scheduler.training, None, 1.0, 1.0)
        self.objective.to(self.device).train()
        self.cluster = Cluster(device=self.device)
        self.config = RunConfig(
            steps=1,
            batch_size=self.case.batch,
            precision=setting.precision,
            compile=setting.compile,
            recompute=setting.recompute,
        )

    def ready(self, made: LatentBatch) -> LatentBatch:
        return made

    def losses(self, given: LatentBatch) -> dict[str, Tensor]:
        found = self.objective(given)
        parts = [name for name in found.parts if name != "loss"] or ["loss"]
        return {name: found.parts[name] / found.weight for name in parts}

    def gradient_norms(self) -> dict[str, float]:
        gradients = {name: one.grad for name, one in self.model.named_parameters() if one.grad is not None}
        norms = {name: float(one.norm()) for name, one in write_weights(gradients, self.case.shape).items()}
        self.model.zero_grad(set_to_none=True)
        return norms

    def begin(self) -> None:
        self.averaged = Averaged(self.model)  # not used here; the loop holds one
        self.network = prepare(self.objective, self.config, self.cluster)
        self.state = TrainState.start(self.model, self.config.optimizer)

    def train(self, given: LatentBatch) -> float:
        found = differentiate(self.network, iter([given]), 1, self.config, self.cluster)
        move(self.state.optimizer, found.factor)
        self.state.optimizer.zero_grad(set_to_none=True)
        return found.losses["loss"]

    def average(self) -> None:
        self.state.ema.update(self.model)
