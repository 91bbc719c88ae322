"""Our backward passes for CPUs give PyTorch's gradients, where those are right."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from nova.autoencoders.cpu import conv3d, group_norm

CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}


def randn(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("shape", [(2, 8, 6, 5), (2, 8, 3, 6, 5), (1, 8, 1, 1, 2)])
@pytest.mark.parametrize("channels_last", [False, True])
def test_group_norm_equals_pytorch(shape: tuple[int, ...], channels_last: bool) -> None:
    x, upstream = randn(*shape, seed=0) * 2 + 3, randn(*shape, seed=1)
    if channels_last:
        x = x.contiguous(memory_format=CHANNELS_LAST[x.ndim])
    leaves = (x.requires_grad_(), randn(8, seed=2).requires_grad_(), randn(8, seed=3).requires_grad_())

    ours = group_norm(leaves[0], 4, leaves[1], leaves[2], 1e-6)
    theirs = F.group_norm(leaves[0], 4, leaves[1], leaves[2], 1e-6)
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(
        torch.autograd.grad(ours, leaves, upstream), torch.autograd.grad(theirs, leaves, upstream)
    )


def test_group_norm_in_bfloat16_is_near_the_exact_gradient() -> None:
    x, upstream = randn(2, 8, 3, 16, 16, seed=0).bfloat16().requires_grad_(), randn(2, 8, 3, 16, 16, seed=1)
    weight, bias = randn(8, seed=2).float(), randn(8, seed=3).float()
    (ours,) = torch.autograd.grad(group_norm(x, 4, weight, bias, 1e-6), x, upstream.bfloat16())
    exact = x.detach().double().requires_grad_()
    (theirs,) = torch.autograd.grad(F.group_norm(exact, 4, weight.double(), bias.double(), 1e-6), exact, upstream)
    assert (ours - theirs).norm() < 0.01 * theirs.norm()


@pytest.mark.parametrize(
    ("channels", "places", "kernel", "stride"),
    [
        (32, (3, 64, 64), (3, 3, 3), (1, 1, 1)),  # a shape that oneDNN gets wrong
        (32, (1, 64, 64), (1, 3, 3), (1, 1, 1)),  # likewise
        (4, (5, 9, 9), (3, 3, 3), (2, 2, 2)),
        (4, (3, 6, 6), (1, 1, 1), (1, 1, 1)),
    ],
)
def test_conv3d_in_bfloat16_is_near_the_exact_gradients(
    channels: int, places: tuple[int, ...], kernel: tuple[int, ...], stride: tuple[int, ...]
) -> None:
    x = randn(2, channels, *places, seed=0).bfloat16().contiguous(memory_format=torch.channels_last_3d)
    weight = randn(channels, channels, *kernel, seed=1).bfloat16()
    leaves = [value.requires_grad_() for value in (x, weight, randn(channels, seed=2).bfloat16())]
    exact = [value.detach().float().requires_grad_() for value in leaves]
    padding = (0, kernel[1] // 2, kernel[2] // 2)

    ours, theirs = conv3d(*leaves, stride, padding), F.conv3d(*exact, stride, padding)
    upstream = randn(*theirs.shape, seed=3).bfloat16()
    assert (ours - theirs).norm() < 0.01 * theirs.norm()
    for mine, right in zip(
        torch.autograd.grad(ours, leaves, upstream),
        torch.autograd.grad(theirs, exact, upstream.float()),
        strict=True,
    ):
        assert (mine - right).norm() < 0.01 * right.norm()


def test_frozen_weights_pass_the_gradient_on() -> None:
    x = randn(2, 8, 3, 4, 4, seed=0).bfloat16().requires_grad_()
    weight, ones = randn(8, 8, 3, 3, 3, seed=1).bfloat16(), torch.ones(8)
    group_norm(conv3d(x, weight, None, (1, 1, 1), (0, 1, 1)), 4, ones, ones, 1e-6).square().sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()


def test_autocast_reaches_the_convolution() -> None:
    x, weight = randn(1, 2, 3, 4, 4, seed=0).float(), randn(2, 2, 3, 3, 3, seed=1).float().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        y = conv3d(x, weight, None, (1, 1, 1), (0, 1, 1))
    y.float().sum().backward()
    assert y.dtype == torch.bfloat16
    assert weight.grad is not None
    assert weight.grad.dtype == torch.float32
