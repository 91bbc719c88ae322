"""What generation is compared on: a model of random weights, how it generates, and the speed-up that is asked for."""

from __future__ import annotations

import dataclasses

from nova.bench.models import RandomModel, random_model


@dataclasses.dataclass(frozen=True)
class Case:
    """A generation at batch 1, guided, at the model's trained size and length."""

    model: str
    """As `nova bench --random` names it."""
    steps: int = 64
    diffusion_steps: int = 25
    dtype: str = "float32"
    """Of the timed runs."""
    goal: float | None = None
    """The published code's time over ours that is asked for, where one is."""
    share: float | None = None
    """The limit's time over ours that is asked for."""
    first_frame: float | None = None
    """Seconds that the first frame may take."""

    @property
    def random(self) -> RandomModel:
        """The model, the same on both sides."""
        return random_model(self.model)


CASES = {
    "tiny": Case("tiny", steps=4, diffusion_steps=3),
    "tiny-image": Case("tiny-image", steps=4, diffusion_steps=3),
    "small": Case("small", steps=16, goal=3.0),
    "0.3B-256": Case("0.3B-t2i-256", steps=16, goal=1.25),
    "0.6B-t2v-480": Case("0.6B-t2v-480", dtype="bfloat16", goal=8.0, share=0.45, first_frame=0.7),
    "0.6B-t2i-1024": Case("0.6B-t2i-1024", dtype="bfloat16", goal=2.5),
}
"""`tiny` ones are for trying things out; those in bfloat16 are for a GPU."""
