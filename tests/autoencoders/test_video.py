"""The video autoencoder computes what the published one does, and keeps its promises about time and files."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from nova.autoencoders.video import VideoAutoencoder
from nova.errors import UsageError


@pytest.fixture
def video_record(record: Path) -> Path:
    if not record.name.startswith("t2v"):
        pytest.skip("an image model")
    return record


def test_encoder_gives_recorded_moments(video_record: Path) -> None:
    autoencoder = VideoAutoencoder.from_pretrained(video_record / "vae", torch_dtype=torch.float32)
    recorded = load_file(video_record / "vae_encode.safetensors")
    with torch.no_grad():
        moments = autoencoder.encode_window(recorded["pixels"])
    torch.testing.assert_close(moments, recorded["moments"], rtol=1e-5, atol=3e-5)


def test_decoder_gives_recorded_pixels(video_record: Path) -> None:
    autoencoder = VideoAutoencoder.from_pretrained(video_record / "vae", torch_dtype=torch.float32)
    for call in json.loads((video_record / "calls.json").read_text()):
        expected = load_file(video_record / call["expected"])
        with torch.no_grad():
            pixels = autoencoder.decode_window(expected["latents"] / autoencoder.config.scaling_factor)
        torch.testing.assert_close(pixels, expected["pixels"], rtol=1e-4, atol=1e-4)
