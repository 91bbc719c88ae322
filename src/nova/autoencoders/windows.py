"""Clips of any length in windows of bounded size.

A window is 5 latent frames, or the 1 + 4·stride pixel frames they stand for; each begins with the last frame of
the one before it, and what that frame gives a second time is dropped. Where the last window would not be full it
begins earlier, so that every window of a long clip has the length the autoencoder was trained on and no frame is
lost. (The published code drops such a window. Where all are full, these are its windows and its results.)

An autoencoder whose norms take statistics over the window has no pixels of a frame until the window is complete: of a
clip that is being made, the first frames can be decoded after 5 latent frames, then more after every 4. For a preview,
decode what is there of a window.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

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


@dataclass(frozen=True)
class Window:
    """Latent frames that go through an autoencoder together: from `begin` to `end`, those before `new` once more."""

    begin: int
    new: int
    end: int


def next_window(done: int, there: int, *, complete: bool) -> Window | None:
    """The window that comes after the first `done` latent frames of a clip, if it is among the `there` first ones.

    `complete` says that there are no more; the last window then ends with the clip. None: nothing to do, or not yet.
    """
    full = done + WINDOW - bool(done)
    end = min(full, there)
    if end == done or (end < full and not complete):
        return None
    return Window(max(end - WINDOW, 0), done, end)


def preview_window(newest: int) -> Window:
    """As much as is there of the window that will hold latent frame `newest` as a new one."""
    begin = max(newest - 1, 0) // (WINDOW - 1) * (WINDOW - 1)
    return Window(begin, newest, newest + 1)


def encode_windows(encode: Network, pixels: Float[Tensor, "b 3 f H W"], stride: int) -> Float[Tensor, "b c2 t h w"]:
    """The moments of a clip; `encode` maps the pixels of a window to its moments.

    Raises:
        UsageError: where the number of frames is not 1 + k·stride.
    """
    total = latent_frames(pixels.shape[2], stride)
    moments: list[Tensor] = []
    done = 0
    while window := next_window(done, total, complete=True):
        part = pixels[:, :, stride * window.begin : pixel_frames(window.end, stride)]
        moments.append(encode(part)[:, :, window.new - window.begin :])
        done = window.end
    return torch.cat(moments, dim=2)
