"""Windows lose no frame, change nothing where all are full, and stream what they give as a whole."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from nova.autoencoders.video import VideoAutoencoder
from nova.autoencoders.windows import (
    WINDOW,
    decode_stream,
    decode_windows,
    encode_windows,
    latent_frames,
    pixel_frames,
)
from nova.errors import UsageError

STRIDE = 4
COUNTS = range(1, 66, STRIDE)


def encode(pixels: Tensor) -> Tensor:
    """Each latent frame is the last of the pixel frames that it stands for."""
    return pixels[:, :, ::STRIDE]


def decode(latents: Tensor) -> Tensor:
    """The first latent frame gives one pixel frame, the others STRIDE: their value minus 3, 2, 1, 0."""
    before = torch.arange(1 - STRIDE, 1).view(1, 1, 1, -1, 1, 1)
    rest = (latents[:, :, 1:].unsqueeze(3) + before).flatten(2, 3)
    return torch.cat([latents[:, :, :1], rest], dim=2)


def numbered(frames: int) -> Tensor:
    """A clip whose pixels hold the number of their frame."""
    return torch.arange(float(frames)).view(1, 1, -1, 1, 1).expand(1, 3, -1, 1, 1)


def numbers(clip: Tensor) -> list[float]:
    return clip[0, 0].flatten().tolist()


@pytest.mark.parametrize("frames", COUNTS)
def test_every_frame_passes_through_once_and_in_order(frames: int) -> None:
    moments = encode_windows(encode, numbered(frames), STRIDE)
    assert numbers(moments) == list(range(0, frames, STRIDE))
    assert numbers(decode_windows(decode, moments, STRIDE)) == list(range(frames))


@pytest.mark.parametrize("frames", COUNTS)
def test_every_window_of_a_long_clip_is_full(frames: int) -> None:
    lengths = []

    def recorded(pixels: Tensor) -> Tensor:
        lengths.append(pixels.shape[2])
        return encode(pixels)

    encode_windows(recorded, numbered(frames), STRIDE)
    assert set(lengths) == {min(frames, pixel_frames(WINDOW, STRIDE))}


def test_full_windows_are_the_published_ones() -> None:
    starts: list[float] = []

    def recorded(window: Tensor) -> Tensor:
        starts.append(numbers(window)[0])
        return encode(window) if window.shape[2] == 17 else decode(window)

    encode_windows(recorded, numbered(49), STRIDE)
    assert starts == [0, 16, 32]
    starts.clear()
    decode_windows(recorded, STRIDE * numbered(13), STRIDE)
    assert starts == [0, 16, 32]


@pytest.mark.parametrize("sizes", [[1] * 11, [5, 4, 2], [11], [2, 7, 2]])
def test_streaming_does_not_depend_on_how_latents_come(sizes: list[int]) -> None:
    latents = STRIDE * numbered(11)
    streamed = list(decode_stream(decode, latents.split(sizes, dim=2), STRIDE))
    assert [piece.shape[2] for piece in streamed] == [17, 16, 8]
    assert torch.equal(torch.cat(streamed, dim=2), decode_windows(decode, latents, STRIDE))


def test_pixels_come_as_soon_as_their_window_is_full() -> None:
    drawn = 0

    def latents() -> Iterator[Tensor]:
        nonlocal drawn
        for frame in numbered(9).split(1, dim=2):
            drawn += 1
            yield frame

    drawn_at = [drawn for _ in decode_stream(decode, latents(), STRIDE)]
    assert drawn_at == [5, 9]


@pytest.mark.parametrize(
    ("frames", "valid"), [(0, "1 or 5"), (-7, "1 or 5"), (2, "1 or 5"), (16, "13 or 17"), (18, "17 or 21")]
)
def test_other_frame_counts_are_refused_with_the_nearest_two(frames: int, valid: str) -> None:
    with pytest.raises(UsageError, match=f"is {frames}, .* use {valid}$"):
        latent_frames(frames, STRIDE)


def test_frames_and_latent_frames_are_inverse() -> None:
    assert [pixel_frames(latent_frames(f, STRIDE), STRIDE) for f in COUNTS] == list(COUNTS)
    assert pixel_frames(0, STRIDE) == 0


def test_a_clip_of_full_windows_equals_its_windows_and_the_rest_keeps_them() -> None:
    torch.manual_seed(0)
    network = VideoAutoencoder(block_out_channels=(4, 4, 4, 8), layers_per_block=1, norm_num_groups=2)
    latents = torch.randn(1, 4, 11, 2, 2)
    with torch.no_grad():
        pixels = decode_windows(network.decode_window, latents, STRIDE)
        first = network.decode_window(latents[:, :, :5])
        second = network.decode_window(latents[:, :, 4:9])
    assert pixels.shape == (1, 3, 41, 16, 16)
    assert torch.equal(pixels[:, :, :17], first)
    assert torch.equal(pixels[:, :, 17:33], second[:, :, 1:])
