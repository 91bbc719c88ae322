"""The group norm is PyTorch's, with the same gradients."""

import pytest
import torch
from torch.nn import functional as F

from nova.autoencoders.blocks import GroupNorm


@pytest.mark.parametrize("shape", [(2, 8, 6, 5), (2, 8, 3, 6, 5), (1, 8, 1, 1, 2)])
@pytest.mark.parametrize("channels_last", [False, True])
def test_values_and_gradients_equal_pytorch(shape: tuple[int, ...], channels_last: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    norm = GroupNorm(4, 8, eps=1e-6).double()
    with torch.no_grad():
        norm.weight.normal_(generator=generator)
        norm.bias.normal_(generator=generator)
    x = torch.randn(shape, generator=generator, dtype=torch.float64) * 2 + 3
    if channels_last:
        x = x.contiguous(memory_format=torch.channels_last if x.ndim == 4 else torch.channels_last_3d)
    x.requires_grad_()
    upstream = torch.randn(shape, generator=generator, dtype=torch.float64)

    ours, theirs = norm(x), F.group_norm(x, 4, norm.weight, norm.bias, 1e-6)
    leaves = (x, norm.weight, norm.bias)
    torch.testing.assert_close(ours, theirs)
    for mine, expected in zip(
        torch.autograd.grad(ours, leaves, upstream), torch.autograd.grad(theirs, leaves, upstream), strict=True
    ):
        torch.testing.assert_close(mine, expected, rtol=1e-5, atol=1e-6)


def test_bfloat16_gradient_is_near_the_exact_one() -> None:
    generator = torch.Generator().manual_seed(0)
    norm = GroupNorm(4, 8, eps=1e-6)
    x = torch.randn(2, 8, 3, 16, 16, generator=generator).bfloat16().requires_grad_()
    upstream = torch.randn(x.shape, generator=generator).bfloat16()
    (ours,) = torch.autograd.grad(norm(x), x, upstream)
    exact_x = x.detach().double().requires_grad_()
    (exact,) = torch.autograd.grad(F.group_norm(exact_x, 4, eps=1e-6), exact_x, upstream.double())
    assert (ours.double() - exact).norm() < 5e-3 * exact.norm()


def test_frozen_weights_pass_the_gradient_on() -> None:
    norm = GroupNorm(4, 8, eps=1e-6).requires_grad_(False)
    x = torch.randn(2, 8, 3, 4, 4).requires_grad_()
    norm(x).square().sum().backward()
    assert x.grad is not None
    assert norm.weight.grad is None
