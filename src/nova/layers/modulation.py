"""Scale and shift of features by a condition, through a low rank if asked (paper section 3.3)."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn


class ScaleShift(nn.Module):
    """`anchor * (1 + scale) + shift`, with `[scale, shift] = Linear(LowRank(SiLU(condition)))`.

    A `rank` of None leaves the bottleneck out.
    """

    def __init__(self, width: int, rank: int | None) -> None:
        super().__init__()
        self.activation = nn.SiLU()
        self.low_rank = nn.Linear(width, rank, bias=False) if rank else nn.Identity()
        self.proj = nn.Linear(rank or width, 2 * width)

    def forward(
        self, anchor: Float[Tensor, "*lead width"], condition: Float[Tensor, "*#lead width"]
    ) -> Float[Tensor, "*lead width"]:
        """Modulate `anchor`, per token and channel."""
        scale, shift = self.proj(self.low_rank(self.activation(condition))).chunk(2, dim=-1)
        return anchor * (1 + scale) + shift
