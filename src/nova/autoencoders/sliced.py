"""The video autoencoder's decoder in little memory: every layer frame by frame, with its norms' statistics taken first.

The same function as `Decoder.forward`, up to rounding, and the same operations but for a second look at what a norm is
taken of. Where a layer at full size holds some six clips of its width, this holds its input and its output: frames are
normed only when the convolution comes to them, and a residual block's second convolution writes over its first one's
result. Inference only.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from nova.autoencoders.blocks import (
    CausalConv3d,
    GroupNorm,
    TimeUpsample,
    Upsample,
    double_frames,
)
from nova.autoencoders.cpu import conv3d

Frame = Float[Tensor, "b c 1 h w"]


def decode_sliced(decoder: Any, latents: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b d f H W"]:
    """What a `Decoder` makes of `latents`."""
    x = decoder.mid_block(decoder.conv_in(latents))
    for block in decoder.up_blocks:
        for resnet in block.resnets:
            x = _residual(resnet, x)
        for step in block.upsamplers:
            x = _upsampled(step, x)
    return torch.cat(tuple(_convolved(decoder.conv_out, _normed(decoder.conv_norm_out, x))), dim=2)


def _residual(block: Any, x: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b d t h w"]:
    """What a `ResidualBlock` makes of `x`."""
    inner = _collected(_convolved(block.conv1, _normed(block.norm1, x)), x.shape[2])
    # By the time that a frame is written, the convolution has taken all that it will of the frame's old content.
    for index, frame in enumerate(_convolved(block.conv2, _normed(block.norm2, inner))):
        own = x[:, :, index : index + 1]
        inner[:, :, index : index + 1] = frame + (own if block.conv_shortcut is None else block.conv_shortcut(own))
    return inner


def _upsampled(step: Upsample | TimeUpsample, x: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b c u 2*h 2*w"]:
    mode = "nearest"
    if isinstance(step, TimeUpsample):
        mode = "bilinear"
        if x.shape[2] > 1:
            x = torch.cat([x[:, :, :1], double_frames(x[:, :, 1:])], dim=2)
    corners = None if mode == "nearest" else False
    larger = (
        F.interpolate(frame.squeeze(2), scale_factor=2.0, mode=mode, align_corners=corners).unsqueeze(2)
        for frame in x.split(1, dim=2)
    )
    return _collected(_convolved(step.conv, larger), x.shape[2])


def _normed(norm: GroupNorm, x: Float[Tensor, "b c t h w"]) -> Iterator[Frame]:
    """SiLU of the group norm of `x`, frame by frame; the statistics, in float32, are those of all frames."""
    groups, places = norm.num_groups, x[0, 0].numel() * x.shape[1] // norm.num_groups
    frames = x.split(1, dim=2)
    mean = torch.stack([_grouped(frame, groups).sum(2) for frame in frames]).sum(0).unsqueeze(2) / places
    squares = torch.stack([(_grouped(frame, groups) - mean).square_().sum(2) for frame in frames]).sum(0)
    slope = norm.weight.float() * (squares / places + norm.eps).rsqrt().repeat_interleave(x.shape[1] // groups, dim=1)
    offset = norm.bias.float() - mean.squeeze(2).repeat_interleave(x.shape[1] // groups, dim=1) * slope
    slope, offset = (part[:, :, None, None, None] for part in (slope, offset))
    for frame in frames:
        yield F.silu(torch.addcmul(offset, frame.float(), slope), inplace=True).to(x.dtype)


def _grouped(frame: Frame, groups: int) -> Float[Tensor, "b groups places"]:
    return frame.float().reshape(len(frame), groups, -1)


def _convolved(conv: CausalConv3d, frames: Iterable[Frame]) -> Iterator[Frame]:
    """The causal convolution of `frames` as they come: each with the frames before it that the kernel sees."""
    seen: deque[Tensor] = deque(maxlen=conv.kernel_size[0])
    for frame in frames:
        seen.extend([frame] if seen else [frame] * conv.kernel_size[0])
        yield conv3d(torch.cat(tuple(seen), dim=2), conv.weight, conv.bias, conv.stride, conv.space_padding)


def _collected(frames: Iterable[Frame], count: int) -> Float[Tensor, "b c count h w"]:
    """All frames in one tensor, without holding them twice."""
    whole: Tensor | None = None
    for index, frame in enumerate(frames):
        if whole is None:
            whole = frame.new_empty(*frame.shape[:2], count, *frame.shape[3:])
        whole[:, :, index : index + 1] = frame
    assert whole is not None  # clips have at least one frame
    return whole
