"""All autoencoders behind one face: recorded results, sizes, scaling, windows, overflow."""

import json
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, AutoencoderKLCogVideoX, AutoencoderKLLTXVideo, AutoencoderKLWan
from diffusers.models.modeling_utils import ModelMixin
from safetensors.torch import load_file

from nova.autoencoders.adapter import Autoencoder
from nova.autoencoders.video import VideoAutoencoder
from nova.errors import ResourceError, UsageError

SMALL = {"block_out_channels": (4, 4, 4, 8), "layers_per_block": 1, "norm_num_groups": 2}
MODULES = {
    "video": lambda: VideoAutoencoder(**SMALL, shift_factor=0.1),
    "image": lambda: AutoencoderKL(
        **SMALL,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        scaling_factor=0.5,
    ),
    "cogvideox": lambda: AutoencoderKLCogVideoX(**SMALL, latent_channels=4),
    "ltx": lambda: ltx(timestep_conditioning=False),
    "ltx with time": lambda: ltx(timestep_conditioning=True),
    "wan": lambda: AutoencoderKLWan(base_dim=3, dim_mult=[1, 1, 1, 1], num_res_blocks=1),
}
STRIDES = {
    "video": (8, 4),
    "image": (8, 1),
    "cogvideox": (8, 4),
    "ltx": (4, 4),
    "ltx with time": (4, 4),
    "wan": (8, 4),
}


def ltx(timestep_conditioning: bool) -> AutoencoderKLLTXVideo:
    module = AutoencoderKLLTXVideo(
        latent_channels=8,
        block_out_channels=(8, 8, 8, 8),
        decoder_block_out_channels=(8, 8, 8, 8),
        layers_per_block=(1, 1, 1, 1, 1),
        decoder_layers_per_block=(1, 1, 1, 1, 1),
        spatio_temporal_scaling=(True, True, False, False),
        decoder_spatio_temporal_scaling=(True, True, False, False),
        patch_size=1,
        timestep_conditioning=timestep_conditioning,
    )
    module.latents_mean.fill_(0.5)
    module.latents_std.fill_(2.0)
    return module


@pytest.fixture(params=MODULES)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


def build(kind: str) -> Autoencoder:
    torch.manual_seed(0)
    return Autoencoder(MODULES[kind]().eval())


def load(folder: Path) -> Autoencoder:
    family: type[ModelMixin] = VideoAutoencoder if folder.name.startswith("t2v") else AutoencoderKL
    return Autoencoder(family.from_pretrained(folder / "vae", torch_dtype=torch.float32).eval())


def test_encodes_as_recorded(record: Path) -> None:
    recorded = load_file(record / "vae_encode.safetensors")
    pixels, moments = (
        value if value.ndim == 5 else value.unsqueeze(2) for value in (recorded["pixels"], recorded["moments"])
    )
    with torch.no_grad():
        ours = load(record).encode(pixels)
    torch.testing.assert_close(ours, moments, rtol=1e-5, atol=3e-5)


def test_decodes_as_recorded(record: Path) -> None:
    autoencoder = load(record)
    call = json.loads((record / "calls.json").read_text())[0]
    recorded = load_file(record / call["expected"])
    with torch.no_grad():
        pixels = autoencoder.decode(recorded["latents"])
    expected = recorded["pixels"]
    expected = expected if expected.ndim == 5 else expected.unsqueeze(2)
    torch.testing.assert_close(pixels, expected, rtol=1e-4, atol=1e-4)


def test_sizes_are_those_of_the_network(kind: str) -> None:
    autoencoder = build(kind)
    assert (autoencoder.spatial_stride, autoencoder.temporal_stride) == STRIDES[kind]
    assert autoencoder.is_video == (kind != "image")
    for frames in (1, 9):
        shape = autoencoder.latent_shape(frames, 16, 24)
        with torch.no_grad():
            latents = autoencoder.latents(autoencoder.encode(torch.rand(2, 3, frames, 16, 24) * 2 - 1))
            pixels = autoencoder.decode(latents)
        assert latents.shape == (2, *shape)
        assert pixels.shape == (2, 3, frames, 16, 24)
        assert autoencoder.frames(shape[1]) == frames


def test_unscale_undoes_scale(kind: str) -> None:
    autoencoder = build(kind)
    latents = torch.randn(1, autoencoder.channels, 2, 3, 3)
    scaled = autoencoder.scale(latents)
    assert not torch.allclose(scaled, latents)
    torch.testing.assert_close(autoencoder.unscale(scaled), latents)


def test_scaling_takes_shift_factor_and_channel_statistics() -> None:
    one = torch.ones(1, 4, 1, 1, 1)
    torch.testing.assert_close(build("video").scale(one), 0.9 * 0.18215 * one)
    torch.testing.assert_close(build("ltx").scale(one.repeat(1, 2, 1, 1, 1)), torch.full((1, 8, 1, 1, 1), 0.25))
    wan = build("wan")
    mean = torch.tensor(wan.module.config.latents_mean).view(1, -1, 1, 1, 1)
    assert wan.scale(mean).abs().max() == 0


