"""Tiny models for tests: every option of the real ones, a few thousand parameters, random weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from nova.diffusion.process import Process
from nova.models.config import NovaConfig
from nova.models.nova import NovaTransformer
from nova.training.draws import DrawRules, Draws, draw

if TYPE_CHECKING:
    from nova.pipeline import NovaPipeline

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


def draws(
    process: Process,
    frames: int = 3,
    ratios: Sequence[float] = (0.8, 0.8),
    seeds: Sequence[int] = (0, 1),
    rules: DrawRules = DrawRules(),  # noqa: B008  (frozen)
) -> Draws:
    """A training step's draws for a sample of each seed, of the size of `config`."""
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    return draw(process, rules, (4, frames, 8, 12), 2, ratios, generators)


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


def text_parts() -> tuple[object, object]:
    """A tokenizer of whole words and a Phi of 16 numbers a token."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PhiConfig, PhiModel, PreTrainedTokenizerFast

    words = ["<unk>", "a", "red", "blue", "kite", "rises", "over", "the", "hill", "calm", "sea", "3", "moves", "right"]
    inner = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    torch.manual_seed(0)
    phi = PhiConfig(
        vocab_size=len(words),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=32,
    )
    return PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="<unk>"), PhiModel(phi).eval()


def pipeline(autoencoder: str = "video", **changes: object) -> NovaPipeline:
    """A pipeline of 32 x 32 pixels: two temporal and four spatial tokens a frame."""
    from diffusers import AutoencoderKL

    from nova.autoencoders.video import VideoAutoencoder
    from nova.diffusion.scheduler import flow_scheduler
    from nova.pipeline import NovaPipeline

    torch.manual_seed(0)
    widths = (8, 8, 8, 8)
    if autoencoder == "video":
        vae = VideoAutoencoder(block_out_channels=widths, layers_per_block=1, norm_num_groups=4, scaling_factor=0.5)
    else:
        vae = AutoencoderKL(
            block_out_channels=widths,
            norm_num_groups=4,
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
        )
    network = model(torch.float32, **({"latent_height": 4, "latent_width": 4} | changes))
    tokenizer, encoder = text_parts() if network.text is not None else (None, None)
    pipe = NovaPipeline(network, flow_scheduler(), vae.eval(), encoder, tokenizer)
    pipe.set_progress_bar_config(disable=True)
    return pipe
