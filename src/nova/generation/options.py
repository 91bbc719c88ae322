"""How to generate, as one frozen value."""

from __future__ import annotations

import dataclasses

from nova.errors import UsageError
from nova.generation.guidance import Guidance


@dataclasses.dataclass(frozen=True)
class GenerationOptions:
    """Everything about a generation but its prompt, size and random numbers."""

    steps: int = 64
    """Autoregressive steps (sets) a frame."""
    diffusion_steps: int = 25
    """Denoising steps a token."""
    guidance: Guidance = dataclasses.field(default_factory=Guidance)
    flow_shift: float | None = None
    """Moves diffusion steps towards noise; flow-matching models only. None: the model's own."""
    window: int | None = None
    """Latent frames of past and present that one temporal pass spans; None: the whole video."""

    def __post_init__(self) -> None:
        for name, value in (("num_inference_steps", self.steps), ("num_diffusion_steps", self.diffusion_steps)):
            if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= 1000:
                raise UsageError(f"{name}: {value!r}; use a whole number from 1 to 1000")
        if self.window is not None and self.window < 2:
            raise UsageError(f"window: {self.window}; use 2 or more latent frames")