def test_what_can_be_decoded_before_the_clip_is_complete(kind: str) -> None:
    autoencoder = build(kind)
    ends = []
    for there in range(1, 8):
        while window := autoencoder.next_window(ends[-1] if ends else 0, there, complete=there == 7):
            assert window.end == there
            ends.append(there)
    assert ends == {"video": [5, 7], "image": list(range(1, 8))}.get(kind, [7])


def test_windows_decoded_by_themselves_are_the_whole(kind: str) -> None:
    autoencoder = build(kind)
    latents, pieces, done = torch.randn(1, autoencoder.channels, 7, 2, 2), [], 0
    with torch.no_grad():
        while window := autoencoder.next_window(done, 7, complete=True):
            part = latents[:, :, window.begin : window.end]
            pieces.append(autoencoder.decode_window(part, window).settled())
            done = window.end
        assert torch.equal(torch.cat(pieces, dim=2), autoencoder.decode(latents))


def test_a_preview_is_of_the_newest_frame_alone(kind: str) -> None:
    autoencoder = build(kind)
    latents = torch.randn(1, autoencoder.channels, 3, 2, 2)
    window = autoencoder.preview_window(2)
    with torch.no_grad():
        newest = autoencoder.decode_window(latents[:, :, window.begin :], window).settled()
        whole = autoencoder.decode(latents)
    assert newest.shape[2] == autoencoder.temporal_stride
    torch.testing.assert_close(newest, whole[:, :, -newest.shape[2] :])


def test_an_image_autoencoder_takes_each_frame_by_itself() -> None:
    autoencoder = build("image")
    pixels = torch.rand(1, 3, 3, 16, 16)
    with torch.no_grad():
        moments = autoencoder.encode(pixels)
        assert torch.equal(moments[:, :, 1:2], autoencoder.encode(pixels[:, :, 1:2]))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_gives_float32_near_the_exact(dtype: torch.dtype) -> None:
    exact, half = build("video"), build("video")
    half.module.to(dtype)
    latents = torch.randn(1, 4, 2, 2, 2)
    with torch.no_grad():
        expected, pixels = exact.decode(latents), half.decode(latents)
    assert pixels.dtype == torch.float32
    assert (pixels - expected).abs().mean() < 0.05 * expected.abs().mean()


def test_float16_that_overflows_is_decoded_in_float32() -> None:
    exact, half = build("video"), build("video")
    for autoencoder in (exact, half):
        autoencoder.module.post_quant_conv.weight.data.fill_(6e4)
    half.module.half()
    latents = torch.full((1, 4, 1, 2, 2), 1.0)
    with torch.no_grad():
        pixels = half.decode(latents)
        torch.testing.assert_close(pixels, exact.decode(latents), rtol=0.02, atol=0.02)
    assert half.module.dtype == torch.float16


def test_overflow_is_looked_at_no_sooner_than_asked() -> None:
    autoencoder = build("video")
    autoencoder.module.post_quant_conv.weight.data.fill_(6e4)
    autoencoder.module.half()
    latents = torch.full((1, 4, 2, 2, 2), 1.0)
    window = autoencoder.next_window(0, 2, complete=True)
    assert window is not None
    with torch.no_grad():
        attempt = autoencoder.decode_window(latents, window)
        assert not attempt.result.isfinite().all()
        assert torch.equal(attempt.settled(), autoencoder.decode(latents))
    assert attempt.settled().isfinite().all()


def test_what_float32_cannot_decode_either_is_an_error() -> None:
    autoencoder = build("video")
    autoencoder.module.half()
    with torch.no_grad(), pytest.raises(ResourceError, match="autoencoder decode"):
        autoencoder.decode(torch.full((1, 4, 1, 2, 2), torch.nan))


@pytest.mark.parametrize(
    ("size", "message"),
    [
        ((6, 16, 16), "number of frames is 6, .* use 5 or 9$"),
        ((5, 20, 16), "height is 20, .* use 16 or 24$"),
        ((5, 16, 3), "width is 3, .* use 8 or 16$"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(size: tuple[int, int, int], message: str) -> None:
    autoencoder = build("video")
    with pytest.raises(UsageError, match=message):
        autoencoder.latent_shape(*size)
    with pytest.raises(UsageError, match=message):
        autoencoder.encode(torch.zeros(1, 3, *size))


def test_other_modules_are_refused() -> None:
    with pytest.raises(UsageError, match=r"vae is a Linear, .* VideoAutoencoder"):
        Autoencoder(torch.nn.Linear(1, 1))
