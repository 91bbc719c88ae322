"""What the video is to be about, as prompt tokens: text or class label, motion score and frame rate."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from nova.layers.positions import SCALAR_FREQUENCIES, scalar_embedding
from nova.layers.transformer import Projector


class TextCondition(nn.Module):
    """Text features to prompt tokens: `LayerNorm(Linear(rows))`.

    There are always as many rows as `tokens`: those after a prompt's end, and all rows of the empty prompt (the null
    condition of guidance), come from a stored table that is not learned.
    """

    NULL_ROWS = 512

    def __init__(self, text_dim: int, width: int, tokens: int) -> None:
        super().__init__()
        self.tokens = tokens
        self.proj = nn.Linear(text_dim, width)
        self.norm = nn.LayerNorm(width)
        self.register_buffer("null_rows", torch.randn(self.NULL_ROWS, text_dim) * 0.02)

    null_rows: Tensor

    def rows(self, features: Sequence[Float[Tensor, "_ dim"]]) -> Float[Tensor, "b l dim"]:
        """One block of rows per prompt from its features, at most `tokens` each; an empty tensor is the null prompt."""
        return text_rows(self.null_rows[: self.tokens], features)

    def forward(self, rows: Float[Tensor, "b l dim"]) -> Float[Tensor, "b l width"]:
        """Prompt tokens of the rows."""
        return self.norm(self.proj(rows))


def text_rows(
    null_rows: Float[Tensor, "l dim"], features: Sequence[Float[Tensor, "_ dim"]]
) -> Float[Tensor, "b l dim"]:
    """`TextCondition.rows` for whoever holds the null rows only, such as a process that loads data."""
    blocks = null_rows.repeat(len(features), 1, 1)
    for block, prompt in zip(blocks, features, strict=True):
        block[: len(prompt)] = prompt[: len(block)].to(block)
    return blocks


class LabelCondition(nn.Module):
    """A class label to one prompt token; the table's last row is the null class of guidance."""

    def __init__(self, classes: int, width: int) -> None:
        super().__init__()
        self.null_class = classes
        self.table = nn.Parameter(torch.randn(classes + 1, width) * 0.02)
        self.norm = nn.LayerNorm(width)

    def forward(self, labels: Int[Tensor, "b"]) -> Float[Tensor, "b 1 width"]:
        """Prompt token of each label in 0..classes."""
        return self.norm(self.table[labels]).unsqueeze(1)


class MotionCondition(nn.Module):
    """Motion score and frame rate to two prompt tokens."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.motion = Projector(2 * SCALAR_FREQUENCIES, width)
        self.frame_rate = Projector(2 * SCALAR_FREQUENCIES, width)

    def forward(self, motion: Float[Tensor, "b"], frame_rate: Float[Tensor, "b"]) -> Float[Tensor, "b 2 width"]:
        """`motion`: mean optical-flow distance in pixels a frame; `frame_rate`: frames a second."""
        dtype = self.motion.fc1.weight.dtype
        tokens = [
            self.motion(scalar_embedding(motion).to(dtype)),
            self.frame_rate(scalar_embedding(frame_rate).to(dtype)),
        ]
        return torch.stack(tokens, dim=1)
