"""Which tokens are known when: the sizes of a frame's sets, and the random subset known in training.

In generation a frame is made set by set along one random order (paper section 3.3); in training a random subset of
its tokens is known and the others are predicted.
"""

from __future__ import annotations

import itertools
import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def set_sizes(tokens: int, steps: int) -> list[int]:
    """How many tokens each autoregressive step predicts: a cosine schedule, empty steps left out.

    After step i of K the number still unknown is round(tokens * cos(pi/2 * i/K)). The sizes add up to `tokens`.
    """
    unknown = [round(tokens * math.cos(math.pi / 2 * step / steps)) for step in range(steps)] + [0]
    return [before - after for before, after in itertools.pairwise(unknown) if before > after]


def draw_mask_ratio(
    generator: torch.Generator, mean: float = 1.0, std: float = 0.25, low: float = 0.7, high: float = 1.0
) -> float:
    """One mask ratio of training: a normal truncated to [low, high], by inverting its distribution function."""
    normal = torch.distributions.Normal(torch.tensor(mean, dtype=torch.float64), torch.tensor(std, dtype=torch.float64))
    bottom, top = normal.cdf(torch.tensor([low, high], dtype=torch.float64)).tolist()
    uniform = torch.rand((), generator=generator, dtype=torch.float64)
    return float(normal.icdf(bottom + (top - bottom) * uniform).clamp(low, high))


def lowest(scores: Float[Tensor, "*lead n"], count: int) -> Bool[Tensor, "*lead n"]:
    """Marks the `count` lowest scores of every row: uniform scores make a uniformly random subset."""
    marks = torch.zeros_like(scores, dtype=torch.bool)
    return marks.scatter(-1, scores.argsort(dim=-1)[..., :count], True)
