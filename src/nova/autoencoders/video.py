"""The causal 4x8x8 video autoencoder: 1 + 4k frames become 1 + k latent frames of an eighth of the size.

The network of Open-Sora-Plan v1.2 (`AutoencoderKLOpenSora` in published NOVA folders), with its config fields
and names of weights. One call sees one window of frames, all together; long clips go through
`nova.autoencoders.windows`. Nothing is kept between calls. Inside, memory is channels-last, where
convolutions run several times faster, above all in bfloat16.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from diffusers.utils.accelerate_utils import apply_forward_hook
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from nova.autoencoders.blocks import (
    NORM_EPS,
    CausalConv3d,
    Downsample,
    FrameConv2d,
    GroupNorm,
    MiddleBlock,
    ResidualBlock,
    TimeUpsample,
    Upsample,
)
from nova.autoencoders.sliced import decode_sliced
from nova.errors import UsageError

FRAME_BLOCKS = 2
"""Encoder blocks that see single frames; the outermost blocks, whose step changes space but not time."""


class DownBlock(nn.Module):
    """Residual blocks, then a step down in size (none after the last block)."""

    def __init__(self, resnets: list[ResidualBlock], downsample: Downsample | None) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(resnets)
        self.downsamplers = nn.ModuleList([downsample] if downsample is not None else [])

    def forward(self, x: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b d u y x"]:
        for layer in (*self.resnets, *self.downsamplers):
            x = layer(x)
        return x


class UpBlock(nn.Module):
    """Residual blocks, then a step up in size (none after the last block)."""

    def __init__(self, resnets: list[ResidualBlock], upsample: Upsample | TimeUpsample | None) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(resnets)
        self.upsamplers = nn.ModuleList([upsample] if upsample is not None else [])

    def forward(self, x: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b d u y x"]:
        for layer in (*self.resnets, *self.upsamplers):
            x = layer(x)
        return x


class Encoder(nn.Module):
    """Pixels to moments: the first blocks per frame, the rest over the clip, halving time with each step."""

    def __init__(self, channels_in: int, channels_out: int, widths: Sequence[int], depth: int, groups: int) -> None:
        super().__init__()
        self.conv_in = FrameConv2d(channels_in, widths[0], 3, padding=1)
        self.down_blocks = nn.ModuleList()
        for i, width in enumerate(widths):
            inputs = [widths[max(i - 1, 0)]] + [width] * (depth - 1)
            resnets = [ResidualBlock(c, width, groups, per_frame=i < FRAME_BLOCKS) for c in inputs]
            step = Downsample(width, per_frame=i + 1 < FRAME_BLOCKS) if i + 1 < len(widths) else None
            self.down_blocks.append(DownBlock(resnets, step))
        self.mid_block = MiddleBlock(widths[-1], groups)
        self.conv_norm_out = GroupNorm(groups, widths[-1], NORM_EPS)
        self.conv_out = CausalConv3d(widths[-1], channels_out, 3, padding=1)

    def forward(self, pixels: Float[Tensor, "b c f H W"]) -> Float[Tensor, "b d t h w"]:
        x = self.conv_in(pixels)
        for block in self.down_blocks:
            x = block(x)
        return self.conv_out(F.silu(self.conv_norm_out(self.mid_block(x))))


class Decoder(nn.Module):
    """Latents to pixels: steps up double time and space, the last of them space only."""

    def __init__(self, channels_in: int, channels_out: int, widths: Sequence[int], depth: int, groups: int) -> None:
        super().__init__()
        self.conv_in = CausalConv3d(channels_in, widths[-1], 3, padding=1)
        self.mid_block = MiddleBlock(widths[-1], groups)
        self.up_blocks = nn.ModuleList()
        for i in reversed(range(len(widths))):
            inputs = [widths[min(i + 1, len(widths) - 1)]] + [widths[i]] * depth
            resnets = [ResidualBlock(c, widths[i], groups) for c in inputs]
            step = (TimeUpsample if i >= FRAME_BLOCKS else Upsample)(widths[i]) if i > 0 else None
            self.up_blocks.append(UpBlock(resnets, step))
        self.conv_norm_out = GroupNorm(groups, widths[0], NORM_EPS)
        self.conv_out = CausalConv3d(widths[0], channels_out, 3, padding=1)

    def forward(self, latents: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b d f H W"]:
        x = self.mid_block(self.conv_in(latents))
        for block in self.up_blocks:
            x = block(x)
        return self.conv_out(F.silu(self.conv_norm_out(x)))


class VideoAutoencoder(ModelMixin, ConfigMixin):
    """Encoder and decoder of one window of frames.

    The config fields are those of published `vae/config.json` files, so `from_config` and `from_pretrained`
    take those. With n widths in `block_out_channels` the stride is 2^(n-1) in space and 2^(n-2) in time (8
    and 4 for the published four). `sample_size` (pixels in training), `scaling_factor`, `shift_factor`,
    `latents_mean`, `latents_std` and `force_upcast` (half precision overflows) describe the weights to those
    who use them; the network itself gives and takes unscaled latents.

    Raises:
        UsageError: for block types, an activation or widths that this network does not have.
    """

    @register_to_config
    def __init__(
        self,
        in_channels: int = 3,
        out_channels: int = 3,
        down_block_types: Sequence[str] = ("DownEncoderBlock2D",) * 2 + ("DownEncoderBlock3D",) * 2,
        up_block_types: Sequence[str] = ("UpDecoderBlock3D",) * 4,
        block_out_channels: Sequence[int] = (128, 256, 512, 512),
        layers_per_block: int = 2,
        act_fn: str = "silu",
        latent_channels: int = 4,
        norm_num_groups: int = 32,
        sample_size: int = 256,
        scaling_factor: float = 0.18215,
        shift_factor: float | None = None,
        latents_mean: Sequence[float] | None = None,
        latents_std: Sequence[float] | None = None,
        force_upcast: bool = True,
        use_quant_conv: bool = True,
        use_post_quant_conv: bool = True,
    ) -> None:
        super().__init__()
        _check_layout(down_block_types, up_block_types, block_out_channels, act_fn, norm_num_groups)
        sizes = (block_out_channels, layers_per_block, norm_num_groups)
        self.use_slicing = False
        self.encoder = Encoder(in_channels, 2 * latent_channels, *sizes)
        self.decoder = Decoder(latent_channels, out_channels, *sizes)
        self.quant_conv = CausalConv3d(2 * latent_channels, 2 * latent_channels, 1) if use_quant_conv else nn.Identity()
        self.post_quant_conv = (
            CausalConv3d(latent_channels, latent_channels, 1) if use_post_quant_conv else nn.Identity()
        )

    @property
    def spatial_stride(self) -> int:
        """Pixels to a latent, in height and in width."""
        return 2 ** (len(self.config["block_out_channels"]) - 1)

    @property
    def temporal_stride(self) -> int:
        """Frames to a latent frame after the first."""
        return 2 ** (len(self.config["block_out_channels"]) - FRAME_BLOCKS)

    @apply_forward_hook
    def encode_window(self, pixels: Float[Tensor, "b c f H W"]) -> Float[Tensor, "b c2 t h w"]:
        """Mean and log-variance of the latents of 1 + 4k frames with values in [-1, 1].

        Height and width are multiples of the spatial stride. A frame's moments depend on all frames of the
        window: the convolutions are causal, but the norms' statistics span the window.
        """
        pixels = pixels.contiguous(memory_format=torch.channels_last_3d)
        return self.quant_conv(self.encoder(pixels))

    @apply_forward_hook
    def decode_window(self, latents: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b 3 f H W"]:
        """The 1 + 4(t-1) frames of `t` unscaled latent frames; values in about [-1, 1], not clipped."""
        latents = latents.contiguous(memory_format=torch.channels_last_3d)
        unscaled = self.post_quant_conv(latents)
        return decode_sliced(self.decoder, unscaled) if self.use_slicing else self.decoder(unscaled)

    def enable_slicing(self) -> None:
        """From now on decode in about half the memory, frame by frame within every layer; inference only."""
        self.use_slicing = True

    def disable_slicing(self) -> None:
        """Decode whole windows at a time again."""
        self.use_slicing = False

    def forward(
        self, pixels: Float[Tensor, "b c f H W"], noise: Float[Tensor, "b c t h w"] | None = None
    ) -> tuple[Float[Tensor, "b c f H W"], Float[Tensor, "b c2 t h w"]]:
        """One training pass: the reconstruction of a window, and its moments.

        The latents are the posterior's mean, plus `noise` times its deviation where noise is given.
        """
        moments = self.encode_window(pixels)
        return self.decode_window(sample_posterior(moments, noise).to(self.dtype)), moments


def sample_posterior(
    moments: Float[Tensor, "b c2 t h w"], noise: Float[Tensor, "b c t h w"] | None = None
) -> Float[Tensor, "b c t h w"]:
    """The posterior's mean, plus `noise` times its deviation where given; log-variance cut to [-30, 20]."""
    mean, log_variance = moments.float().chunk(2, dim=1)
    if noise is None:
        return mean
    return mean + torch.exp(0.5 * log_variance.clamp(-30.0, 20.0)) * noise


def _check_layout(down: Sequence[str], up: Sequence[str], widths: Sequence[int], activation: str, groups: int) -> None:
    clip_blocks = len(widths) - FRAME_BLOCKS
    expected_down = ["DownEncoderBlock2D"] * FRAME_BLOCKS + ["DownEncoderBlock3D"] * clip_blocks
    expected_up = ["UpDecoderBlock3D"] * len(widths)
    if clip_blocks < 1:
        raise UsageError(f"block_out_channels has {len(widths)} widths; a video autoencoder needs 3 or more")
    for field, found, expected in (
        ("down_block_types", list(down), expected_down),
        ("up_block_types", list(up), expected_up),
        ("act_fn", activation, "silu"),
    ):
        if found != expected:
            raise UsageError(f"{field} is {found}, which VideoAutoencoder does not have; use {expected}")
    uneven = [width for width in widths if width % groups]
    if uneven:
        raise UsageError(f"block_out_channels has {uneven[0]}, no multiple of norm_num_groups = {groups}")
