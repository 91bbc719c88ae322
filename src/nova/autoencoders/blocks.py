"""Parts of the video autoencoder: convolutions and norms over frames or clips, residual blocks, resampling.

Everything takes and gives clips `(b c t h w)`. A layer *per frame* sees each frame by itself (2-D
convolution, norm statistics of that frame); the others see the clip (causal 3-D convolution, norm statistics
over all its frames). Attributes carry the names of the published weights.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from nova.autoencoders.cpu import conv3d, group_norm

NORM_EPS = 1e-6


def fold_frames(clip: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b*t c h w"]:
    """Lay the frames of all clips one after another in the batch; a view where memory is channels-last."""
    return clip.transpose(1, 2).flatten(0, 1)


def unfold_frames(frames: Float[Tensor, "bt c h w"], t: int) -> Float[Tensor, "b c {t} h w"]:
    """The inverse of `fold_frames` for clips of `t` frames."""
    return frames.unflatten(0, (-1, t)).transpose(1, 2)


class FrameConv2d(nn.Conv2d):
    """2-D convolution of each frame."""

    def forward(self, x: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b d t y x"]:
        return unfold_frames(super().forward(fold_frames(x)), x.shape[2])


class GroupNorm(nn.GroupNorm):
    """Group norm over the channels of a group and all frames and places."""

    def forward(self, x: Float[Tensor, "b c *places"]) -> Float[Tensor, "b c *places"]:
        return group_norm(x, self.num_groups, self.weight, self.bias, self.eps)


class FrameGroupNorm(GroupNorm):
    """Group norm of each frame."""

    def forward(self, x: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b c t h w"]:
        return unfold_frames(super().forward(fold_frames(x)), x.shape[2])


class CausalConv3d(nn.Conv3d):
    """3-D convolution that sees no later frame: the first frame is repeated kernel-1 times in front.

    `padding` is spatial only.
    """

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        kernel: int | tuple[int, int, int],
        stride: int = 1,
        padding: int = 0,
    ) -> None:
        self.space_padding = (0, padding, padding)
        super().__init__(channels_in, channels_out, kernel, stride, self.space_padding)

    def forward(self, x: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b d u y x"]:
        before = self.kernel_size[0] - 1
        if before:
            # An empty rest would make `cat` forget that memory is channels-last.
            first, *rest = x.split([1, x.shape[2] - 1] if x.shape[2] > 1 else 1, dim=2)
            x = torch.cat([first] * (before + 1) + rest, dim=2)
        return conv3d(x, self.weight, self.bias, self.stride, self.space_padding)


class ResidualBlock(nn.Module):
    """Norm, SiLU, convolution, twice, added to the input (projected where the widths differ)."""

    def __init__(self, channels_in: int, channels_out: int, groups: int, per_frame: bool = False) -> None:
        super().__init__()
        conv = FrameConv2d if per_frame else CausalConv3d
        norm = FrameGroupNorm if per_frame else GroupNorm
        self.norm1 = norm(groups, channels_in, NORM_EPS)
        self.conv1 = conv(channels_in, channels_out, 3, padding=1)
        self.norm2 = norm(groups, channels_out, NORM_EPS)
        self.conv2 = conv(channels_out, channels_out, 3, padding=1)
        self.conv_shortcut = conv(channels_in, channels_out, 1) if channels_in != channels_out else None

    def forward(self, x: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b d t h w"]:
        residual = self.conv1(F.silu(self.norm1(x)))
        residual = self.conv2(F.silu(self.norm2(residual)))
        return residual + (x if self.conv_shortcut is None else self.conv_shortcut(x))


class FrameAttention(nn.Module):
    """One-head self-attention among the places of each frame, added to the input; the norm is the clip's."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.group_norm = GroupNorm(groups, channels, NORM_EPS)
        self.to_q = nn.Linear(channels, channels)
        self.to_k = nn.Linear(channels, channels)
        self.to_v = nn.Linear(channels, channels)
        self.to_out = nn.ModuleList([nn.Linear(channels, channels)])

    def forward(self, x: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b c t h w"]:
        frames = fold_frames(self.group_norm(x))
        tokens = frames.flatten(2).transpose(1, 2)
        q, k, v = (project(tokens).unsqueeze(1) for project in (self.to_q, self.to_k, self.to_v))
        mixed = self.to_out[0](F.scaled_dot_product_attention(q, k, v).squeeze(1))
        return x + unfold_frames(mixed.transpose(1, 2).reshape(frames.shape), x.shape[2])


class MiddleBlock(nn.Module):
    """Residual block, attention, residual block, where the clip is smallest."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(ResidualBlock(channels, channels, groups) for _ in range(2))
        self.attentions = nn.ModuleList([FrameAttention(channels, groups)])

    def forward(self, x: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b c t h w"]:
        return self.resnets[1](self.attentions[0](self.resnets[0](x)))


class Downsample(nn.Module):
    """Convolution of stride 2; one row and column of zeros at the bottom and right.

    Unless `per_frame`, time is halved too: 1 + 2k frames become 1 + k.
    """

    def __init__(self, channels: int, per_frame: bool) -> None:
        super().__init__()
        self.conv = (FrameConv2d if per_frame else CausalConv3d)(channels, channels, 3, stride=2)

    def forward(self, x: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b c u y x"]:
        return self.conv(F.pad(x, (0, 1, 0, 1)))


class Upsample(nn.Module):
    """Twice the height and width by nearest neighbour, then a convolution of each frame."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = CausalConv3d(channels, channels, (1, 3, 3), padding=1)

    def forward(self, x: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b c t 2*h 2*w"]:
        frames = F.interpolate(fold_frames(x), scale_factor=2.0, mode="nearest")
        return self.conv(unfold_frames(frames, x.shape[2]))


class TimeUpsample(nn.Module):
    """Twice the height and width, and two frames for each but the first, trilinear; then a convolution.

    The interpolation is taken one axis after another, which is the same: time first, while frames are small.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = CausalConv3d(channels, channels, 3, padding=1)

    def forward(self, x: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b c 2*t-1 2*h 2*w"]:
        if x.shape[2] > 1:
            x = torch.cat([x[:, :, :1], double_frames(x[:, :, 1:])], dim=2)
        frames = F.interpolate(fold_frames(x), scale_factor=2.0, mode="bilinear", align_corners=False)
        return self.conv(unfold_frames(frames, x.shape[2]))


def double_frames(x: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b c 2*t h w"]:
    """Linear interpolation in time: new frames lie a quarter of a step before and after each old one."""
    earlier = torch.cat([x[:, :, :1], x[:, :, :-1]], dim=2)
    later = torch.cat([x[:, :, 1:], x[:, :, -1:]], dim=2)
    return torch.stack([torch.lerp(x, earlier, 0.25), torch.lerp(x, later, 0.25)], dim=3).flatten(2, 3)
