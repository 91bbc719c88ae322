"""LoRA: training small factors beside frozen weights instead of the weights (Hu et al. 2021).

A layer computes W x + (alpha / rank) B A x. B starts at zero, so that a run starts with the function it was given; A
follows from the run's seed. PEFT puts the factors into the model, `nova.checkpoints.lora` saves, loads and merges them.
"""

from __future__ import annotations

import fnmatch
from pathlib import Path

import torch
from pydantic import Field
from torch import nn

from nova.checkpoints.lora import ADAPTER, merge_lora, peft, save_lora
from nova.errors import UsageError, nearest
from nova.files import publish_folder
from nova.models.nova import NovaTransformer
from nova.training.config import Config


class LoraSettings(Config):
    """Which layers get factors of what `rank`, and their scale `alpha` / `rank`; an `alpha` of None is `rank`.

    `targets` are patterns of the names of linear layers, by default those of all transformer blocks. There is no
    dropout: everything random in a step follows from the seed.
    """

    rank: int = Field(default=16, ge=1)
    alpha: float | None = Field(default=None, gt=0)
    targets: tuple[str, ...] = ("temporal.blocks.*", "spatial.encoder.*", "spatial.decoder.*")


def add_lora(model: NovaTransformer, settings: LoraSettings, seed: int) -> NovaTransformer:
    """Put factors into `model`, which is returned; they are then all of it that is trained.

    Raises UsageError for a pattern that no linear layer matches, and where PEFT is not installed.
    """
    linear = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    chosen = {pattern: fnmatch.filter(linear, pattern) for pattern in settings.targets}
    for pattern, found in chosen.items():
        if not found:
            raise UsageError(f"lora.targets: {pattern!r} matches no linear layer{nearest(pattern, linear)}")
    config = peft().LoraConfig(
        r=settings.rank,
        lora_alpha=settings.rank if settings.alpha is None else settings.alpha,
        target_modules=sorted({name for found in chosen.values() for name in found}),
    )
    model.requires_grad_(False)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model.add_adapter(config, ADAPTER)
    return model


def export_lora(model: NovaTransformer, folder: Path) -> NovaTransformer:
    """Write the factors in `model` to `folder`, and return the same model with them folded in, plain again."""
    publish_folder(folder, lambda path: save_lora(model, path))
    return merge_lora(model)
