"""The transformer of NOVA: prompt conditions, temporal encoder, spatial encoder and denoising MLP under one roof."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from diffusers.configuration_utils import ConfigMixin
from diffusers.loaders import PeftAdapterMixin
from diffusers.models.modeling_utils import ModelMixin
from jaxtyping import Float
from torch import Tensor, nn

from nova.layers.transformer import Block
from nova.models.conditioning import LabelCondition, MotionCondition, TextCondition
from nova.models.config import NovaConfig
from nova.models.denoiser import DenoisingMLP
from nova.models.spatial import SpatialEncoder
from nova.models.temporal import TemporalEncoder

BRANCH_SCALE = 0.1
"""What a residual branch's norm multiplies by at first."""


class NovaTransformer(ModelMixin, ConfigMixin, PeftAdapterMixin):
    """Holds the networks; how they are used is written in `nova.generation` and `nova.training.objective`."""

    config_name = "config.json"

    def __init__(self, config: NovaConfig) -> None:
        super().__init__()
        self.register_to_config(**config.to_dict())
        self.shape = config
        self.text = (
            None if config.text_dim is None else TextCondition(config.text_dim, config.width, config.text_tokens)
        )
        self.label = None if config.classes is None else LabelCondition(config.classes, config.width)
        self.motion = MotionCondition(config.width) if config.is_video else None
        self.temporal = TemporalEncoder(config)
        self.spatial = SpatialEncoder(config)
        self.denoiser = DenoisingMLP(config)
        self.initialize()

    @classmethod
    def from_config(cls, config: Mapping[str, Any] | NovaConfig) -> NovaTransformer:
        """Build from a `NovaConfig` or its saved fields (diffusers' own keys start with an underscore)."""
        if isinstance(config, NovaConfig):
            return cls(config)
        return cls(NovaConfig.from_dict({name: value for name, value in config.items() if name[0] != "_"}))

    def initialize(self) -> None:
        """Weights to train from.

        Residual branches end in a norm, which makes even a useless one as large as what the stream holds. They start
        small, queries and keys of unit size: attention can then tell tokens apart from the first step on, instead
        of averaging them. Modulations start at zero, so every denoising block starts as the identity.
        """
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            if isinstance(module, Block):
                nn.init.normal_(module.attn.qkv.weight, std=self.shape.width**-0.5)
                nn.init.constant_(module.norm1.weight, BRANCH_SCALE)
                nn.init.constant_(module.norm2.weight, BRANCH_SCALE)
        nn.init.zeros_(self.denoiser.modulation.weight)
        if self.temporal.scale_shift is not None:
            nn.init.zeros_(self.temporal.scale_shift.proj.weight)

    def prompt(
        self,
        condition: Tensor,
        motion: Float[Tensor, "b"] | None = None,
        frame_rate: Float[Tensor, "b"] | None = None,
    ) -> Float[Tensor, "b l width"]:
        """Prompt tokens: of text rows (b l dim) or labels (b), then motion score and frame rate of video models."""
        if self.text is not None:
            tokens = self.text(condition)
        else:
            assert self.label is not None  # a config has exactly one of the two
            tokens = self.label(condition)
        if self.motion is None or motion is None or frame_rate is None:
            return tokens
        return torch.cat([tokens, self.motion(motion, frame_rate)], dim=1)
