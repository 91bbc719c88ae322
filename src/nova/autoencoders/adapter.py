"""One face over autoencoders: pixels in [-1, 1] on one side, latents scaled for the model on the other.

Behind it stand our `VideoAutoencoder` and the diffusers classes of `FAMILIES`. Shapes are those of video
throughout, b c t h w; an image is a clip of one frame, and an image autoencoder takes every frame by itself.
Input may be of any floating type and lie where the module lies; what comes out is float32.

What is decoded together, and so can be as soon as it is there: an image autoencoder takes single latent frames, ours
windows (`nova.autoencoders.windows`), diffusers' video autoencoders the clip as a whole.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from diffusers.models import (
    AutoencoderKL,
    AutoencoderKLCogVideoX,
    AutoencoderKLLTXVideo,
    AutoencoderKLWan,
)
from jaxtyping import Bool, Float
from torch import Tensor, nn

from nova.autoencoders import windows
from nova.autoencoders.video import VideoAutoencoder, sample_posterior
from nova.autoencoders.windows import Window
from nova.errors import ResourceError, UsageError

FAMILIES = (
    VideoAutoencoder,
    AutoencoderKL,
    AutoencoderKLCogVideoX,
    AutoencoderKLLTXVideo,
    AutoencoderKLWan,
)
"""The classes that `Autoencoder` takes."""


class Autoencoder:
    """Encodes, decodes and scales with `module`, which it holds and does not change.

    Attributes:
        channels: numbers in a latent.
        spatial_stride: pixels to a latent, in height and in width.
        temporal_stride: frames to a latent frame after the first.
        is_video: whether frames are encoded together.

    Raises:
        UsageError: for a module that is none of `FAMILIES`.
    """

    def __init__(self, module: nn.Module) -> None:
        if not isinstance(module, FAMILIES):
            known = ", ".join(family.__name__ for family in FAMILIES)
            raise UsageError(f"vae is a {type(module).__name__}, which is not supported; use one of {known}")
        self.module: Any = module
        sizes = _sizes(module)
        self.channels = sizes.channels
        self.spatial_stride = sizes.spatial_stride
        self.temporal_stride = sizes.temporal_stride
        self.is_video = not isinstance(module, AutoencoderKL)
        # Already on the device: to bring them for each window would make the host wait for what the device has to do.
        self._shift, self._factor = (part.to(module.device) for part in _normalisation(module))

    @property
    def scaling(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Shift and factor of `scale`: each a number for every channel, or one for all."""
        shift, factor = (tuple(map(float, numbers.flatten())) for numbers in (self._shift, self._factor))
        return shift, factor

    def frames(self, latent_frames: int) -> int:
        """The number of pixel frames that `latent_frames` decode to."""
        return windows.pixel_frames(latent_frames, self.temporal_stride)

    def latent_shape(self, frames: int, height: int, width: int) -> tuple[int, int, int, int]:
        """The shape (c, t, h, w) of the latents of a clip, sizes in pixels.

        Raises:
            UsageError: for a number of frames or a size that the strides do not divide.
        """
        for name, size in (("height", height), ("width", width)):
            if size < 1 or size % self.spatial_stride:
                lower = max(size - size % self.spatial_stride, self.spatial_stride)
                raise UsageError(
                    f"{name} is {size}, but this autoencoder takes multiples of {self.spatial_stride}; "
                    f"use {lower} or {lower + self.spatial_stride}"
                )
        t = windows.latent_frames(frames, self.temporal_stride)
        return self.channels, t, height // self.spatial_stride, width // self.spatial_stride

    def encode(self, pixels: Float[Tensor, "b 3 f H W"]) -> Float[Tensor, "b c2 t h w"]:
        """Moments of the latents: their means, then their log-variances; unscaled.

        Raises:
            UsageError: for a number of frames or a size that the strides do not divide.
            ResourceError: where float16 and float32 both give numbers that are not finite.
        """
        self.latent_shape(*pixels.shape[2:])
        if isinstance(self.module, VideoAutoencoder):
            return windows.encode_windows(self._encode, pixels, self.temporal_stride)
        pieces = (pixels,) if self.is_video else pixels.split(1, dim=2)
        return torch.cat([self._encode(piece) for piece in pieces], dim=2)

    def latents(
        self, moments: Float[Tensor, "b c2 t h w"], noise: Float[Tensor, "b c t h w"] | None = None
    ) -> Float[Tensor, "b c t h w"]:
        """Scaled latents: the mean, or with `noise` (standard normal) a sample of the posterior."""
        return self.scale(sample_posterior(moments, noise))

    def scale(self, latents: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b c t h w"]:
        """Latents of the autoencoder to latents of the model: (z - shift) · factor."""
        return (latents.float() - self._shift.to(latents.device)) * self._factor.to(latents.device)

    def unscale(self, latents: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b c t h w"]:
        """The inverse of `scale`."""
        return latents.float() / self._factor.to(latents.device) + self._shift.to(latents.device)

    def decode(self, latents: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b 3 f H W"]:
        """Pixels of scaled latents, in about [-1, 1], not clipped.

        Raises:
            ResourceError: where float16 and float32 both give numbers that are not finite.
        """
        pixels: list[Tensor] = []
        done = 0
        while window := self.next_window(done, latents.shape[2], complete=True):
            pixels.append(self.decode_window(latents[:, :, window.begin : window.end], window).settled())
            done = window.end
        return torch.cat(pixels, dim=2)

    def next_window(self, done: int, there: int, *, complete: bool) -> Window | None:
        """What is decoded next when the first `done` latent frames are, and the first `there` are there.

        `complete` says that the clip has no more. None: nothing, or not before more is there.
        """
        if isinstance(self.module, VideoAutoencoder):
            return windows.next_window(done, there, complete=complete)
        if self.is_video:
            return Window(0, 0, there) if complete and done < there else None
        return Window(done, done, done + 1) if done < there else None

    def preview_window(self, newest: int) -> Window:
        """What shows latent frame `newest` before those after it are there, nearly as `next_window` will."""
        return windows.preview_window(newest) if self.is_video else Window(newest, newest, newest + 1)

    def decode_window(self, latents: Float[Tensor, "b c t h w"], window: Window) -> Attempt:
        """Pixels of the new frames of a window, given the scaled latents of all of it."""
        frames = self.frames(window.end) - self.frames(window.new)
        return _attempt(_decode, self.module, self.unscale(latents), "decode").of_last(frames)

    def _encode(self, pixels: Float[Tensor, "b 3 f H W"]) -> Float[Tensor, "b c2 t h w"]:
        return _attempt(_encode, self.module, pixels, "encode").settled()


@dataclass(frozen=True)
class Attempt:
    """What an autoencoder made in its own type: final, unless float16 overflowed.

    Only the device knows that at first. To ask it is to wait for it, so that who has more to tell it settles later.
    """

    result: Float[Tensor, "b c f h w"]
    finite: Bool[Tensor, ""] | None
    """Whether all that was made are numbers; None where nothing need be asked."""
    again: Callable[[], Float[Tensor, "b c f h w"]]
    """Makes it in float32."""

    def of_last(self, frames: int) -> Attempt:
        """The same for the last frames only."""
        return Attempt(self.result[:, :, -frames:], self.finite, lambda: self.again()[:, :, -frames:])

    def settled(self) -> Float[Tensor, "b c f h w"]:
        """The result in float32, made again if float16 overflowed.

        Raises:
            ResourceError: where it is not finite in float32 either.
        """
        return self.result if self.finite is None or self.finite else self.again()


@dataclass(frozen=True)
class _Sizes:
    channels: int
    spatial_stride: int
    temporal_stride: int


def _sizes(module: Any) -> _Sizes:
    config = module.config
    match module:
        case VideoAutoencoder():
            return _Sizes(config.latent_channels, module.spatial_stride, module.temporal_stride)
        case AutoencoderKL():
            return _Sizes(config.latent_channels, 2 ** (len(config.block_out_channels) - 1), 1)
        case AutoencoderKLCogVideoX():
            spatial = 2 ** (len(config.block_out_channels) - 1)
            return _Sizes(config.latent_channels, spatial, int(config.temporal_compression_ratio))
        case AutoencoderKLLTXVideo():
            strides = module.spatial_compression_ratio, module.temporal_compression_ratio
            return _Sizes(config.latent_channels, *strides)
    return _Sizes(config.z_dim, config.scale_factor_spatial, config.scale_factor_temporal)


def _normalisation(module: Any) -> tuple[Float[Tensor, "c 1 1 1"], Float[Tensor, "c 1 1 1"]]:
    """Shift and factor of `Autoencoder.scale`, for each channel or one for all."""
    config = module.config
    if isinstance(module, AutoencoderKLLTXVideo):  # its statistics are stored among the weights
        mean, deviation = module.latents_mean, module.latents_std
    else:
        mean, deviation = config.get("latents_mean"), config.get("latents_std")
    shift = config.get("shift_factor") or 0.0 if mean is None else mean
    factor = config.get("scaling_factor", 1.0) / torch.as_tensor(1.0 if deviation is None else deviation).float()
    return torch.as_tensor(shift).float().reshape(-1, 1, 1, 1), factor.reshape(-1, 1, 1, 1)


def _encode(module: Any, pixels: Tensor) -> Tensor:
    match module:
        case VideoAutoencoder():
            return module.encode_window(pixels)
        case AutoencoderKL():
            return module.encode(pixels.squeeze(2)).latent_dist.parameters.unsqueeze(2)
    return module.encode(pixels).latent_dist.parameters


def _decode(module: Any, latents: Tensor) -> Tensor:
    match module:
        case VideoAutoencoder():
            return module.decode_window(latents)
        case AutoencoderKL():
            return module.decode(latents.squeeze(2)).sample.unsqueeze(2)
        case AutoencoderKLLTXVideo() if module.config.timestep_conditioning:
            # Its decoder can also remove noise; ours is asked for none: time 0.
            return module.decode(latents, temb=latents.new_zeros(latents.shape[0])).sample
    return module.decode(latents).sample


def _attempt(function: Callable[[Any, Tensor], Tensor], module: Any, x: Tensor, stage: str) -> Attempt:
    """`function` of `module` in its own type; where float16 overflows, it can be had in float32."""
    result = function(module, x.to(module.dtype)).float()
    finite = result.isfinite().all() if module.dtype == torch.float16 else None
    return Attempt(result, finite, functools.partial(_in_float32, function, module, x, stage))


def _in_float32(function: Callable[[Any, Tensor], Tensor], module: Any, x: Tensor, stage: str) -> Tensor:
    result = function(copy.deepcopy(module).float(), x.float())
    if not result.isfinite().all():
        raise ResourceError(
            f"autoencoder {stage}: the result holds NaN or infinity in float16 and in float32; "
            "use dtype bfloat16 or float32 for the whole pipeline"
        )
    return result
