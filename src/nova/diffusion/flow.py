"""Flow matching: a straight line from noise to sample, followed by Euler steps (Lipman et al., arXiv 2210.02747)."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from typing import TypeVar

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from nova.diffusion.multistep import known_order, two_step
from nova.diffusion.process import SolverStep
from nova.errors import UsageError


@dataclasses.dataclass(frozen=True)
class FlowProcess:
    """`x_sigma = sigma noise + (1 - sigma) x`; the network predicts the velocity `noise - x`."""

    train_steps: int = 1000
    shift: float = 1.0
    """Moves noise levels towards noise: sigma -> shift sigma / (1 + (shift - 1) sigma)."""
    order: int = 1
    """Of the solver: 1 takes the published Euler steps, 2 two-step ones."""

    def of_order(self, order: int) -> FlowProcess:
        """The same process with a solver of that order."""
        return dataclasses.replace(self, order=known_order(order))

    def table(self, steps: int, shift: float | None = None) -> tuple[SolverStep, ...]:
        """Steps over levels evenly spaced between the trained extremes, then shifted.

        The extremes are those of the config's own shift; `shift` replaces it for the levels in between. Of order 2 the
        last step is as long as the others, in place of one over the last thousandth.
        """
        if steps < 1:
            raise UsageError(f"num_diffusion_steps: {steps}; use 1 or more")
        if shift is not None and shift <= 0:
            raise UsageError(f"flow_shift: {shift}; use a number above 0")
        if self.order == 2:
            even = [_shifted(1 - step / steps, self.shift if shift is None else shift) for step in range(steps + 1)]
            return two_step(
                "velocity", [level * self.train_steps for level in even[:-1]], [(1 - level, level) for level in even]
            )
        # In float32, as the published sampler forms them: at time 1000 its rounding is visible in the embedding.
        last = _shifted(1 / self.train_steps, self.shift) * self.train_steps
        levels = np.linspace(self.train_steps, last, steps, dtype=np.float32) / self.train_steps
        levels = _shifted(levels, self.shift if shift is None else shift)
        times = levels * self.train_steps
        return tuple(
            SolverStep(time=float(time), sample=1.0, prediction=float(later) - float(now))
            for time, (now, later) in zip(times, itertools.pairwise([*levels, 0.0]), strict=True)
        )

    def draw_indices(self, shape: Sequence[int], generator: torch.Generator) -> Int[Tensor, "..."]:
        """Logit-normal: the sigmoid of a normal, cut into `train_steps` bins; index 0 is pure noise."""
        uniform = torch.randn(tuple(shape), generator=generator).sigmoid()
        return (uniform * self.train_steps).long().clamp(max=self.train_steps - 1)

    def times(self, indices: Int[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """1000 times the noise level."""
        return self._levels(indices, torch.float32) * self.train_steps

    def add_noise(
        self, clean: Float[Tensor, "*shape p"], noise: Float[Tensor, "*shape p"], indices: Int[Tensor, "*shape"]
    ) -> Float[Tensor, "*shape p"]:
        """`sigma noise + (1 - sigma) clean`."""
        sigma = self._levels(indices, clean.dtype).unsqueeze(-1)
        return sigma * noise + (1 - sigma) * clean

    def target(
        self, clean: Float[Tensor, "*shape p"], noise: Float[Tensor, "*shape p"], indices: Int[Tensor, "*shape"]
    ) -> Float[Tensor, "*shape p"]:
        """The velocity, the same at every level."""
        return noise - clean

    def _levels(self, indices: Int[Tensor, "*shape"], dtype: torch.dtype) -> Tensor:
        level = (self.train_steps - indices.double()) / self.train_steps
        return _shifted(level, self.shift).to(dtype)


Level = TypeVar("Level", float, np.ndarray, Tensor)


def _shifted(level: Level, shift: float) -> Level:
    return shift * level / (1 + (shift - 1) * level)
