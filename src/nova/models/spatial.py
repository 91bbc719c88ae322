"""Set by set: the masked spatial encoder and decoder of one frame (paper section 3.3).

The encoder half sees the known tokens behind the temporal condition, all attending to each other. Its outputs return
to their places among the mask vectors of the unknown tokens; the decoder half sees condition and all tokens. What
comes out at a place is the condition under which the denoising MLP samples the token there.
"""

from __future__ import annotations

import dataclasses

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor, nn

from nova.layers.positions import Rotation, grid_positions, plane_embedding, rotary_angles
from nova.layers.transformer import Block, take_rows
from nova.models.config import NovaConfig


@dataclasses.dataclass(frozen=True)
class Places:
    """Positions of a frame's tokens, `grid` rows and columns: added to them, or turning their queries and keys."""

    grid: tuple[int, int]
    added: Float[Tensor, "n width"] | None
    turned: Rotation | None


class SpatialEncoder(nn.Module):
    """Bidirectional transformer in two halves. Parameters only: nothing is kept between calls."""

    def __init__(self, config: NovaConfig) -> None:
        super().__init__()
        self.rotary = config.rotary
        self.head_dim = config.width // config.heads
        self.trained_grid = config.grid
        self.embed = nn.Linear(config.token_numbers, config.width)
        self.mask = nn.Parameter(torch.randn(1, config.width) * 0.02)
        self.encoder = nn.ModuleList(Block(config.width, config.heads) for _ in range(config.spatial_encoder_layers))
        self.decoder = nn.ModuleList(Block(config.width, config.heads) for _ in range(config.spatial_decoder_layers))
        self.norm = nn.LayerNorm(config.width)

    def places(self, grid: tuple[int, int], condition_tokens: int) -> Places:
        """Positions for frames of `grid` (rows, columns) tokens behind `condition_tokens` temporal ones.

        They depend on sizes only, so a flow asks once and hands them to every call.
        """
        weight = self.embed.weight
        if not self.rotary:
            added = plane_embedding(*grid, weight.shape[0], self.trained_grid, weight.device)
            return Places(grid, added.to(weight.dtype), None)
        origin = torch.zeros(condition_tokens, 3, dtype=torch.long, device=weight.device)
        positions = torch.cat([origin, grid_positions(0, *grid, weight.device)])
        return Places(grid, None, rotary_angles(positions.unsqueeze(0), self.head_dim))

    def forward(
        self,
        tokens: Float[Tensor, "b n p"],
        known: Int[Tensor, "b k"],
        condition: Float[Tensor, "g b m width"],
        places: Places,
        real: Bool[Tensor, "b k"] | None = None,
        chosen: Int[Tensor, "b s"] | None = None,
    ) -> Float[Tensor, "g b s width"]:
        """Features of the `chosen` places, or of all, in every guidance branch, given the tokens at the `known` places.

        Unknown tokens are not read. Where rows have unequally many known tokens, `real` marks which of the `known`
        are places; the others may be any number.
        """
        branches, batch, context = condition.shape[:3]
        count = tokens.shape[1]
        index = known if real is None else known.masked_fill(~real, 0)
        present = self.embed(take_rows(tokens, index))
        canvas = self.mask.expand(batch, count, -1)
        if places.added is not None:
            present = present + places.added[index]
            canvas = canvas + places.added
        index, seen = _for_each(branches, index), None
        x = torch.cat([condition.flatten(0, 1), _for_each(branches, present)], dim=1)
        rotation = _rotation_of(places.turned, index, context)
        if real is not None:
            real = _for_each(branches, real)
            seen = torch.cat([real.new_ones(len(real), context), real], dim=1)
        for block in self.encoder:
            x, _ = block(x, rotation, real=seen)
        if real is not None:
            index = index.masked_fill(~real, count)  # a row beyond the frame takes what is no place
            canvas = torch.cat([canvas, canvas[:, :1]], dim=1)
        index = index.unsqueeze(-1).expand(-1, -1, canvas.shape[-1])
        everything = _for_each(branches, canvas).scatter(1, index, x[:, context:].to(canvas))[:, :count]
        x = torch.cat([x[:, :context], everything], dim=1)
        del everything  # the decoder needs the memory
        *blocks, last = self.decoder
        for block in blocks:
            x, _ = block(x, places.turned)
        # Beyond the last layer's keys and values nothing but the result is needed.
        x, _ = last(x, places.turned, rows=None if chosen is None else _for_each(branches, chosen) + context)
        return self.norm(x[:, context:] if chosen is None else x).unflatten(0, (branches, batch))


def _for_each(branches: int, x: Shaped[Tensor, "b *rest"]) -> Shaped[Tensor, "gb *rest"]:
    """A batch for every guidance branch, without a copy where the batch is one sample."""
    return x.expand(branches, *x.shape).flatten(0, 1)


def _rotation_of(turned: Rotation | None, known: Int[Tensor, "b k"], context: int) -> Rotation | None:
    """Rotary angles of the context tokens and of each row's own known places."""
    if turned is None:
        return None
    origin = torch.arange(context, device=known.device).expand(len(known), -1)
    rows = torch.cat([origin, known + context], dim=1)
    cos, sin = (part[0][rows] for part in turned)
    return cos, sin
