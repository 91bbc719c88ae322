"""The transformer block for a CPU that only generates.

With a hundred tokens, a CPU spends a quarter of a block's time between its products: on looking up modules, and on
filling up the rows of every packed layer. Here weights are looked up once, and tokens are rows of one matrix that is
filled up at the beginning and stays so.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from nova.layers.attention import KeyValue, attend
from nova.layers.packed import PackedLinear, filled
from nova.layers.positions import Rotation
from nova.layers.transformer import Block, take_rows


class PackedBlock(nn.Module):
    """A `Block` with its weights laid out for generation; called like it."""

    def __init__(self, block: Block) -> None:
        super().__init__()
        self.heads = block.attn.heads
        attn, mlp, norms = block.attn, block.mlp, (block.norm1, block.norm2)
        fc1, fc2 = PackedLinear(mlp.fc1, mlp.activation), PackedLinear(mlp.fc2)
        layers = PackedLinear(attn.qkv), PackedLinear(attn.proj), fc1, fc2
        self.layers, self.norms = nn.ModuleList(layers), nn.ModuleList(norms)
        # Looked up once: modules and their weights are slow to find.
        self._products = tuple(layer.multiply for layer in layers)
        self._norms = tuple((norm.normalized_shape, norm.weight, norm.bias, norm.eps) for norm in norms)

    def forward(
        self,
        x: Float[Tensor, "b s width"],
        rotation: Rotation | None = None,
        past: KeyValue | None = None,
        blocks: tuple[int, ...] | None = None,
        real: Bool[Tensor, "b s"] | None = None,
        rows: Int[Tensor, "b r"] | None = None,
    ) -> tuple[Float[Tensor, "b r width"], KeyValue]:
        """As `Block.forward`."""
        (qkv, proj, fc1, fc2), (norm1, norm2) = self._products, self._norms
        (batch, count, _), tokens = x.shape, filled(x)
        parts = qkv(tokens)[: batch * count].view(batch, count, 3, self.heads, -1)
        attended, keys_values = attend(parts, rotation, past, blocks, real, rows)
        if rows is not None:
            tokens = filled(take_rows(x, rows))
        tokens = tokens + torch.layer_norm(proj(filled(attended)), *norm1)
        tokens = tokens + torch.layer_norm(fc2(fc1(tokens)), *norm2)
        return tokens[: batch * attended.shape[1]].view(attended.shape), keys_values
