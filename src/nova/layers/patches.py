"""Latent frames as rows of tokens and back.

A token is one p x p patch of a latent frame, its numbers in the order (row in patch, column in patch, channel);
tokens run row by row over the frame.
"""

from __future__ import annotations

from jaxtyping import Shaped
from torch import Tensor


def patchify(frames: Shaped[Tensor, "*lead c h w"], patch: int) -> Shaped[Tensor, "*lead n p"]:
    """Cut frames whose height and width are multiples of `patch` into tokens of `patch * patch * c` numbers."""
    *lead, channels, height, width = frames.shape
    rows, columns = height // patch, width // patch
    cells = frames.reshape(-1, channels, rows, patch, columns, patch).permute(0, 2, 4, 3, 5, 1)
    return cells.reshape(*lead, rows * columns, patch * patch * channels)


def unpatchify(
    tokens: Shaped[Tensor, "*lead n p"], patch: int, height: int, width: int
) -> Shaped[Tensor, "*lead c h w"]:
    """Inverse of `patchify` for frames of `height` x `width` latent cells."""
    *lead, _, numbers = tokens.shape
    channels, rows, columns = numbers // patch**2, height // patch, width // patch
    cells = tokens.reshape(-1, rows, columns, patch, patch, channels).permute(0, 5, 1, 3, 2, 4)
    return cells.reshape(*lead, channels, height, width)
