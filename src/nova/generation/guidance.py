"""Classifier-free guidance: which copies of a sample run, and how their predictions become one.

The copies are called branches. The solver never learns that they exist.
"""

from __future__ import annotations

import dataclasses
import math

import torch
from jaxtyping import Float
from torch import Tensor

from nova.errors import UsageError

TEXT, NULL, FRAMES = 0, 1, 2
"""Branches in order: the prompt; the null prompt; with image guidance a null prompt that still sees the frames."""


@dataclasses.dataclass(frozen=True)
class Guidance:
    """How strongly a sample follows its prompt."""

    scale: float = 5.0
    """`null + scale * (text - null)`; 1 or less runs the prompt alone."""
    min_scale: float | None = None
    """Scale before the first set; it rises linearly to `scale` at the last. None keeps it constant."""
    truncation: float = 0.0
    """Below this diffusion time (0 to 1000) the prompt's branch runs alone."""
    renorm: float = 1.0
    """Lowest factor by which a guided prediction may be shrunk to the norm of the prompt's own; 1 never shrinks."""
    image_scale: float = 0.0
    """How strongly a frame follows earlier frames, as a guidance of its own; 0 leaves it out."""
    start: float = 0.0
    """Sets before this part of a frame's sets are made by the prompt's branch alone."""
    end: float = 1.0
    """So are sets after this part."""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if value is None and field.name == "min_scale":
                continue
            if not isinstance(value, int | float) or not math.isfinite(value):
                raise UsageError(f"guidance {field.name}: {value!r}; use a finite number")
        if not 0 <= self.renorm <= 1:
            raise UsageError(f"guidance_renorm: {self.renorm}; use 0 to 1")
        if not 0 <= self.truncation <= 1000:
            raise UsageError(f"guidance_trunc: {self.truncation}; use a diffusion time from 0 to 1000")
        if not 0 <= self.start < self.end <= 1:
            raise UsageError(f"guidance_start: {self.start} with guidance_end {self.end}; use 0 <= start < end <= 1")
        if self.image_scale and self.scale <= 1:
            raise UsageError(
                f"image_guidance_scale: {self.image_scale} needs guidance_scale above 1, found {self.scale}"
            )

    @property
    def branches(self) -> int:
        """Copies of each sample that run: 1, 2 or, with image guidance, 3."""
        if self.scale <= 1:
            return 1
        return 3 if self.image_scale else 2

    @property
    def blind(self) -> tuple[bool, ...]:
        """For each branch, whether it sees begin-of-video vectors in place of all frames."""
        return (False, bool(self.image_scale), False)[: self.branches]

    def expand(self, text: Float[Tensor, "b *rest"], null: Float[Tensor, "b *rest"]) -> Float[Tensor, "g b *rest"]:
        """The prompt condition of every branch."""
        return torch.stack((text, null, null)[: self.branches])

    def scale_at(self, part: float) -> float:
        """The scale when `part` of a frame's sets, this one included, is made."""
        start = self.scale if self.min_scale is None else self.min_scale
        return start + (self.scale - start) * part

    def covers(self, number: int, sets: int) -> bool:
        """Whether set `number`, counted from 1, of a frame's `sets` is guided."""
        return self.start * sets <= number - 1 and number <= self.end * sets

    def truncated(self, time: float) -> bool:
        """Whether at this diffusion time the prompt's branch runs alone."""
        return time < self.truncation

    def combine(
        self, predictions: Float[Tensor, "g b s p"], scale: float | Float[Tensor, ""]
    ) -> Float[Tensor, "b s p"]:
        """One prediction from those of the branches that ran."""
        branches = predictions.unbind()
        if len(branches) == 1:
            return branches[0]
        text, null = branches[TEXT], branches[NULL]
        if not self.image_scale:
            return self._renorm(null.lerp(text, scale), text)
        frames = branches[FRAMES]
        guided = self._renorm(null + scale * (text - frames), text)
        return guided + self.image_scale * (frames - null)

    def _renorm(self, guided: Float[Tensor, "b s p"], text: Float[Tensor, "b s p"]) -> Float[Tensor, "b s p"]:
        if self.renorm >= 1:
            return guided
        # Over the tokens being predicted; the published code counts finished ones in (docs/numerics.md).
        ratio = text.norm(dim=(1, 2), keepdim=True) / guided.norm(dim=(1, 2), keepdim=True)
        return guided * ratio.clamp(self.renorm, 1)
