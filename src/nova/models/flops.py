"""How many floating-point operations a sample needs at least, from the config alone.

Counted is what the function needs when every value is computed once: two operations a multiply-add in matrix products
and attention, normalisation and activations left out. The text encoder and the autoencoder are not included. Values
that do not change from set to set (first-layer projections of condition, known and mask tokens), along the diffusion
chain (condition projection) or at all (timestep table) count once; the last decoder layer counts for predicted tokens
only. Published code needs 5 % more.
"""

from __future__ import annotations

import dataclasses

from nova.layers.positions import SCALAR_FREQUENCIES
from nova.masking import set_sizes
from nova.models.config import NovaConfig

MLP_RATIO = 4
MEAN_MASK_RATIO = 0.867
"""Mean of the training mask ratio: a normal of mean 1, std 0.25, truncated to [0.7, 1]."""


@dataclasses.dataclass(frozen=True)
class Flops:
    """Operations of one sample, by part."""

    temporal: float
    spatial: float
    denoiser: float

    @property
    def total(self) -> float:
        """All parts together."""
        return self.temporal + self.spatial + self.denoiser


def generation_flops(
    config: NovaConfig,
    *,
    latent_frames: int | None = None,
    latent_height: int | None = None,
    latent_width: int | None = None,
    steps: int = 64,
    diffusion_steps: int = 25,
    guided: bool = True,
) -> Flops:
    """Operations to generate one sample, at the trained size unless another (in latent cells) is given.

    `steps` autoregressive steps a frame, `diffusion_steps` denoising steps a token; `guided` runs two branches.
    """
    frames = latent_frames or config.latent_frames
    tokens, context = _grid(config, latent_height, latent_width)
    branches = 2 if guided else 1
    sizes = set_sizes(tokens, steps)
    temporal = _prompt(config) + frames * _time_embedding(config) + _temporal_layers(config, frames, context)
    # Condition and known tokens enter the encoder, mask tokens the decoder, with the same values in every set.
    constant_projections = 6.0 * config.width**2 * (context + tokens)
    spatial = constant_projections + 2.0 * tokens * config.token_numbers * config.width
    known = 0
    for size in sizes:
        spatial += _spatial_layers(config, tokens, context, known, size) - constant_projections
        known += size
    spatial *= frames * branches
    denoiser = frames * branches * tokens * _feature_projection(config)
    denoiser += frames * branches * tokens * diffusion_steps * _denoise(config)
    return Flops(branches * temporal, spatial, denoiser)


def training_flops(config: NovaConfig, *, noises_per_token: int = 4, mask_ratio: float = MEAN_MASK_RATIO) -> Flops:
    """Operations of one sample's forward pass in training; a step with its backward pass needs three times this."""
    frames = config.latent_frames
    tokens, context = _grid(config, None, None)
    known = round((1 - mask_ratio) * tokens)
    unknown = tokens - known
    temporal = _prompt(config) + frames * _time_embedding(config) + _temporal_layers(config, frames, context)
    spatial = 2.0 * tokens * config.token_numbers * config.width
    spatial += _spatial_layers(config, tokens, context, known, unknown)
    denoiser = unknown * (_feature_projection(config) + noises_per_token * _denoise(config))
    return Flops(temporal, frames * spatial, frames * denoiser)


def _grid(config: NovaConfig, height: int | None, width: int | None) -> tuple[int, int]:
    """Spatial and temporal tokens of a frame."""
    cells = (height or config.latent_height) * (width or config.latent_width)
    return cells // config.patch**2, cells // (4 * config.patch**2)


def _layer(width: int, rows: int, past: int, outputs: int | None = None) -> float:
    """One transformer layer of `rows` tokens behind `past` cached ones, computing `outputs` of its rows (or all)."""
    outputs = rows if outputs is None else outputs
    keys_values = rows * 2 * width**2
    attention = outputs * 2 * (rows + past) * width
    rest = outputs * (2 + 2 * MLP_RATIO) * width**2
    return 2.0 * (keys_values + attention + rest)


def _prompt(config: NovaConfig) -> float:
    text = 0 if config.text_dim is None else config.text_tokens * config.text_dim * config.width
    return 2.0 * text + (2 * _scalar_projection(config.width) if config.is_video else 0.0)


def _scalar_projection(width: int) -> float:
    return 2.0 * (2 * SCALAR_FREQUENCIES * width + width**2)


def _time_embedding(config: NovaConfig) -> float:
    return 0.0 if config.rotary or not config.is_video else _scalar_projection(config.width)


def _temporal_layers(config: NovaConfig, frames: int, context: int) -> float:
    """Block-causal attention: each frame's slot sees the prompt, the slots before it and itself."""
    prompt = (1 if config.text_dim is None else config.text_tokens) + (2 if config.is_video else 0)
    width, rank = config.width, config.scale_shift_rank
    flops = config.temporal_layers * _layer(width, prompt + context, 0)
    shift = 0 if not config.scale_shift else 2 * width**2 if rank is None else 3 * width * rank
    for frame in range(1, frames):
        flops += config.temporal_layers * _layer(width, context, prompt + frame * context)
        flops += 2.0 * context * (4 * config.token_numbers * width + shift)
    return flops


def _spatial_layers(config: NovaConfig, tokens: int, context: int, known: int, predicted: int) -> float:
    """One pass over a frame with `known` tokens, features needed at `predicted` places."""
    width = config.width
    encoder = config.spatial_encoder_layers * _layer(width, context + known, 0)
    decoder = (config.spatial_decoder_layers - 1) * _layer(width, context + tokens, 0)
    return encoder + decoder + _layer(width, context + tokens, 0, outputs=predicted)


def _feature_projection(config: NovaConfig) -> float:
    return 2.0 * (config.width * config.denoiser_width + config.denoiser_width**2)


def _denoise(config: NovaConfig) -> float:
    """One prediction for one token: embedding, blocks with their modulation, head with its own."""
    width, numbers = config.denoiser_width, config.token_numbers
    return 2.0 * (numbers * width + config.denoiser_blocks * 5 * width**2 + 2 * width**2 + width * numbers)
