"""Group norm of channels-last clips, with a backward pass that is fast on CPUs.

PyTorch's backward of a channels-last group norm takes, in bfloat16 on a CPU, four times as long as all
convolutions of the autoencoder together. As sums and multiply-adds over whole tensors it takes less than the
convolutions. The forward pass, and everything on other devices, is PyTorch's.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


class GroupNorm(nn.GroupNorm):
    """`nn.GroupNorm`: statistics over the channels of a group and all places and frames."""

    def forward(self, x: Float[Tensor, "b c *places"]) -> Float[Tensor, "b c *places"]:
        if x.device.type != "cpu" or not torch.is_grad_enabled():
            return super().forward(x)
        return _GroupNorm.apply(x, self.weight, self.bias, self.num_groups, self.eps)


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

        mean, rstd = per_channel(mean.float()), per_channel(rstd.float())
        dy = grad.flatten(2)
        centred = x.flatten(2) - mean.to(x.dtype)[..., None]
        dy_sum = dy.sum(2, dtype=torch.float32)
        dy_x_sum = (dy * centred).sum(2, dtype=torch.float32) * rstd
        shift = -over_group(weight * dy_sum) * rstd / count
        slope = -over_group(weight * dy_x_sum) * rstd * rstd / count

        def broad(value: Tensor) -> Tensor:
            return value.to(x.dtype)[..., None]

        dx = torch.addcmul(broad(shift), centred, broad(slope)).addcmul_(dy, broad(weight * rstd))
        grads = dy_x_sum.sum(0).to(weight.dtype), dy_sum.sum(0).to(weight.dtype)
        return dx.view_as(x), *grads, None, None
