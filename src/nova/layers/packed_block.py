"""The transformer block for a CPU that only generates.

With a hundred tokens, a CPU spends a quarter of a block's time between its products: on looking up modules, and on
filling up the rows of every packed layer. Here weights are looked up once, and tokens are rows of one matrix that is
filled up at the beginning and stays so. Large models gain, too: memory is asked for less often.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from nova.errors import UsageError
from nova.layers.attention import KeyValue, attend
from nova.layers.packed import PackedLinear, PlainLinear
from nova.layers.positions import Rotation
from nova.layers.transformer import Block, take_rows


class PackedBlock(nn.Module):
    """A `Block` whose weights are laid out for generation, by layers of the class `linear`; called like it."""

    def __init__(self, block: Block, linear: type[PackedLinear | PlainLinear]) -> None:
        super().__init__()
        self.heads = block.attn.heads
        attn, mlp, norms = block.attn, block.mlp, (block.norm1, block.norm2)
        layers = linear(attn.qkv), linear(attn.proj), linear(mlp.fc1, mlp.activation), linear(mlp.fc2)
        self.layers, self.norms = nn.ModuleList(layers), nn.ModuleList(norms)
        # Looked up once: modules and their weights are slow to find.
        self._rows, self._products = linear.rows, tuple(layer.multiply for layer in layers)
        self._norms = tuple((norm.normalized_shape, norm.weight, norm.bias, norm.eps) for norm in norms)

    def _save_to_state_dict(self, *_: Any) -> None:
        raise UsageError("this model is packed for generation: save it before pack()")

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
        """As `Block.forward`."""
        (qkv, proj, fc1, fc2), (norm1, norm2) = self._products, self._norms
        (batch, count, _), tokens = x.shape, self._rows(x)
        parts = (batch, count, 3, self.heads, -1)
        attended, kept = attend(qkv(tokens)[: batch * count].view(parts), rotation, past, blocks, real, rows, keep)
        if rows is not None:
            tokens, count = self._rows(take_rows(x, rows)), rows.shape[1]
        tokens = tokens + torch.layer_norm(proj(self._rows(attended)), *norm1)
        del attended  # from here on another tensor needs the memory
        tokens = tokens + torch.layer_norm(fc2(fc1(tokens)), *norm2)
        return tokens[: batch * count].view(batch, count, -1), kept
