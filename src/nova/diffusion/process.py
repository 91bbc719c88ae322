"""What a diffusion process is, and the loop that runs any of them.

Every sampler here is `x <- a x + b prediction + c noise + d previous prediction`, with d = 0 in those of first order. A
process therefore writes down a small table of coefficients for its steps, in float64 on the host, and one loop runs
them all.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclasses.dataclass(frozen=True)
class SolverStep:
    """One line of a solver's table."""

    time: float
    """Diffusion time given to the network, in [0, 1000]."""
    sample: float
    """Factor a of the current sample."""
    prediction: float
    """Factor b of the network's prediction."""
    noise: float = 0.0
    """Factor c of fresh noise."""
    draws_noise: bool = False
    """Whether noise is drawn at all; it can be with c = 0, to keep the published order of draws."""
    previous: float = 0.0
    """Factor d of the prediction one step before; the first step has 0."""


@runtime_checkable
class Process(Protocol):
    """Noise added in training and removed in sampling. Implementations are frozen and hold no tensors that change."""

    def of_order(self, order: int) -> Process:
        """The same process with a solver of `order` 1, the published one, or 2. Raises UsageError for others."""

    @property
    def train_steps(self) -> int:
        """Number of training indices, which count from 0."""

    def table(self, steps: int, shift: float | None = None) -> tuple[SolverStep, ...]:
        """The solver's table for `steps` steps, noise first. `shift` moves steps towards noise, where supported."""

    def draw_indices(self, shape: Sequence[int], generator: torch.Generator) -> Int[Tensor, "..."]:
        """Training indices of the process, one per element of `shape`."""

    def times(self, indices: Int[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """Diffusion times that the network is given for training indices."""

    def add_noise(
        self, clean: Float[Tensor, "*shape p"], noise: Float[Tensor, "*shape p"], indices: Int[Tensor, "*shape"]
    ) -> Float[Tensor, "*shape p"]:
        """Noisy tokens at training indices."""

    def target(
        self, clean: Float[Tensor, "*shape p"], noise: Float[Tensor, "*shape p"], indices: Int[Tensor, "*shape"]
    ) -> Float[Tensor, "*shape p"]:
        """What the network should predict for them."""


def solve(
    table: Sequence[SolverStep],
    sample: Float[Tensor, "*shape p"],
    predict: Callable[[Float[Tensor, "*shape p"], int], Float[Tensor, "*shape p"]],
    draw: Callable[[], Float[Tensor, "*shape p"]],
) -> Float[Tensor, "*shape p"]:
    """Run a table from noise to sample.

    `predict` maps the current sample and the table's row number to a prediction; guidance and conditions are its own
    business. `draw` gives fresh noise and is called once for every row that draws.
    """
    before = sample
    for row, step in enumerate(table):
        prediction = predict(sample, row).to(sample.dtype)
        kept = sample if step.sample == 1 else step.sample * sample
        sample = kept + step.prediction * prediction
        if step.previous:
            sample = sample + step.previous * before
        if step.draws_noise:
            sample = sample + step.noise * draw()
        before = prediction
    return sample
