"""What the video is to be about, as prompt tokens: text or class label, motion score and frame rate.

In a batch much of it is the same: the null prompt of guidance, the prompt of several samples. `Prompts` holds what is
the same once, so that what follows from it is computed once.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable, Iterable, Sequence
from typing import TypeVar

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn

from nova.layers.positions import SCALAR_FREQUENCIES, scalar_embedding
from nova.layers.transformer import Projector

_Key = TypeVar("_Key", bound=Hashable)


@dataclasses.dataclass(frozen=True)
class Prompts:
    """The prompts of a batch, each different one once, and who has which.

    Who has which is known where prompts come from; tensors are not compared, for which a GPU would have to be waited.
    """

    rows: Shaped[Tensor, "r *rest"]
    """Different prompts: text rows (r l dim), labels (r), or the prompt tokens (r l width) made of them."""
    index: tuple[tuple[int, ...], ...]
    """For every guidance branch and, within it, every sample: its row."""

    @classmethod
    def unshared(cls, prompt: Shaped[Tensor, "g b *rest"]) -> Prompts:
        """Of a tensor with a prompt for every branch and sample, none of which is known to equal another."""
        branches, batch = prompt.shape[:2]
        return cls(prompt.flatten(0, 1), tuple(tuple(range(g * batch, (g + 1) * batch)) for g in range(branches)))

    def __len__(self) -> int:
        """Samples."""
        return len(self.index[0])

    def __getitem__(self, samples: slice) -> Prompts:
        """The prompts of some samples, without rows that only others have."""
        part = [branch[samples] for branch in self.index]
        places = numbered(row for branch in part for row in branch)
        return Prompts(self.rows[list(places)], tuple(tuple(places[row] for row in branch) for branch in part))


def numbered(values: Iterable[_Key]) -> dict[_Key, int]:
    """Every different value, numbered from 0 in the order in which they come up."""
    return {value: number for number, value in enumerate(dict.fromkeys(values))}


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
