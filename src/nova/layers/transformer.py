"""The transformer block of NOVA: the norm stands on the branch, after the function and before the addition."""

from __future__ import annotations

from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor, nn

from nova.layers.attention import Attention, KeyValue
from nova.layers.positions import Rotation


class MLP(nn.Module):
    """Linear, exact GELU, Linear, at four times the width."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, 4 * width)
        self.activation = nn.GELU()
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, x: Float[Tensor, "*lead width"]) -> Float[Tensor, "*lead width"]:
        """Apply to every token by itself."""
        return self.fc2(self.activation(self.fc1(x)))


class Block(nn.Module):
    """`x + LN(Attention(x))`, then `x + LN(MLP(x))`."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attn = Attention(width, heads)
        self.norm1 = nn.LayerNorm(width)
        self.mlp = MLP(width)
        self.norm2 = nn.LayerNorm(width)

    def forward(
        self,
        x: Float[Tensor, "b s width"],
        rotation: Rotation | None = None,
        past: KeyValue | None = None,
        blocks: tuple[int, ...] | None = None,
        real: Bool[Tensor, "b s"] | None = None,
        rows: Int[Tensor, "b r"] | None = None,
        keep: bool = False,
    ) -> tuple[Float[Tensor, "b r width"], KeyValue | None]:
        """Arguments and second result as in `Attention`."""
        attended, kept = self.attn(x, rotation, past, blocks, real, rows, keep)
        x = (x if rows is None else take_rows(x, rows)) + self.norm1(attended)
        return x + self.norm2(self.mlp(x)), kept


def take_rows(x: Shaped[Tensor, "b s p"], rows: Int[Tensor, "b r"]) -> Shaped[Tensor, "b r p"]:
    """The tokens of each sample that stand at its `rows`, in their order."""
    return x.gather(1, rows.unsqueeze(-1).expand(-1, -1, x.shape[-1]))


class Projector(nn.Module):
    """Linear, SiLU, Linear: how a scalar or a condition enters the network."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(inputs, width)
        self.activation = nn.SiLU()
        self.fc2 = nn.Linear(width, width)

    def forward(self, x: Float[Tensor, "*lead inputs"]) -> Float[Tensor, "*lead width"]:
        """Project the last axis."""
        return self.fc2(self.activation(self.fc1(x)))
