"""Group norm and 3-D convolution with backward passes of their own for CPUs. Elsewhere they are PyTorch's.

* The gradient of a channels-last group norm in bfloat16 takes PyTorch (2.13) four times as long as all
  convolutions of the autoencoder together; as sums and multiply-adds over whole tensors it takes less than they.
* The weight gradient of a bfloat16 3-D convolution is wrong on CPUs with matrix units (oneDNN 3.12, AMX): for 32
  channels of 64x64, say, it holds NaN or uninitialised numbers. 2-D convolutions are right, and a 3-D one's
  weight gradient is that of one 2-D convolution for each place of the kernel in time.

Forward passes are PyTorch's everywhere.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

Size = tuple[int, ...]


def group_norm(
    x: Float[Tensor, "b c *places"],
    groups: int,
    weight: Float[Tensor, " c"],
    bias: Float[Tensor, " c"],
    eps: float,
) -> Float[Tensor, "b c *places"]:
    """`torch.nn.functional.group_norm`; on CPUs differentiable once."""
    if x.device.type == "cpu" and torch.is_grad_enabled():
        return _GroupNorm.apply(x, weight, bias, groups, eps)
    return F.group_norm(x, groups, weight, bias, eps)


def conv3d(
    x: Float[Tensor, "b c t h w"],
    weight: Float[Tensor, "d c kt kh kw"],
    bias: Float[Tensor, " d"] | None,
    stride: Size,
    padding: Size,
) -> Float[Tensor, "b d u y x"]:
    """`torch.nn.functional.conv3d` without padding in time; in half precision on CPUs differentiable once."""
    if x.device.type == "cpu" and torch.is_grad_enabled():
        if torch.is_autocast_enabled("cpu"):
            dtype = torch.get_autocast_dtype("cpu")
            x, weight, bias = x.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype)
        if x.dtype in (torch.bfloat16, torch.float16):
            return _Conv3d.apply(x, weight, bias, stride, padding)
    return F.conv3d(x, weight, bias, stride, padding)


class _GroupNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float) -> Tensor:
        batch, channels, places = *x.shape[:2], x.shape[2:].numel()
        y, mean, rstd = torch.native_group_norm(x, weight, bias, batch, channels, places, groups, eps)
        ctx.save_for_backward(x, weight, mean, rstd)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        """With x̂ = (x - mean) · rstd and n numbers in a group:

        dx = rstd · (weight · dy - (Σ weight · dy + x̂ · Σ weight · dy · x̂) / n), Σ over the group.
        """
        x, weight, mean, rstd = ctx.saved_tensors
        groups, per_group = mean.shape[1], x.shape[1] // mean.shape[1]
        count = x.shape[2:].numel() * per_group

        def per_channel(value: Tensor) -> Tensor:
            return value.repeat_interleave(per_group, dim=1)

        def over_group(value: Tensor) -> Tensor:
            return per_channel(value.unflatten(1, (groups, per_group)).sum(2))

        def broad(value: Tensor) -> Tensor:
            return value.to(x.dtype)[..., None]

        mean, rstd = per_channel(mean), per_channel(rstd)
        dy = grad.flatten(2)
        centred = x.flatten(2) - broad(mean)
        dy_sum = dy.sum(2, dtype=mean.dtype)
        dy_x_sum = (dy * centred).sum(2, dtype=mean.dtype) * rstd
        shift = -over_group(weight * dy_sum) * rstd / count
        slope = -over_group(weight * dy_x_sum) * rstd * rstd / count

        dx = torch.addcmul(broad(shift), centred, broad(slope)).addcmul_(dy, broad(weight * rstd))
        grads = dy_x_sum.sum(0).to(weight.dtype), dy_sum.sum(0).to(weight.dtype)
        return dx.view_as(x), *grads, None, None


class _Conv3d(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, stride: Size, padding: Size) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride, ctx.padding, ctx.has_bias = stride, padding, bias is not None
        return F.conv3d(x, weight, bias, stride, padding)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None, None]:
        x, weight = ctx.saved_tensors
        dx = dweight = dbias = None
        if ctx.needs_input_grad[0]:
            dx = _convolution_gradient(grad, x, weight, ctx.stride, ctx.padding, "input")
        if ctx.needs_input_grad[1]:
            dweight = _weight_gradient(grad, x, weight, ctx.stride, ctx.padding)
        if ctx.needs_input_grad[2]:
            dbias = grad.sum((0, 2, 3, 4), dtype=torch.float32).to(grad.dtype)
        return dx, dweight, dbias, None, None


def _weight_gradient(grad: Tensor, x: Tensor, weight: Tensor, stride: Size, padding: Size) -> Tensor:
    """All frames of all clips in one row: frame j of the output's gradient meets frame j + k of x at place k.

    The gradient is laid out like x, zero at frames that no output has, so that what meets across clips adds zero.
    """
    outputs = grad.shape[2]
    row = grad.new_zeros(x.shape[0], x.shape[2], *grad.shape[3:], grad.shape[1])
    row[:, : stride[0] * (outputs - 1) + 1 : stride[0]] = grad.movedim(1, -1)
    outs, ins = row.flatten(0, 1).movedim(-1, 1), x.transpose(1, 2).flatten(0, 1)
    places = [
        _convolution_gradient(outs[: len(outs) - k], ins[k:], weight[:, :, k], stride[1:], padding[1:], "weight")
        for k in range(weight.shape[2])
    ]
    return torch.stack(places, dim=2)


def _convolution_gradient(
    grad: Tensor, x: Tensor, weight: Tensor, stride: Size, padding: Size, of: Literal["input", "weight"]
) -> Tensor:
    """PyTorch's gradient of a convolution, of one of its arguments only, in the memory format of `x`."""
    ones, zeros = [1] * len(stride), [0] * len(stride)
    wanted = [of == "input", of == "weight", False]
    gradients = torch.ops.aten.convolution_backward(
        grad, x, weight, None, stride, padding, ones, False, zeros, 1, wanted
    )
    return gradients[wanted.index(True)]
