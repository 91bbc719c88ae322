"""Models without a checkpoint: a published size by name, with random weights.

Speed does not depend on what the weights are, as long as they are not zero, so a published model's can be measured
without a download. Its text encoder is left out; prompts are random features of `PROMPT_TOKENS` tokens.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn

from nova.autoencoders.video import VideoAutoencoder
from nova.diffusion.scheduler import Scheduler, ddpm_scheduler, flow_scheduler
from nova.errors import UsageError, nearest
from nova.models.config import NovaConfig, published_size
from nova.models.nova import NovaTransformer
from nova.pipeline import NovaPipeline

PROMPT_TOKENS = 32
_WIDTHS = (128, 256, 512, 512)
_NARROW = (32, 32, 64, 64)


@dataclasses.dataclass(frozen=True)
class RandomModel:
    """A model's shape, its diffusion process, and the widths of its autoencoder."""

    shape: NovaConfig
    scheduler: Callable[[], Scheduler] = flow_scheduler
    autoencoder: tuple[int, ...] = _WIDTHS

    def transformer(self, device: torch.device | str = "cpu") -> NovaTransformer:
        """With the same float32 weights in every process on the same kind of device; none is zero throughout."""
        with torch.random.fork_rng(_cuda(device)), torch.device(device):
            torch.manual_seed(0)
            model = NovaTransformer(self.shape)
            with torch.no_grad():
                for parameter in model.parameters():
                    if not parameter.is_meta and not parameter.any():
                        parameter.normal_(std=0.02)
        return model.eval()

    def vae(self, device: torch.device | str = "cpu") -> nn.Module:
        """The video autoencoder, or for an image model that of Stable Diffusion XL, in float32."""
        with torch.random.fork_rng(_cuda(device)), torch.device(device):
            torch.manual_seed(1)
            if self.shape.is_video:
                return VideoAutoencoder(block_out_channels=self.autoencoder).eval()
            kinds = {"down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4}
            sizes = {"block_out_channels": self.autoencoder, "layers_per_block": 2, "scaling_factor": 0.13025}
            return AutoencoderKL(**kinds, **sizes).eval()

    def pipeline(self, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> NovaPipeline:
        """All parts on `device` in `dtype`; it takes `prompt_embeds`."""
        transformer, vae = self.transformer(device), self.vae(device)
        for part in (transformer, vae):
            nn.Module.to(part, dtype)  # diffusers' own asks about parts to be kept in float32, of which there are none
        pipe = NovaPipeline(transformer, self.scheduler(), vae)
        pipe.set_progress_bar_config(disable=True)
        return pipe

    def prompt(self) -> Tensor:
        """Features of one prompt (l dim), always the same."""
        return random_prompt(self.shape)


def random_prompt(shape: NovaConfig) -> Tensor:
    """Random text features (l dim), always the same, for a model without a text encoder."""
    assert shape.text_dim is not None  # class-conditional models take labels
    tokens = min(PROMPT_TOKENS, shape.text_tokens)
    return torch.randn(tokens, shape.text_dim, generator=torch.Generator().manual_seed(2))


def random_model(name: str) -> RandomModel:
    """A model of `NAMES`; raises UsageError for a name that is none of them."""
    if name in _SMALL:
        return _SMALL[name]()
    size, _, rest = name.partition("-")
    kind, _, pixels = rest.partition("-")
    if kind == "t2v" and pixels == "480":
        return RandomModel(published_size(size, height=480, width=768, latent_frames=9), ddpm_scheduler)
    if kind == "t2i" and pixels in ("256", "512", "1024"):
        return RandomModel(published_size(size, height=int(pixels), width=int(pixels)))
    raise UsageError(f"--random: no model {name!r}{nearest(name, NAMES)}")


def _small(
    width: int, layers: int, latent: int, frames: int = 5, scheduler: Callable[[], Scheduler] = flow_scheduler
) -> RandomModel:
    shape = NovaConfig(
        width=width,
        heads=width // 64,
        temporal_layers=layers,
        spatial_encoder_layers=layers,
        spatial_decoder_layers=layers,
        denoiser_width=width,
        denoiser_blocks=3,
        latent_height=latent,
        latent_width=latent,
        latent_frames=frames,
        text_dim=128,
        text_tokens=48,
        scale_shift=frames > 1,
        scale_shift_rank=24 if frames > 1 else None,
    )
    return RandomModel(shape, scheduler, _NARROW)


def _cuda(device: torch.device | str) -> list[torch.device]:
    """The devices whose random state has to be put back."""
    return [torch.device(device)] if torch.device(device).type == "cuda" else []


_SMALL: dict[str, Callable[[], RandomModel]] = {
    "tiny": lambda: _small(64, 1, 8, scheduler=ddpm_scheduler),
    "tiny-image": lambda: _small(64, 1, 8, frames=1),
    "small": lambda: _small(256, 6, 16),
}
"""`tiny` ones are for trying things out; `small` has 16 M parameters and makes 17 frames of 128x128."""
NAMES = (
    *_SMALL,
    *(f"{size}-t2i-{pixels}" for size in ("0.3B", "0.6B", "1.4B") for pixels in (256, 512, 1024)),
    *(f"{size}-t2v-480" for size in ("0.3B", "0.6B", "1.4B")),
)
