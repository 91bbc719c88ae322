"""What the training step is measured on: a model's shape, and data and draws that follow from the step's number.

Weights are random but large enough that every parameter has a gradient; latents, text features and draws are normal
numbers. Both sides of a comparison make the same ones.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from importlib.resources import files
from typing import Literal

import torch
from torch import Tensor

from nova.bench.models import random_model
from nova.diffusion.scheduler import Scheduler, ddpm_scheduler, flow_scheduler
from nova.models.config import NovaConfig, published_size
from nova.models.nova import NovaTransformer
from nova.randomness import generator_for
from nova.training.draws import DrawRules, draw
from nova.training.transformer import DEFAULT_FRAME_RATE, DEFAULT_MOTION, LatentBatch

FROZEN_ALWAYS = ("text.norm.",)
FROZEN_FOR_IMAGES = ("temporal.time.", "temporal.embed.")
FROZEN_FOR_VIDEO = ("motion.",)
"""Parameters that the published training leaves as they are, by the beginning of their names."""


@dataclasses.dataclass(frozen=True)
class Case:
    """A model and a batch size. `goal` is the published code's time over ours that is asked for, where one is."""

    shape: NovaConfig
    batch: int
    diffusion: Literal["flow", "ddpm"] = "flow"
    goal: float | None = None

    @property
    def scheduler(self) -> Scheduler:
        """The diffusion process, as it is saved with a model."""
        return flow_scheduler() if self.diffusion == "flow" else ddpm_scheduler()

    @property
    def frozen(self) -> tuple[str, ...]:
        """Beginnings of the names of parameters that are not trained."""
        return FROZEN_ALWAYS + (FROZEN_FOR_VIDEO if self.shape.is_video else FROZEN_FOR_IMAGES)


def case(name: str, batch: int | None = None) -> Case:
    """A case by name, with another batch size if given."""
    found = CASES[name]()
    return found if batch is None else dataclasses.replace(found, batch=batch)


def _digits() -> Case:
    saved = json.loads((files("nova") / "pretrained" / "digits" / "transformer" / "config.json").read_text())
    return Case(NovaConfig.from_dict({name: value for name, value in saved.items() if name[0] != "_"}), batch=32)


CASES: dict[str, Callable[[], Case]] = {
    "tiny": lambda: Case(random_model("tiny").shape, batch=1),
    "digits": _digits,
    "small": lambda: Case(random_model("small").shape, batch=8, goal=1.3),
    "0.3B-256": lambda: Case(published_size("0.3B", height=256, width=256), batch=2, goal=1.08),
    "0.6B-512": lambda: Case(published_size("0.6B", height=512, width=512), batch=16),
    "0.6B-video": lambda: Case(
        published_size("0.6B", height=480, width=768, latent_frames=9), batch=3, diffusion="ddpm"
    ),
}
"""By name: `digits` is the model that ships with the package, `small` has 16 M parameters and makes 17x128x128."""


def weights(chosen: Case) -> dict[str, Tensor]:
    """Random weights of the model, none of them zero throughout: a gradient passes everywhere."""
    torch.manual_seed(0)
    model = NovaTransformer(chosen.shape)
    with torch.no_grad():
        for parameter in model.parameters():
            if not parameter.any():
                parameter.normal_(std=0.02)
    return model.state_dict()


def batch(chosen: Case, step: int) -> LatentBatch:
    """The batch of a step, with its draws."""
    shape, rules = chosen.shape, DrawRules()
    size = (shape.channels, shape.latent_frames, shape.latent_height, shape.latent_width)
    data = generator_for("data", step)
    generators = [generator_for("sample", step, place) for place in range(chosen.batch)]
    ratios = [rules.ratio(generator_for("mask", step))] * chosen.batch
    draws = draw(chosen.scheduler.training, rules, size, shape.patch, ratios, generators)
    assert shape.text_dim is not None  # all cases here have text
    rows = torch.randn(chosen.batch, shape.text_tokens, shape.text_dim, generator=data)
    return LatentBatch(
        latents=torch.randn(chosen.batch, *size, generator=data),
        condition=rows,
        captions=(),
        motion=torch.full((chosen.batch,), DEFAULT_MOTION) if shape.is_video else None,
        frame_rate=torch.full((chosen.batch,), DEFAULT_FRAME_RATE) if shape.is_video else None,
        draws=dataclasses.replace(draws, dropped=torch.zeros_like(draws.dropped)),
    )


def mask_ratio(made: LatentBatch, shape: NovaConfig) -> float:
    """Share of a batch's tokens that are unknown."""
    rows, columns = shape.grid
    return len(made.draws.unknown) / (made.latents.shape[0] * made.latents.shape[2] * rows * columns)
