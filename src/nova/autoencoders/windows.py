"""Clips of any length in windows of bounded size.

A window is 5 latent frames, or the 1 + 4·stride pixel frames they stand for; each begins with the last frame of
the one before it, and what that frame gives a second time is dropped. Where the last window would not be full it
begins earlier, so that every window of a long clip has the length the autoencoder was trained on and no frame is
lost. (The published code drops such a window. Where all are full, these are its windows and its results.)

An autoencoder whose norms take statistics over the window has no pixels of a frame until the window is complete:
streaming yields the first frames after 5 latent frames, then more after every 4. For an earlier preview, decode
the first latent frame as a clip of its own.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from nova.errors import UsageError

WINDOW = 5
"""Latent frames in a window."""

Network = Callable[[Tensor], Tensor]


def pixel_frames(latent_frames: int, stride: int) -> int:
    """Pixel frames that `latent_frames` stand for: the first for one, each other for `stride`."""
    return 1 + stride * (latent_frames - 1) if latent_frames else 0


def latent_frames(frames: int, stride: int) -> int:
    """Latent frames of a clip of `frames`, the inverse of `pixel_frames`.

    Raises:
        UsageError: for a number of frames that no whole number of latent frames makes.
    """
    steps, rest = divmod(frames - 1, stride)
    if frames < 1 or rest:
        lower = 1 + stride * max(steps, 0)
        raise UsageError(
            f"the number of frames is {frames}, but this autoencoder makes 1 + {stride}·k frames; "
            f"use {lower} or {lower + stride}"
        )
    return 1 + steps


def encode_windows(encode: Network, pixels: Float[Tensor, "b 3 f H W"], stride: int) -> Float[Tensor, "b c2 t h w"]:
    """The moments of a clip; `encode` maps the pixels of a window to its moments.

    Raises:
        UsageError: where the number of frames is not 1 + k·stride.
    """
    total = latent_frames(pixels.shape[2], stride)
    moments: list[Tensor] = []
    done = 0
    while done < total:
        end = min(done + WINDOW - bool(done), total)
        begin = max(end - WINDOW, 0)
        window = pixels[:, :, stride * begin : pixel_frames(end, stride)]
        moments.append(encode(window)[:, :, done - begin :])
        done = end
    return torch.cat(moments, dim=2)


def decode_stream(
    decode: Network, latents: Iterable[Float[Tensor, "b c _ h w"]], stride: int
) -> Iterator[Float[Tensor, "b 3 _ H W"]]:
    """Yield the frames of a clip as its windows fill; `decode` maps the latents of a window to its pixels.

    `latents` gives consecutive latent frames, any number at a time. It is drawn on only as far as the next window
    needs. All that is yielded, put together, does not depend on how the latents were divided.
    """
    recent: deque[Tensor] = deque(maxlen=WINDOW)
    seen = shown = 0

    def new_pixels() -> Tensor:
        new = pixel_frames(seen, stride) - pixel_frames(shown, stride)
        return decode(torch.cat(tuple(recent), dim=2))[:, :, -new:]

    for some in latents:
        for frame in some.split(1, dim=2):
            recent.append(frame)
            seen += 1
            if seen - shown == WINDOW - bool(shown):
                yield new_pixels()
                shown = seen
    if shown < seen:
        yield new_pixels()


def decode_windows(decode: Network, latents: Float[Tensor, "b c t h w"], stride: int) -> Float[Tensor, "b 3 f H W"]:
    """All frames of a clip at once: what `decode_stream` yields, put together."""
    return torch.cat(tuple(decode_stream(decode, (latents,), stride)), dim=2)
