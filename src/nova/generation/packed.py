"""Weights laid out for generation on a CPU: what a matrix library would otherwise do in every call, done once.

Blocks see hundreds of tokens at a time, the denoising MLP a handful, thousands of times. For a few rows of a small
matrix the calls cost more than the product: the least in float32, with the weights' rows and columns swapped, and
without modules between them.
"""

from __future__ import annotations

import torch
from torch import nn

from nova.errors import UsageError
from nova.layers.packed import PackedLinear, PlainLinear, pack, packs
from nova.layers.packed_block import PackedBlock
from nova.layers.straight import straight
from nova.layers.transformer import Block
from nova.models.nova import NovaTransformer

_SMALL = 512
"""Up to this width a denoising MLP works in float32, whatever the precision of the rest; and weights of which one side
is no longer than this are small."""


@torch.no_grad()  # the straight code is that of generation, which takes no gradients
def pack_model(model: NovaTransformer) -> None:
    """Lay out the weights of `model`, in place, if they are not yet. Afterwards it can generate and nothing else.

    Results differ in the last bits. Raises UsageError where an adapter stands beside the weights.
    """
    if is_packed(model):
        return
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear) and name.endswith(".base_layer"):
            raise UsageError(
                f"pack(): {name.removesuffix('.base_layer')} has an adapter; merge it into the model first"
            )
    denoiser = model.denoiser
    packed, small = packs(model.device, model.dtype), model.shape.denoiser_width <= _SMALL
    for layers in (model.temporal.blocks, model.spatial.encoder, model.spatial.decoder):
        for index, block in enumerate(layers):
            assert isinstance(block, Block)  # of which these lists consist
            layers[index] = PackedBlock(block, PackedLinear if packed else PlainLinear)
    if model.dtype == torch.float32:
        _swap(model)
    elif packed and small:
        for part in (denoiser.embed, denoiser.blocks, denoiser.head):
            _swap(part.float())
    elif packed:
        pack(denoiser.blocks)
    if packed:
        pack(denoiser.feature)
        wanted = denoiser.embed.weight.dtype
        denoiser.modulation = PackedLinear(denoiser.modulation, result=wanted)  # type: ignore[assignment]
    denoiser.predict = straight(denoiser, "predict", opaque=(PackedLinear,))  # type: ignore[method-assign]


def is_packed(model: NovaTransformer) -> bool:
    """Whether `pack_model` was here."""
    return isinstance(model.spatial.decoder[-1], PackedBlock)


def _swap(network: nn.Module) -> None:
    """Store the columns of each small weight one after the other instead of its rows; it stays the same matrix."""
    for layer in network.modules():
        if isinstance(layer, nn.Linear) and min(layer.weight.shape) <= _SMALL:
            layer.weight.data = layer.weight.data.t().contiguous().t()
