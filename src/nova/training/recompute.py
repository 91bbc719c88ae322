"""Trading time for memory: what a transformer block keeps for its backward pass, and what it computes again."""

from __future__ import annotations

import functools
from contextlib import AbstractContextManager
from typing import Any, Literal

import torch
from torch import nn
from torch.utils.checkpoint import (
    CheckpointPolicy,
    checkpoint,
    create_selective_checkpoint_contexts,
    noop_context_fn,
)

from nova.layers.transformer import Block

_COSTLY = {
    torch.ops.aten.mm.default,
    torch.ops.aten.addmm.default,
    torch.ops.aten.bmm.default,
    torch.ops.aten._scaled_dot_product_flash_attention.default,
    torch.ops.aten._scaled_dot_product_efficient_attention.default,
    torch.ops.aten._scaled_dot_product_cudnn_attention.default,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default,
}


def recompute_blocks(model: nn.Module, policy: Literal["nothing", "blocks", "cheap"]) -> None:
    """Make the transformer blocks of `model` compute again, in the backward pass, what `policy` does not keep.

    `blocks` keeps a block's inputs only, `cheap` also the results of matrix products and attention. Numbers and
    names of parameters stay as they are.
    """
    if policy == "nothing":
        return
    context = noop_context_fn if policy == "blocks" else _keep_costly
    for module in model.modules():
        if isinstance(module, Block):
            module.forward = functools.partial(  # type: ignore[method-assign]
                checkpoint, module.forward, use_reentrant=False, preserve_rng_state=False, context_fn=context
            )


def _keep_costly() -> tuple[AbstractContextManager[Any], AbstractContextManager[Any]]:
    return create_selective_checkpoint_contexts(_policy)


def _policy(context: object, operation: object, *arguments: object, **options: object) -> CheckpointPolicy:
    return CheckpointPolicy.MUST_SAVE if operation in _COSTLY else CheckpointPolicy.PREFER_RECOMPUTE
