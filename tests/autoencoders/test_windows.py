"""Windows lose no frame, change nothing where all are full, and are the same while a clip is still being made."""

from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor

from nova.autoencoders.video import VideoAutoencoder
from nova.autoencoders.windows import (
    WINDOW,
    Window,
    encode_windows,
    latent_frames,
    next_window,
    pixel_frames,
    preview_window,
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


def windows(sizes: Sequence[int]) -> list[tuple[int, Window]]:
    """The windows of a clip that comes in parts of these sizes, each with the number of latent frames then there."""
    found, done, there = [], 0, 0
    for size in sizes:
        there += size
        while window := next_window(done, there, complete=there == sum(sizes)):
            found.append((there, window))
            done = window.end
    return found


def decode_windows(network: Callable[[Tensor], Tensor], latents: Tensor) -> Tensor:
    """All new frames of all windows of a clip."""
    pixels = []
    for _, window in windows([latents.shape[2]]):
        new = pixel_frames(window.end, STRIDE) - pixel_frames(window.new, STRIDE)
        pixels.append(network(latents[:, :, window.begin : window.end])[:, :, -new:])
    return torch.cat(pixels, dim=2)


def numbered(frames: int) -> Tensor:
    """A clip whose pixels hold the number of their frame."""
    return torch.arange(float(frames)).view(1, 1, -1, 1, 1).expand(1, 3, -1, 1, 1)


def numbers(clip: Tensor) -> list[float]:
    return clip[0, 0].flatten().tolist()


@pytest.mark.parametrize("frames", COUNTS)
def test_every_frame_passes_through_once_and_in_order(frames: int) -> None:
    moments = encode_windows(encode, numbered(frames), STRIDE)
    assert numbers(moments) == list(range(0, frames, STRIDE))
    assert numbers(decode_windows(decode, moments)) == list(range(frames))


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
    decode_windows(recorded, STRIDE * numbered(13))
    assert starts == [0, 16, 32]


@pytest.mark.parametrize("sizes", [[1] * 11, [5, 4, 2], [11], [2, 7, 2]])
def test_windows_do_not_depend_on_how_frames_come(sizes: list[int]) -> None:
    assert [window for _, window in windows(sizes)] == [Window(0, 0, 5), Window(4, 5, 9), Window(6, 9, 11)]


def test_a_window_is_there_as_soon_as_it_is_full() -> None:
    assert [there for there, _ in windows([1] * 11)] == [5, 9, 11]
    assert next_window(5, 8, complete=False) is None
    assert next_window(5, 8, complete=True) == Window(3, 5, 8)
    assert next_window(5, 5, complete=True) is None
    assert next_window(0, 0, complete=True) is None


def test_a_preview_shows_one_frame_and_the_last_of_a_window_with_all_of_it() -> None:
    previews = [preview_window(frame) for frame in range(11)]
    assert [(preview.new, preview.end) for preview in previews] == [(frame, frame + 1) for frame in range(11)]
    assert [preview.begin for preview in previews] == [0, 0, 0, 0, 0, 4, 4, 4, 4, 8, 8]


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
        pixels = decode_windows(network.decode_window, latents)
        first = network.decode_window(latents[:, :, :5])
        second = network.decode_window(latents[:, :, 4:9])
    assert pixels.shape == (1, 3, 41, 16, 16)
    assert torch.equal(pixels[:, :, :17], first)
    assert torch.equal(pixels[:, :, 17:33], second[:, :, 1:])
