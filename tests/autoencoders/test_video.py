"""The video autoencoder computes what the published one does, and keeps its promises about time and files."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from nova.autoencoders.blocks import CausalConv3d, TimeUpsample, fold_frames, unfold_frames
from nova.autoencoders.video import VideoAutoencoder, sample_posterior
from nova.errors import UsageError

TINY = {"block_out_channels": (4, 4, 4, 8), "layers_per_block": 1, "norm_num_groups": 2}


@pytest.fixture
def tiny() -> VideoAutoencoder:
    torch.manual_seed(0)
    return VideoAutoencoder(**TINY)


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


@pytest.mark.parametrize("frames", [1, 5, 17])
def test_one_window_keeps_its_sizes(tiny: VideoAutoencoder, frames: int) -> None:
    with torch.no_grad():
        pixels, moments = tiny(torch.randn(1, 3, frames, 16, 24))
    assert moments.shape == (1, 8, 1 + (frames - 1) // 4, 2, 3)
    assert pixels.shape == (1, 3, frames, 16, 24)


def test_strides_follow_the_config() -> None:
    small = VideoAutoencoder(
        down_block_types=("DownEncoderBlock2D", "DownEncoderBlock2D", "DownEncoderBlock3D"),
        up_block_types=("UpDecoderBlock3D",) * 3,
        block_out_channels=(4, 4, 4),
        layers_per_block=1,
        norm_num_groups=2,
    )
    assert (small.spatial_stride, small.temporal_stride) == (4, 2)
    with torch.no_grad():
        pixels, moments = small(torch.randn(1, 3, 5, 8, 8))
    assert moments.shape == (1, 8, 3, 2, 2)
    assert pixels.shape == (1, 3, 5, 8, 8)


@pytest.mark.parametrize("stride", [1, 2])
def test_convolutions_see_no_later_frame(stride: int) -> None:
    torch.manual_seed(0)
    conv = CausalConv3d(2, 2, 3, stride=stride, padding=1)
    x = torch.randn(1, 2, 9, 4, 4)
    later = x.clone()
    later[:, :, 5:] += 1
    same = conv(x) == conv(later)
    unchanged = 1 + 4 // stride
    assert same[:, :, :unchanged].all()
    assert not same[:, :, unchanged:].any()


def test_first_frame_is_repeated_in_front() -> None:
    torch.manual_seed(0)
    conv = CausalConv3d(2, 3, 3, padding=1)
    x = torch.randn(1, 2, 4, 4, 4)
    padded = torch.cat([x[:, :, :1], x[:, :, :1], x], dim=2)
    torch.testing.assert_close(conv(x), F.conv3d(padded, conv.weight, conv.bias, padding=(0, 1, 1)))


def test_norms_span_the_window_so_frames_of_a_window_belong_together(tiny: VideoAutoencoder) -> None:
    latents = torch.randn(1, 4, 5, 2, 2)
    other = latents.clone()
    other[:, :, -1] += 1
    with torch.no_grad():
        first, second = tiny.decode_window(latents), tiny.decode_window(other)
    assert not torch.equal(first[:, :, 0], second[:, :, 0])


def test_samples_of_a_batch_do_not_meet(tiny: VideoAutoencoder) -> None:
    pixels = torch.randn(2, 3, 5, 16, 16)
    with torch.no_grad():
        together = tiny.encode_window(pixels)
        alone = tiny.encode_window(pixels[1:])
    torch.testing.assert_close(together[1:], alone)


def test_upsampling_in_time_is_trilinear_behind_the_first_frame() -> None:
    torch.manual_seed(0)
    up = TimeUpsample(2)
    up.conv = nn.Identity()  # type: ignore[assignment]
    x = torch.randn(2, 2, 4, 3, 5)
    first = F.interpolate(x[:, :, :1], scale_factor=(1, 2, 2), mode="trilinear")
    rest = F.interpolate(x[:, :, 1:], scale_factor=(2, 2, 2), mode="trilinear")
    torch.testing.assert_close(up(x), torch.cat([first, rest], dim=2))
    torch.testing.assert_close(up(x[:, :, :1]), first)


def test_folding_frames_is_undone_and_costs_no_copy_in_channels_last() -> None:
    clip = torch.randn(2, 3, 4, 5, 6).contiguous(memory_format=torch.channels_last_3d)
    frames = fold_frames(clip)
    assert frames.data_ptr() == clip.data_ptr()
    assert torch.equal(unfold_frames(frames, 4), clip)


def test_calls_leave_nothing_behind(tiny: VideoAutoencoder) -> None:
    pixels = torch.randn(1, 3, 5, 16, 16)
    before = set(vars(tiny))
    with torch.no_grad():
        first = tiny.encode_window(pixels)
    tiny(torch.randn(2, 3, 9, 8, 8))[0].sum().backward()
    with torch.no_grad():
        assert torch.equal(tiny.encode_window(pixels), first)
    assert set(vars(tiny)) == before


def gradient(network: VideoAutoencoder, pixels: Tensor, autocast: bool) -> Tensor:
    network.zero_grad()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        made, _ = network(pixels)
    (made.float() - pixels).square().mean().backward()
    return torch.cat([parameter.grad.flatten() for parameter in network.parameters()])


@pytest.mark.parametrize("frames", [1, 5])
def test_bfloat16_autocast_trains_in_the_same_direction(tiny: VideoAutoencoder, frames: int) -> None:
    pixels = torch.rand(2, 3, frames, 16, 16) * 2 - 1
    exact = gradient(tiny, pixels, autocast=False)
    rounded = gradient(tiny, pixels, autocast=True)
    assert torch.cosine_similarity(exact, rounded, dim=0) > 0.99


def test_saved_and_loaded_is_the_same(tiny: VideoAutoencoder, tmp_path: Path) -> None:
    tiny.register_to_config(scaling_factor=0.5, shift_factor=0.25)
    tiny.save_pretrained(tmp_path)
    loaded = VideoAutoencoder.from_pretrained(tmp_path)
    assert {k: v for k, v in loaded.config.items() if k[0] != "_"} == json.loads(
        json.dumps({k: v for k, v in tiny.config.items() if k[0] != "_"})
    )
    for name, value in tiny.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value), name


def test_posterior_sample_is_mean_plus_noise_times_deviation() -> None:
    mean, noise = torch.randn(1, 2, 1, 1, 1), torch.randn(1, 2, 1, 1, 1)
    moments = torch.cat([mean, torch.full_like(mean, 2 * torch.tensor(3.0).log())], dim=1)
    torch.testing.assert_close(sample_posterior(moments, noise), mean + 3 * noise)
    assert torch.equal(sample_posterior(moments), mean)
    huge = torch.cat([mean, torch.full_like(mean, 1e9)], dim=1)
    assert sample_posterior(huge, noise).isfinite().all()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"act_fn": "relu"}, "act_fn is relu"),
        ({"down_block_types": ("DownEncoderBlock2D",) * 4}, "down_block_types is"),
        ({"up_block_types": ("UpDecoderBlock2D",) * 4}, "up_block_types is"),
        ({"block_out_channels": (4, 4)}, "block_out_channels has 2 widths"),
        ({"norm_num_groups": 3}, "no multiple of norm_num_groups = 3"),
    ],
)
def test_configs_of_other_networks_are_refused(fields: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        VideoAutoencoder(**{**TINY, **fields})
