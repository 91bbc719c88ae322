"""Written-out attention is what torch's attention is, with the derivatives that it has."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from nova.layers.short_attention import ShortAttention


def _inputs(queries: int = 7, keys: int = 7) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    sizes = (queries, keys, keys)
    return [torch.randn(2, 3, size, 4, dtype=torch.float64, generator=generator).requires_grad_() for size in sizes]


@pytest.mark.parametrize("blocks", [(7,), (3, 2, 2), (1, 6)])
def test_a_block_attends_to_itself_and_to_those_before_it(blocks: tuple[int, ...]) -> None:
    q, k, v = _inputs()
    owner = torch.arange(len(blocks)).repeat_interleave(torch.tensor(blocks))
    expected = scaled_dot_product_attention(q, k, v, owner[None, :] <= owner[:, None])
    torch.testing.assert_close(ShortAttention.apply(q, k, v, blocks, None), expected)


def test_the_last_block_sees_keys_of_the_past_too() -> None:
    q, k, v = _inputs(queries=3)
    expected = scaled_dot_product_attention(q, k, v)
    torch.testing.assert_close(ShortAttention.apply(q, k, v, (3,), None), expected)


@pytest.mark.parametrize(("blocks", "filled"), [((7,), 0), ((7,), 2), ((3, 2, 2), 0)])
def test_derivatives_are_those_of_the_function(blocks: tuple[int, ...], filled: int) -> None:
    real = None
    if filled:
        real = torch.ones(2, 1, 1, 7, dtype=torch.bool)
        real[1, ..., -filled:] = False
    assert torch.autograd.gradcheck(lambda *inputs: ShortAttention.apply(*inputs, blocks, real), _inputs())
