"""What memory a generation takes, computed: its own code, run on tensors without numbers that know when they are freed.

The text encoder works first, then the transformer and, beside it, the autoencoder; with offload one after another. Each
has its weights, and what it holds beside them at most. What libraries take for themselves (a CUDA context of about
half a GiB, work space of convolutions, gaps between blocks) is not in it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from nova.autoencoders.adapter import Autoencoder
from nova.autoencoders.video import VideoAutoencoder
from nova.diffusion.flow import FlowProcess
from nova.generation.options import GenerationOptions
from nova.generation.video import generate_video
from nova.models.nova import NovaTransformer
from nova.training.rehearsal import Account

_SETS = 2
"""Sets in the rehearsed frame: as few as show what a set takes, and larger than those of a real one."""


@dataclass(frozen=True)
class Part:
    """One part at work. weights, working: bytes of its weights, and the most that it holds beside them."""

    name: str
    weights: int
    working: int


@dataclass(frozen=True)
class Memory:
    """What the parts take, in the order in which they work."""

    parts: tuple[Part, ...]

    @property
    def together(self) -> int:
        """Bytes with all weights on the device, where the autoencoder decodes while later frames are made."""
        *text, transformer, autoencoder = self.parts
        working = max([transformer.working + autoencoder.working, *(part.working for part in text)])
        return sum(part.weights for part in self.parts) + working

    @property
    def offloaded(self) -> int:
        """Bytes where only the part at work is on the device."""
        return max(part.weights + part.working for part in self.parts)


def generation_memory(
    transformer: NovaTransformer, vae: nn.Module, text_encoder: Any | None, dtype: torch.dtype, sliced: bool
) -> Memory:
    """Of one sample at the trained size with guidance; the modules may be on the meta device, and are left there.

    `sliced`: whether a video autoencoder decodes frame by frame, as it does with offload.
    """
    found = []
    if text_encoder is not None:
        found.append(_of_text(text_encoder, transformer.shape.text_tokens, dtype))
    return Memory((*found, _of_transformer(transformer, dtype), _of_autoencoder(vae, transformer, dtype, sliced)))


def _of_text(encoder: Any, tokens: int, dtype: torch.dtype) -> Part:
    mode, account = _ready(encoder, dtype)
    with mode, account, torch.no_grad():
        encoder(input_ids=torch.zeros(1, tokens, dtype=torch.long))
    return _part("text encoder", encoder, account)


def _of_transformer(model: NovaTransformer, dtype: torch.dtype) -> Part:
    """The last frame, when the past is longest; the frames before it are given."""
    shape = model.shape
    mode, account = _ready(model, dtype)
    size = (shape.latent_height, shape.latent_width)
    options = GenerationOptions(steps=_SETS, diffusion_steps=1)
    with mode, account, torch.no_grad():
        given = torch.zeros(1, shape.channels, shape.latent_frames - 1, *size) if shape.is_video else None
        tokens = shape.text_tokens + 2 if shape.is_video else shape.text_tokens or 1
        prompt = torch.zeros(options.guidance.branches, 1, tokens, shape.width, dtype=dtype)
        for _ in generate_video(model, FlowProcess(), prompt, size, shape.latent_frames, options, prefix=given):
            pass
    return _part("transformer", model, account)


def _of_autoencoder(vae: nn.Module, transformer: NovaTransformer, dtype: torch.dtype, sliced: bool) -> Part:
    shape = transformer.shape
    mode, account = _ready(vae, dtype)
    before = isinstance(vae, VideoAutoencoder) and vae.use_slicing
    if isinstance(vae, VideoAutoencoder):
        vae.use_slicing = sliced
    autoencoder = Autoencoder(vae)
    with mode, account, torch.no_grad():
        size = (shape.latent_height, shape.latent_width)
        autoencoder.decode(torch.zeros(1, shape.channels, shape.latent_frames, *size))
    if isinstance(vae, VideoAutoencoder):
        vae.use_slicing = before
    return _part("autoencoder", vae, account)


def _ready(module: nn.Module, dtype: torch.dtype) -> tuple[FakeTensorMode, Account]:
    """The module with weights that have no numbers, and an account that leaves these out."""
    mode, account = FakeTensorMode(allow_non_fake_inputs=True), Account()
    nn.Module.to(module, dtype)
    with mode:
        module.to_empty(device="cpu")
    account.leave_out(module)
    return mode, account


def _part(name: str, module: nn.Module, account: Account) -> Part:
    weights = sum(tensor.untyped_storage().nbytes() for tensor in (*module.parameters(), *module.buffers()))
    return Part(name, weights, account.peak)
