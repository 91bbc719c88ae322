"""A training step's fused kernels: what stands between matrix products, made into few kernels by `torch.compile`."""

from __future__ import annotations

import logging

from torch import nn
from torch._functorch import config as differentiation

from nova.layers.compiled import compile_modules
from nova.layers.transformer import Block
from nova.models.denoiser import DenoisingMLP


def compile_blocks(objective: nn.Module, thrifty: bool) -> None:
    """Compile the blocks of `objective` and the denoising MLP, in place; it happens in their first calls.

    A `thrifty` backward pass computes again whatever is no matrix product: weights in bfloat16, norms, activations.
    That is a setting of the whole process.
    """
    # torch warns of operations in place wherever something is computed again. There are none here.
    logging.getLogger("torch._higher_order_ops.wrap").setLevel(logging.ERROR)
    differentiation.ban_recompute_materialized_backward = not thrifty
    compile_modules(objective, (Block, DenoisingMLP), dynamic=None, backend="inductor")
