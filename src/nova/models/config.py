"""The shape of a NOVA transformer, and the three published sizes by name."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from nova.errors import UsageError, nearest


@dataclasses.dataclass(frozen=True)
class NovaConfig:
    """Everything that fixes a transformer's parameters and the function they compute.

    Sizes of latents are in latent cells, not pixels. One width serves the temporal and the spatial part.
    """

    width: int
    heads: int
    temporal_layers: int
    spatial_encoder_layers: int
    spatial_decoder_layers: int
    denoiser_width: int
    denoiser_blocks: int
    latent_height: int
    """Trained height; other heights that fit the patches also work."""
    latent_width: int
    latent_frames: int = 1
    """Trained latent frames; 1 is an image model."""
    channels: int = 4
    """Latent channels of the autoencoder."""
    patch: int = 2
    """Side of a spatial token's patch; a temporal token covers twice that."""
    text_dim: int | None = None
    """Width of the text encoder's features; None for a class-conditional model."""
    text_tokens: int = 256
    classes: int | None = None
    """Number of class labels; None for a text-conditional model."""
    scale_shift: bool = False
    """Whether the scale-and-shift layer stands between temporal and spatial part."""
    scale_shift_rank: int | None = None
    """Its low rank; None leaves the bottleneck out (vanilla)."""
    rotary: bool = False
    """3-D rotary positions instead of sines and cosines."""

    def __post_init__(self) -> None:
        if (self.text_dim is None) == (self.classes is None):
            raise UsageError(
                f"NovaConfig: text_dim={self.text_dim} and classes={self.classes}; set exactly one of the two"
            )
        if self.width % self.heads or self.width % 4:
            raise UsageError(
                f"NovaConfig.width: {self.width} with {self.heads} heads; "
                f"use a multiple of 4 and of the number of heads"
            )
        cell = 2 * self.patch
        for field in ("latent_height", "latent_width"):
            value = getattr(self, field)
            if value < cell or value % cell:
                raise UsageError(f"NovaConfig.{field}: {value}; use a positive multiple of {cell}")
        if self.rotary and self.width // self.heads % 32:
            raise UsageError(
                f"NovaConfig.heads: {self.heads} heads of {self.width // self.heads}; rotary positions split a head"
                " into an eighth and two halves of pairs, so its size must be a multiple of 32"
            )
        if not self.scale_shift and self.scale_shift_rank is not None:
            raise UsageError(
                f"NovaConfig.scale_shift_rank: {self.scale_shift_rank} without scale_shift; set scale_shift=True"
            )

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> NovaConfig:
        """A config from its saved fields; a wrong name is an error that names the right one."""
        known = {field.name for field in dataclasses.fields(cls)}
        for name in fields:
            if name not in known:
                raise UsageError(f"NovaConfig: unknown field {name!r}{nearest(name, known)}")
        return cls(**fields)

    def to_dict(self) -> dict[str, Any]:
        """The fields, ready for JSON."""
        return dataclasses.asdict(self)

    @property
    def is_video(self) -> bool:
        """Whether the model was made for several frames; it then has motion and frame-rate conditions."""
        return self.latent_frames > 1

    @property
    def token_numbers(self) -> int:
        """Numbers in one spatial token, the unit that diffusion samples."""
        return self.patch**2 * self.channels

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of spatial tokens in a trained frame."""
        return self.latent_height // self.patch, self.latent_width // self.patch


_PUBLISHED = {  # width, heads, blocks and width of the image models' and of the video models' denoiser
    "0.3B": (768, 12, (6, 768), (3, 1280)),
    "0.6B": (1024, 16, (6, 1024), (3, 1280)),
    "1.4B": (1536, 16, (6, 1536), (3, 1280)),
}


def published_size(
    name: str, *, height: int = 512, width: int = 512, latent_frames: int = 1, classes: int | None = None
) -> NovaConfig:
    """The config of a published size (`0.3B`, `0.6B`, `1.4B`) for frames of `height` x `width` pixels.

    Several latent frames make a video model with the scale-and-shift layer of rank 24 (paper section 3.3); one makes
    an image model. `classes` replaces the Phi-2 text condition. The autoencoder's spatial factor is 8.
    """
    if name not in _PUBLISHED:
        raise UsageError(f"unknown model size {name!r}{nearest(name, _PUBLISHED)}")
    model_width, heads, image_denoiser, video_denoiser = _PUBLISHED[name]
    blocks, denoiser_width = video_denoiser if latent_frames > 1 else image_denoiser
    return NovaConfig(
        width=model_width,
        heads=heads,
        temporal_layers=16,
        spatial_encoder_layers=16,
        spatial_decoder_layers=16,
        denoiser_width=denoiser_width,
        denoiser_blocks=blocks,
        latent_height=height // 8,
        latent_width=width // 8,
        latent_frames=latent_frames,
        text_dim=2560 if classes is None else None,
        classes=classes,
        scale_shift=latent_frames > 1,
        scale_shift_rank=24 if latent_frames > 1 else None,
    )
