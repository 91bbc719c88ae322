"""Trading time for memory: what the blocks of a network keep for the backward pass, and what they compute again."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import (
    CheckpointPolicy,
    checkpoint,
    create_selective_checkpoint_contexts,
)

from nova.layers.transformer import MLP, Block, Projector
from nova.models.denoiser import DenoisingMLP
from nova.training.config import Recompute

_COSTLY = {
    torch.ops.aten.mm.default,
    torch.ops.aten.addmm.default,
    torch.ops.aten.bmm.default,
    torch.ops.aten._scaled_dot_product_flash_attention.default,
    torch.ops.aten._scaled_dot_product_efficient_attention.default,
    torch.ops.aten._scaled_dot_product_cudnn_attention.default,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default,
}


def recompute_blocks(objective: nn.Module, policy: Recompute) -> None:
    """Make `objective` compute again, in the backward pass, what `policy` does not keep.

    `activations` keeps what activation functions are given, not what they make of it. `blocks` keeps the inputs of
    blocks only, `cheap` also the results of matrix products and attention; blocks are those of the transformer, and the
    denoising MLP in each repeat of the loss. Numbers stay as they are, and so do names of parameters.
    """
    for module in objective.modules():
        forward: Callable[..., Any] = module.forward
        if policy == "activations" and isinstance(module, MLP | Projector):
            forward = _activated_again(module)
        elif policy in ("cheap", "blocks") and isinstance(module, Block | DenoisingMLP):
            forward = _recomputed(forward, _products if policy == "cheap" else None)
            if isinstance(module, DenoisingMLP):
                forward = _each_repeat(forward)
        if forward != module.forward:
            module.forward = forward


def _recomputed(forward: Callable[..., Any], kept: Callable[..., CheckpointPolicy] | None) -> Callable[..., Any]:
    """A function of ours around torch's `checkpoint`: the compiler follows it, and would pass over torch's."""
    run = functools.partial(checkpoint, forward, use_reentrant=False, preserve_rng_state=False)
    if kept is not None:
        run = functools.partial(run, context_fn=functools.partial(create_selective_checkpoint_contexts, kept))

    def recomputed(*arguments: Any, **options: Any) -> Any:
        return run(*arguments, **options)

    return recomputed


def _activated_again(module: MLP | Projector) -> Callable[[Tensor], Tensor]:
    """Its forward pass, whose second product finds what it is given anew in the backward pass."""
    second = _recomputed(lambda hidden: module.fc2(module.activation(hidden)), _products_and_casts)
    return lambda x: second(module.fc1(x))


def _each_repeat(forward: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The denoising MLP repeat by repeat: what the backward pass computes again is then that of one of them."""

    def repeated(noisy: Tensor, indices: Tensor, table: Tensor, condition: Tensor) -> Tensor:
        pairs = zip(noisy.split(1), indices.split(1), strict=True)
        return torch.cat([forward(some, times, table, condition) for some, times in pairs])

    return repeated


def autocast(device: torch.device, bfloat16: bool, policy: Recompute) -> torch.autocast:
    """bfloat16 for matrix products, or nothing, in a forward pass of which `policy` says what is computed again.

    What is computed again must do what it did. A cache of weights in bfloat16 would let a module do less in its second
    call of a step than in its first.
    """
    return torch.autocast(device.type, torch.bfloat16, enabled=bfloat16, cache_enabled=policy == "nothing")


def _products(context: object, operation: object, *arguments: object, **options: object) -> CheckpointPolicy:
    return CheckpointPolicy.MUST_SAVE if operation in _COSTLY else CheckpointPolicy.PREFER_RECOMPUTE


def _products_and_casts(context: object, operation: object, *arguments: object, **options: object) -> CheckpointPolicy:
    kept = operation in _COSTLY or operation is torch.ops.aten._to_copy.default
    return CheckpointPolicy.PREFER_SAVE if kept else CheckpointPolicy.MUST_RECOMPUTE
