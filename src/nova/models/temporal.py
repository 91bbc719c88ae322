"""Frame by frame: the temporal encoder (paper section 3.2).

The sequence is prompt tokens, then one slot of tokens per frame. Slot 0 holds the learned begin-of-video vector, slot
t the previous frame t - 1. Prompt and slot 0 attend to each other in both directions; slot t attends to everything
before it and to itself. What comes out at slot t conditions the spatial part when it makes frame t.

The scale-and-shift layer then expresses slot t > 0 as a change of slot 0, the *anchor*, so that errors do not pile up
along the video (section 3.3).

Training sees all frames in one pass (`forward`); generation starts with the prompt and advances one frame at a time,
with keys and values of the past in a state that is handed in and handed back. Both give the same conditions. Until
there is a frame, samples and branches with the same prompt are the same and computed once.
"""

from __future__ import annotations

import dataclasses

import torch
from jaxtyping import Float
from torch import Tensor, nn

from nova.layers.attention import KeyValue
from nova.layers.modulation import ScaleShift
from nova.layers.positions import (
    SCALAR_FREQUENCIES,
    Rotation,
    grid_positions,
    plane_embedding,
    rotary_angles,
    scalar_embedding,
)
from nova.layers.transformer import Block, Projector
from nova.models.conditioning import Prompts, numbered
from nova.models.config import NovaConfig


@dataclasses.dataclass(frozen=True)
class TemporalState:
    """All that the encoder knows of a video's past."""

    past: tuple[tuple[KeyValue, ...], ...]
    """For each layer the keys and values of prompt and first slot, then those of each slot so far. States share them;
    none are left once no slot will read them."""
    anchor: Float[Tensor, "g b m width"]
    """The condition of slot 0."""
    index: int
    """Slots so far."""
    length: int
    """Latent frames that the video will have."""
    grid: tuple[int, int]
    """Rows and columns of temporal tokens."""
    blind: tuple[bool, ...]
    """For each guidance branch, whether it sees the begin-of-video vector in place of every frame."""


