"""Multi-head self-attention with the past handed in and the present handed back.

Three uses, one function: everything attends to everything; new tokens attend to the past and to themselves; a
sequence of blocks in which each block attends to itself and to the blocks before it (block-causal, paper section
3.2). The last needs no mask: it is one dense call per block over that block's prefix.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from nova.layers.positions import Rotation, rotate
from nova.layers.short_attention import ShortAttention

_SHORT = 512
"""Up to so many keys a training step on a CPU does without torch's kernel."""

KeyValue = tuple[Float[Tensor, "_ _ _ _"], Float[Tensor, "_ _ _ _"]]
"""Keys and values of some tokens, each (b, heads, tokens, dimension of a head)."""


class Attention(nn.Module):
    """Self-attention with one fused projection in the order query, key, value."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

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
        """Attend; `keep` also returns keys and values of x, a part of the `past` of the tokens that come next.

        `blocks` are the lengths of the blocks of a block-causal sequence; their sum is s. Tokens that are not `real`
        fill up a row: nothing attends to them. It goes with neither a past nor blocks. Where `rows` are given, only the
        tokens there ask, in this order; all are asked.
        """
        parts = (3, self.heads, -1)
        attended, kept = attend(self.qkv(x).unflatten(-1, parts), rotation, past, blocks, real, rows, keep)
        return self.proj(attended), kept


def attend(
    qkv: Float[Tensor, "b s 3 heads d"],
    rotation: Rotation | None,
    past: KeyValue | None,
    blocks: tuple[int, ...] | None,
    real: Bool[Tensor, "b s"] | None,
    rows: Int[Tensor, "b r"] | None,
    keep: bool,
) -> tuple[Float[Tensor, "b r width"], KeyValue | None]:
    """What `Attention.forward` does between its two projections."""
    q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
    if rotation is not None:
        q, k = rotate(q, rotation), rotate(k, rotation)
    if rows is not None:
        q = q.gather(2, rows[:, None, :, None].expand(-1, q.shape[1], -1, q.shape[-1]))
    # Without the queries that stand beside them.
    kept = (k.contiguous(), v.contiguous()) if keep else None
    if past is not None:
        k, v = torch.cat([past[0], k], dim=2), torch.cat([past[1], v], dim=2)
    attended = _attend(q, k, v, blocks or (q.shape[2],), None if real is None else real[:, None, None])
    return attended.transpose(1, 2).flatten(2), kept


def _attend(
    q: Float[Tensor, "b heads s d"],
    k: Float[Tensor, "b heads e d"],
    v: Float[Tensor, "b heads e d"],
    blocks: tuple[int, ...],
    real: Bool[Tensor, "b 1 1 e"] | None,
) -> Float[Tensor, "b heads s d"]:
    """Queries block by block: the last block attends to all keys, each one before it to as many fewer."""
    if q.requires_grad and q.device.type == "cpu" and k.shape[2] <= _SHORT:
        return ShortAttention.apply(q, k, v, blocks, real)
    if len(blocks) == 1:
        return scaled_dot_product_attention(q, k, v, real)
    outputs, end = [], 0
    for part in q.split(blocks, dim=2):
        end += part.shape[2]
        outputs.append(scaled_dot_product_attention(part, k[:, :, :end], v[:, :, :end]))
    return torch.cat(outputs, dim=2)
