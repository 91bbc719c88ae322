"""The analytic count: equal to the counts in the specification, and to what the networks really run."""

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from nova.models.config import NovaConfig, published_size
from nova.models.denoiser import DenoisingMLP
from nova.models.flops import _denoise, _feature_projection, _layer, generation_flops, training_flops
from nova.models.spatial import SpatialEncoder

CASES = [  # size, latent frames, height, width, TFLOP to generate, TFLOP of a training forward pass
    ("0.6B", 9, 480, 768, 1506.5, 14.89),
    ("0.3B", 1, 1024, 1024, 422.1, 3.80),
    ("0.6B", 1, 1024, 1024, 660.1, 6.10),
    ("1.4B", 1, 1024, 1024, 1281.8, 12.25),
]


@pytest.mark.parametrize(("size", "frames", "height", "width", "generation", "training"), CASES)
def test_counts_of_the_published_sizes(size, frames, height, width, generation, training):
    config = published_size(size, height=height, width=width, latent_frames=frames)
    assert generation_flops(config).total == pytest.approx(generation * 1e12, rel=3e-4)
    assert training_flops(config).total == pytest.approx(training * 1e12, rel=2e-3)


def test_parts_of_the_published_video_model():
    flops = generation_flops(published_size("0.6B", height=480, width=768, latent_frames=9))
    assert flops.denoiser / flops.total == pytest.approx(0.024, abs=5e-4)  # 2.4 %, as in the specification


def test_guidance_doubles_and_steps_scale():
    config = published_size("0.3B", height=256, width=256)
    guided, plain = generation_flops(config), generation_flops(config, guided=False)
    assert guided.temporal == 2 * plain.temporal
    assert guided.denoiser == 2 * plain.denoiser
    assert generation_flops(config, diffusion_steps=50).denoiser < 2 * guided.denoiser
    assert generation_flops(config, steps=32).spatial < 0.6 * guided.spatial


def _tiny() -> NovaConfig:
    return NovaConfig(
        width=64,
        heads=2,
        temporal_layers=2,
        spatial_encoder_layers=1,
        spatial_decoder_layers=2,
        denoiser_width=64,
        denoiser_blocks=2,
        latent_height=8,
        latent_width=8,
        text_dim=32,
        text_tokens=8,
    )


def test_spatial_count_equals_a_real_pass():
    config = _tiny()
    encoder = SpatialEncoder(config)
    known = torch.arange(5).expand(1, -1)
    condition = torch.zeros(1, 1, 4, config.width)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:  # CPU flash is not counted
        encoder(torch.zeros(1, 16, 16), known, condition, encoder.places((4, 4), 4))
    embedding = 2 * 5 * config.token_numbers * config.width
    assert counter.get_total_flops() == _layer(64, 9, 0) + 2 * _layer(64, 20, 0) + embedding


def test_denoiser_count_equals_a_real_pass():
    config = _tiny()
    denoiser = DenoisingMLP(config)
    time = torch.zeros(1, config.denoiser_width)
    with FlopCounterMode(display=False) as counter:
        condition = denoiser.condition(torch.zeros(7, config.width))
        denoiser.predict(torch.zeros(7, config.token_numbers), denoiser.modulations(time, condition))
    assert counter.get_total_flops() == 7 * (_denoise(config) + _feature_projection(config))
