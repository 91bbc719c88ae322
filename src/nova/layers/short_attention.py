"""Attention of a training step on a CPU, for short sequences: matrix products written out, with their derivatives.

torch's fused kernel for CPUs is many times slower in its backward pass than two matrix products. Left to autograd, they
would keep every weight twice, in float32 too, and copy the keys and values of every prefix in either direction.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor


class ShortAttention(torch.autograd.Function):
    """Block-causal attention as in `nova.layers.attention`; with one block everything attends to everything."""

    @staticmethod
    def forward(
        ctx: Any,
        q: Float[Tensor, "b heads s d"],
        k: Float[Tensor, "b heads e d"],
        v: Float[Tensor, "b heads e d"],
        blocks: tuple[int, ...],
        real: Bool[Tensor, "b 1 1 e"] | None,
    ) -> Float[Tensor, "b heads s d"]:
        """`blocks` divide the queries; the last block sees all keys. Keys that are not `real` are not seen."""
        scale, attended, weights = q.shape[-1] ** -0.5, [], []
        queries, keys, values = (each.flatten(0, 1) for each in (q, k, v))
        keys = keys * scale
        for asking, seen in _spans(blocks, k.shape[2]):
            scores = queries[:, asking] @ keys[:, seen].mT
            if real is not None:
                scores = scores.unflatten(0, q.shape[:2]).masked_fill(~real, -torch.inf).flatten(0, 1)
            weights.append(scores.softmax(dim=-1).to(v.dtype))
            attended.append(weights[-1] @ values[:, seen])
        ctx.save_for_backward(queries, keys, values, *weights)
        ctx.blocks, ctx.scale = blocks, scale
        return torch.cat(attended, dim=1).view_as(q)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Derivatives by q, k and v."""
        queries, keys, values, *weights = ctx.saved_tensors
        gradient, by_queries = gradients[0].flatten(0, 1), []
        by_keys, by_values = torch.zeros_like(keys), torch.zeros_like(values)
        for (asking, seen), weight in zip(_spans(ctx.blocks, keys.shape[1]), weights, strict=True):
            given = gradient[:, asking]
            by_values[:, seen].baddbmm_(weight.mT, given)
            by_weight = given @ values[:, seen].mT
            by_score = torch.ops.aten._softmax_backward_data(by_weight, weight, -1, weight.dtype)
            by_queries.append(by_score @ keys[:, seen])
            by_keys[:, seen].baddbmm_(by_score.mT, queries[:, asking], alpha=ctx.scale)
        rows = gradients[0].shape[:2]
        by_all = (torch.cat(by_queries, dim=1), by_keys, by_values)
        return *(each.unflatten(0, rows) for each in by_all), None, None


def _spans(blocks: tuple[int, ...], keys: int) -> Iterator[tuple[slice, slice]]:
    """The queries of each block and the keys that they see."""
    start, before = 0, keys - sum(blocks)
    for length in blocks:
        yield slice(start, start + length), slice(before + start + length)
        start += length
