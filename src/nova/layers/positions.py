"""Where a token is, as numbers: sines and cosines in one and two dimensions, and rotary positions in three.

All pure functions in float32; nothing is cached, so any grid and any length work at any time.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

SCALAR_FREQUENCIES = 128
"""Frequencies of a scalar's embedding: 256 columns, half sine and half cosine."""

Rotation = tuple[Float[Tensor, "... _ _"], Float[Tensor, "... _ _"]]
"""Cosine and sine of every token's rotary angles, (1 or b, s, half the head's dimension)."""


def scalar_embedding(values: Shaped[Tensor, "*lead"]) -> Float[Tensor, "*lead 256"]:
    """`[sin, cos]` of each value at 128 frequencies from 1 down to 1/10000: time, motion score, frame rate."""
    exponents = torch.arange(SCALAR_FREQUENCIES, dtype=torch.float32, device=values.device) / SCALAR_FREQUENCIES
    angles = values.float().unsqueeze(-1) * (1 / 10000**exponents)
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


def timestep_embedding(times: Shaped[Tensor, "*lead"]) -> Float[Tensor, "*lead 256"]:
    """`[cos, sin]` of each diffusion time (0 to 1000) at the same frequencies.

    The frequencies are formed by `exp`, as when the published weights were trained: at time 1000 the last bit of a
    frequency is visible in the result.
    """
    exponents = torch.arange(SCALAR_FREQUENCIES, dtype=torch.float32, device=times.device)
    frequencies = (exponents * (-math.log(10000) / SCALAR_FREQUENCIES)).exp()
    angles = times.float().unsqueeze(-1) * frequencies
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


def plane_embedding(
    rows: int, columns: int, width: int, trained: tuple[int, int], device: torch.device | None = None
) -> Float[Tensor, "n width"]:
    """`[sin x, cos x, sin y, cos y]` for every cell of a grid, x the column and y the row.

    A grid other than the `trained` one (rows, columns) is stretched over it, so positions stay in the trained range.
    """
    exponents = torch.arange(width // 4, dtype=torch.float32, device=device) / (width // 4)
    frequencies = 1 / 10000**exponents
    y = torch.arange(rows, dtype=torch.float32, device=device) * (trained[0] / rows)
    x = torch.arange(columns, dtype=torch.float32, device=device) * (trained[1] / columns)
    y_angles = (y[:, None] * frequencies).repeat_interleave(columns, dim=0)
    x_angles = (x[:, None] * frequencies).repeat(rows, 1)
    return torch.cat([x_angles.sin(), x_angles.cos(), y_angles.sin(), y_angles.cos()], dim=-1)


def grid_positions(time: int, rows: int, columns: int, device: torch.device | None = None) -> Int[Tensor, "n 3"]:
    """Integer (t, y, x) of every cell of frame `time`, row by row."""
    y, x = torch.meshgrid(torch.arange(rows, device=device), torch.arange(columns, device=device), indexing="ij")
    return torch.stack([torch.full_like(y, time), y, x], dim=-1).flatten(0, 1)


def rotary_angles(positions: Int[Tensor, "*lead s 3"], head_dim: int) -> Rotation:
    """Cosines and sines that `rotate` applies: an eighth of the head turns with time, the rest with row and column.

    Theta is 10000 within each of the three parts.
    """
    angles = []
    time_dim = head_dim // 8
    for axis, dim in enumerate((time_dim, (head_dim - time_dim) // 2, (head_dim - time_dim) // 2)):
        # Rounded as in the published checkpoints, which keep everything in float16.
        exponents = (torch.arange(0, dim, 2, dtype=torch.float32, device=positions.device) / dim).half().float()
        angles.append(positions[..., axis : axis + 1] * (1 / 10000**exponents))
    joined = torch.cat(angles, dim=-1)
    return joined.cos(), joined.sin()


def rotate(x: Float[Tensor, "b heads s d"], rotation: Rotation) -> Float[Tensor, "b heads s d"]:
    """Turn each adjacent pair (2i, 2i + 1) of a head's numbers by its angle."""
    cos, sin = (part.to(x.dtype).unsqueeze(-3) for part in rotation)
    even, odd = x[..., ::2], x[..., 1::2]
    return torch.stack([cos * even - sin * odd, sin * even + cos * odd], dim=-1).flatten(-2)
