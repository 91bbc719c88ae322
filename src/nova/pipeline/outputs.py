"""Decoded pixels in the form that a caller asked for."""

from __future__ import annotations

from typing import Any

import numpy as np
import PIL.Image
from jaxtyping import Float, UInt8
from torch import Tensor

OUTPUT_TYPES = ("pil", "np", "pt", "latent")


def to_uint8(pixels: Float[Tensor, "b c f h w"]) -> UInt8[np.ndarray, "b f h w c"]:
    """Pixels in [-1, 1], clipped and rounded to the nearest of 256 levels."""
    levels = (pixels.float().clamp(-1, 1) * 127.5 + 127.5).round()
    return levels.byte().permute(0, 2, 3, 4, 1).cpu().numpy()


def postprocess(pixels: Float[Tensor, "b c f h w"], output_type: str) -> Any:
    """`pil`: a list of frames per video; `np`: uint8 (b f h w c); `pt`: float in [0, 1] (b f c h w)."""
    if output_type == "pt":
        return (pixels.float().clamp(-1, 1) / 2 + 0.5).transpose(1, 2)
    frames = to_uint8(pixels)
    if output_type == "np":
        return frames
    return [[PIL.Image.fromarray(frame) for frame in video] for video in frames]
