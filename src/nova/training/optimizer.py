"""AdamW as the published models were trained, its learning rate as a pure function of the step, and clipping."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

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


def move(optimizer: torch.optim.AdamW, gradients_by: float) -> None:
    """One step of `optimizer` by the gradients times a factor, without a pass over them for the factor's sake.

    The gradients themselves are of no use afterwards.
    """
    first = optimizer.param_groups[0]["params"][0]
    # What the fused kernel divides gradients by as it reads them; torch's GradScaler hands it over in the same way.
    optimizer.grad_scale = torch.full((), 1 / gradients_by, device=first.device)  # type: ignore[attr-defined]
    optimizer.step()


def clipped(norm: float, max_norm: float) -> float:
    """The factor that makes a gradient of `norm` one of at most `max_norm`."""
    return min(1.0, max_norm / (norm + 1e-6))


def gradient_norm(model: nn.Module) -> float:
    """The norm of all gradients together; not finite where one of them is not."""
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    if any(gradient.device.type != "cpu" or isinstance(gradient, DTensor) for gradient in gradients):
        return float(whole(nn.utils.get_total_norm(gradients)))
    # On a CPU torch's norm is half as fast as a product of two vectors.
    squares = [torch.dot(flat, flat) for flat in (gradient.flatten() for gradient in gradients)]
    return math.sqrt(torch.stack(squares).sum(dtype=torch.float64))
