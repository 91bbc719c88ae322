"""AdamW as the published models were trained, its learning rate as a pure function of the step, and clipping."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from nova.training.cluster import whole
from nova.training.config import OptimizerConfig

_DECAYED = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


def adamw(model: nn.Module, config: OptimizerConfig) -> torch.optim.AdamW:
    """The optimizer of `model`'s trainable parameters.

    Weight decay pulls only on the weights of linear layers and convolutions: norms, biases, embeddings and
    learned vectors have no reason to be small.
    """
    decayed = {id(p) for p in _decayed_weights(model)}
    trained = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if id(p) in decayed], "weight_decay": config.weight_decay},
        {"params": [p for p in trained if id(p) not in decayed], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=config.learning_rate,
        betas=(config.beta1, config.beta2),
        fused=True,
    )


def _decayed_weights(model: nn.Module) -> Iterator[Tensor]:
    embedded = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
    for module in model.modules():
        if isinstance(module, _DECAYED) and id(module.weight) not in embedded:  # an output may be tied
            yield module.weight


def learning_rate(config: OptimizerConfig, step: int, steps: int) -> float:
    """The rate at `step` (from 0) of a run of `steps`."""
    warm = min(1.0, (step + 1) / config.warmup_steps) if config.warmup_steps else 1.0
    return config.learning_rate * warm * _decay(config, step, config.schedule_steps or steps)


def _decay(config: OptimizerConfig, step: int, steps: int) -> float:
    if config.schedule == "constant":
        return 1.0
    if config.schedule == "multistep":
        return config.final_fraction ** sum(step >= share * steps for share in config.milestones)
    length = max(1.0, config.decay_fraction * (steps - config.warmup_steps))
    step -= step % config.decay_every
    done = min(1.0, max(0.0, (step - (steps - length)) / length))
    return config.final_fraction + (1 - config.final_fraction) * 0.5 * (1 + math.cos(math.pi * done))


def clip_gradients(model: nn.Module, max_norm: float, factor: float = 1.0) -> float:
    """Multiply all gradients by `factor`, and by what makes their norm then at most `max_norm`; in one pass.

    Returns the norm in between. Where that is not finite, neither are the gradients afterwards.
    """
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    norm = factor * float(whole(nn.utils.get_total_norm(gradients)))
    torch._foreach_mul_(gradients, factor * min(1.0, max_norm / (norm + 1e-6)))
    return norm