class TemporalEncoder(nn.Module):
    """Block-causal transformer over prompt and frames. Parameters only: nothing is kept between calls."""

    def __init__(self, config: NovaConfig) -> None:
        super().__init__()
        width, patch = config.width, 2 * config.patch
        self.head_dim = width // config.heads
        self.trained_frames = config.latent_frames
        self.trained_grid = (config.latent_height // patch, config.latent_width // patch)
        self.embed = nn.Linear(patch**2 * config.channels, width)
        self.begin = nn.Parameter(torch.randn(1, width) * 0.02)
        self.blocks = nn.ModuleList(Block(width, config.heads) for _ in range(config.temporal_layers))
        self.norm = nn.LayerNorm(width)
        self.time = None if config.rotary else TimePosition(width)
        self.scale_shift = ScaleShift(width, config.scale_shift_rank) if config.scale_shift else None

    def forward(
        self,
        frames: Float[Tensor, "b t m p"],
        prompt: Float[Tensor, "b l width"],
        grid: tuple[int, int],
    ) -> Float[Tensor, "b t m width"]:
        """Conditions of all frames in one pass; frame t's condition sees the frames before t only.

        `frames` are the temporal tokens of the whole clip (the last frame is not read), `grid` their rows and columns.
        """
        batch, length, places, _ = frames.shape
        begin = self.begin.expand(batch, 1, places, -1)
        slots = torch.cat([begin, self.embed(frames[:, :-1])], dim=1)
        slots = slots + self._positions(range(length), length, grid, slots)
        x = torch.cat([prompt, slots.flatten(1, 2)], dim=1)
        rotation = self._rotation(range(length), prompt.shape[1], grid, x.device)
        blocks = (prompt.shape[1] + places, *[places] * (length - 1))
        for block in self.blocks:
            x, _ = block(x, rotation, blocks=blocks)
        conditions = self.norm(x[:, prompt.shape[1] :]).unflatten(1, (length, places))
        if self.scale_shift is None or length == 1:
            return conditions
        anchor, later = conditions[:, :1], conditions[:, 1:]
        return torch.cat([anchor, self.scale_shift(anchor.expand_as(later), later)], dim=1)

    def start(
        self,
        prompt: Prompts,
        length: int,
        grid: tuple[int, int],
        blind: tuple[bool, ...] | None = None,
    ) -> tuple[Float[Tensor, "g b m width"], TemporalState]:
        """Condition of frame 0 from the prompt tokens (r l width) of a batch, and the state that `advance` takes.

        `length` is the number of latent frames to come; `blind` as in `TemporalState`, none by default. What equal
        prompts, blind or not, make of slot 0 is computed once, and every branch and sample is given its copy.
        """
        blind = blind or (False,) * len(prompt.index)
        wanted = [(row, hidden) for rows, hidden in zip(prompt.index, blind, strict=True) for row in rows]
        different = numbered(wanted)
        # Each of them as a branch of its own, in a batch of one.
        tokens = prompt.rows[[row for row, _ in different]].unsqueeze(1)
        state = TemporalState((), tokens, 0, length, grid, tuple(hidden for _, hidden in different))
        slots = self._slots(self.begin.expand(1, grid[0] * grid[1], -1), state)
        rotation = self._rotation(range(1), tokens.shape[2], grid, tokens.device)
        x, past = self._run(torch.cat([tokens, slots], dim=2), rotation, state)
        copies = torch.tensor([different[one] for one in wanted], device=x.device)
        anchor = x[copies, 0, tokens.shape[2] :].unflatten(0, (len(blind), len(prompt)))
        past = tuple(((keys[copies], values[copies]),) for ((keys, values),) in past)
        return anchor, dataclasses.replace(state, past=past, anchor=anchor, index=1, blind=blind)

    def advance(
        self, frame: Float[Tensor, "b m p"], state: TemporalState
    ) -> tuple[Float[Tensor, "g b m width"], TemporalState]:
        """Condition of the next frame, given the temporal tokens of the last one."""
        slots = self._slots(self.embed(frame), state)
        rotation = self._rotation(range(state.index, state.index + 1), 0, state.grid, slots.device)
        x, past = self._run(slots, rotation, state)
        condition = x if self.scale_shift is None else self.scale_shift(state.anchor, x)
        return condition, dataclasses.replace(state, past=past, index=state.index + 1)

    def _run(
        self, x: Float[Tensor, "g b s width"], rotation: Rotation | None, state: TemporalState
    ) -> tuple[Float[Tensor, "g b s width"], tuple[tuple[KeyValue, ...], ...]]:
        """Outputs of tokens behind the state's past, and the past of the next slot, if there is one."""
        flat, present, last = x.flatten(0, 1), [], state.index + 1 == state.length
        for layer, block in enumerate(self.blocks):
            past = state.past[layer] if state.past else ()
            flat, kept = block(flat, rotation, _joined(past), keep=not last)
            if kept is not None:
                present.append((*past, kept))
        return self.norm(flat).unflatten(0, x.shape[:2]), tuple(present)

    def _slots(self, content: Float[Tensor, "b m width"], state: TemporalState) -> Float[Tensor, "g b m width"]:
        """The current slot of every branch; a blind one holds the bare begin-of-video vector, without positions."""
        times = range(state.index, state.index + 1)
        seen = content + self._positions(times, state.length, state.grid, content)[0]
        return torch.stack([self.begin.expand_as(seen) if hidden else seen for hidden in state.blind])

    def _positions(self, times: range, length: int, grid: tuple[int, int], like: Tensor) -> Float[Tensor, "t m width"]:
        """What is added to slots at `times` of a video of `length` latent frames; zeros with rotary positions."""
        if self.time is None:
            return like.new_zeros(len(times), 1, 1)
        place = plane_embedding(*grid, like.shape[-1], self.trained_grid, like.device)
        moment = self.time(torch.tensor(times, device=like.device), length / self.trained_frames)
        return moment.unsqueeze(1) + place.to(like.dtype)

    def _rotation(
        self, times: range, prompt_tokens: int, grid: tuple[int, int], device: torch.device
    ) -> Rotation | None:
        """Rotary angles of `prompt_tokens` tokens at position 0 and of the slots at `times`."""
        if self.time is not None:
            return None
        origin = torch.zeros(prompt_tokens, 3, dtype=torch.long, device=device)
        slots = [grid_positions(time, *grid, device) for time in times]
        return rotary_angles(torch.cat([origin, *slots]).unsqueeze(0), self.head_dim)


def _joined(past: tuple[KeyValue, ...]) -> KeyValue | None:
    """The pieces of a past one after the other."""
    if not past:
        return None
    keys, values = (torch.cat(pieces, dim=2) for pieces in zip(*past, strict=True))
    return keys, values


class TimePosition(nn.Module):
    """When a slot is: sines and cosines of its time, projected and normed."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.proj = Projector(2 * SCALAR_FREQUENCIES, width)
        self.norm = nn.LayerNorm(width)

    def forward(self, times: Tensor, stretch: float) -> Float[Tensor, "t width"]:
        """`times` divided by `stretch`, so that a video of any length spans the trained time."""
        embedding = scalar_embedding(times.float() / stretch)
        return self.norm(self.proj(embedding.to(self.proj.fc1.weight.dtype)))
