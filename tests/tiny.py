"""Tiny models for tests: every option of the real ones, a few thousand parameters, random weights."""

from __future__ import annotations

import torch

from nova.models.config import NovaConfig
from nova.models.nova import NovaTransformer

VARIANTS = {
    "sines": {},
    "sines and low rank": {"scale_shift": True, "scale_shift_rank": 4},
    "rotary and vanilla scale-shift": {"rotary": True, "scale_shift": True, "heads": 1},
    "labels": {"text_dim": None, "classes": 10},
}


def config(**changes: object) -> NovaConfig:
    """A video model of 3 latent frames of 8 x 12."""
    fields = {
        "width": 32,
        "heads": 2,
        "temporal_layers": 2,
        "spatial_encoder_layers": 1,
        "spatial_decoder_layers": 2,
        "denoiser_width": 24,
        "denoiser_blocks": 2,
        "latent_height": 8,
        "latent_width": 12,
        "latent_frames": 3,
        "text_dim": 16,
        "text_tokens": 6,
    }
    return NovaConfig(**(fields | changes))  # type: ignore[arg-type]


def model(dtype: torch.dtype = torch.float64, **changes: object) -> NovaTransformer:
    """A model with weights large enough that every input changes its output."""
    torch.manual_seed(0)
    network = NovaTransformer(config(**changes)).to(dtype).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return network


def condition(network: NovaTransformer, batch: int = 2) -> torch.Tensor:
    """Random text rows, or labels, of a model's kind."""
    if network.label is not None:
        return torch.arange(batch)
    features = [torch.randn(2 + index, 16, generator=torch.Generator().manual_seed(index)) for index in range(batch)]
    return network.text.rows(features)


def prompt(network: NovaTransformer, batch: int = 2) -> torch.Tensor:
    """Prompt tokens of `condition`, with motion and frame rate for video models."""
    scalars = torch.linspace(1, 5, batch, dtype=torch.float64)
    return network.prompt(condition(network, batch), scalars, scalars * 2)
