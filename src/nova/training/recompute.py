"""Trading time for memory: what the blocks of a network keep for the backward pass, and what they compute again."""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Literal

import torch
from torch import nn
from torch.utils.checkpoint import (
    CheckpointPolicy,
    checkpoint,
    create_selective_checkpoint_contexts,
)

from nova.layers.transformer import Block
from nova.models.denoiser import DenoisingMLP

_COSTLY = {
    torch.ops.aten.mm.default,
    torch.ops.aten.addmm.default,
    torch.ops.aten.bmm.default,
    torch.ops.aten._scaled_dot_product_flash_attention.default,
    torch.ops.aten._scaled_dot_product_efficient_attention.default,
    torch.ops.aten._scaled_dot_product_cudnn_attention.default,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default,
}

Policy = Literal["nothing", "cheap", "blocks"]


def recompute_blocks(objective: nn.Module, policy: Policy) -> None:
    """Make the blocks of `objective` compute again, in the backward pass, what `policy` does not keep.

    Blocks are those of the transformer, and the denoising MLP, which a step calls once for each repeat of the loss.
    `blocks` keeps a block's inputs only, `cheap` also the results of matrix products and attention. Numbers stay as
    they are, and so do names of parameters.
    """
    if policy == "nothing":
        return
    for module in objective.modules():
        if isinstance(module, Block | DenoisingMLP):
            module.forward = _recomputed(module.forward, policy)  # type: ignore[method-assign]


def _recomputed(forward: Callable[..., Any], policy: Literal["blocks", "cheap"]) -> Callable[..., Any]:
    """A function of ours around torch's `checkpoint`: the compiler follows it, and would pass over torch's."""
    run = functools.partial(checkpoint, forward, use_reentrant=False, preserve_rng_state=False)
    if policy == "cheap":
        run = functools.partial(run, context_fn=_keep_costly)

    def recomputed(*arguments: Any, **options: Any) -> Any:
        return run(*arguments, **options)

    return recomputed


def autocast(device: torch.device, bfloat16: bool, policy: Policy) -> torch.autocast:
    """bfloat16 for matrix products, or nothing, in a forward pass of which `policy` says what is computed again.

    What is computed again must do what it did. A cache of weights in bfloat16 would let the denoising MLP do less in
    the second repeat of the loss than in the first.
    """
    return torch.autocast(device.type, torch.bfloat16, enabled=bfloat16, cache_enabled=policy == "nothing")


def _keep_costly() -> tuple[AbstractContextManager[Any], AbstractContextManager[Any]]:
    return create_selective_checkpoint_contexts(_policy)


def _policy(context: object, operation: object, *arguments: object, **options: object) -> CheckpointPolicy:
    return CheckpointPolicy.MUST_SAVE if operation in _COSTLY else CheckpointPolicy.PREFER_RECOMPUTE
