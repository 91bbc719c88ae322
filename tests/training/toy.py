"""A network and a task so small that the loop's properties show in milliseconds, with every kind of parameter."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from nova.randomness import generator_for
from nova.training.config import OptimizerConfig, RunConfig
from nova.training.state import TrainState
from nova.training.task import Sums, Task


class Toy(nn.Module):
    """An embedding, a norm, a learned vector, a frozen layer, a buffer, and an output tied to the embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(5, 4)
        self.norm = nn.LayerNorm(4)
        self.inner = nn.Linear(4, 4)
        self.frozen = nn.Linear(4, 4).requires_grad_(False)
        self.start = nn.Parameter(torch.randn(1, 4))
        self.out = nn.Linear(4, 5, bias=False)
        self.out.weight = self.table.weight
        self.register_buffer("scale", torch.ones(1))

    def forward(self, words: Tensor) -> Tensor:
        hidden = self.norm(self.inner(self.table(words) + self.start) + self.frozen(self.table(words)))
        return self.out(hidden) * self.scale


@dataclass(frozen=True)
class Words:
    """Places on a circle of five, and what their loss is multiplied by."""

    words: Tensor
    factor: float

    def to(self, device: torch.device) -> Words:
        """The same on another device."""
        return Words(self.words.to(device), self.factor)


class ToyObjective(nn.Module):
    """Say the next word of the circle."""

    def __init__(self, model: Toy) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: Words) -> Sums:
        found = nn.functional.cross_entropy(self.model(batch.words).float(), (batch.words + 1) % 5, reduction="sum")
        return Sums({"loss": found * batch.factor}, len(batch.words))


def toy(seed: int = 0) -> Toy:
    """The network with the weights of `seed`."""
    torch.manual_seed(seed)
    return Toy()


def toy_task(model: Toy, seed: int = 0, spoiled: frozenset[int] = frozenset()) -> Task[Words]:
    """The task of the circle; the loss of a `spoiled` step is not a number."""

    def batch(step: int, places: range) -> Words:
        generators = [generator_for(seed, "toy", step, place) for place in places]
        words = torch.tensor([int(torch.randint(5, (), generator=generator)) for generator in generators])
        return Words(words, float("nan") if step in spoiled else 1.0)

    def ids(step: int, places: range) -> list[str]:
        return [f"{step}-{place}" for place in places]

    return Task("toy", model, ToyObjective(model), batch, ids)


def toy_run(**changes: object) -> RunConfig:
    """Twelve steps with a checkpoint after every fourth."""
    fields = {
        "steps": 12,
        "batch_size": 8,
        "checkpoint_every": 4,
        "log_every": 1,
        "precision": "float32",
        "optimizer": OptimizerConfig(learning_rate=1e-2, schedule="cosine", warmup_steps=3, ema_decay=0.9, ema_every=2),
    }
    return RunConfig.model_validate(fields | changes)


def everything(state: TrainState) -> dict[str, bytes | int]:
    """All of a state, comparable bit for bit."""
    tensors = {
        name: bytes(tensor.detach().contiguous().reshape(-1).view(torch.uint8).tolist())
        for name, tensor in state.tensors().items()
    }
    return tensors | state.counters()


def metrics(folder: Path) -> list[str]:
    """The lines of a run's metrics without the one figure that tells time."""
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [line.rpartition(', "samples_per_second"')[0] for line in lines]
