"""The published weights' names and configs, and ours: the one place that knows both.

Two things differ besides names. Published patch embeddings are convolutions, ours are linear maps of flattened
patches; and published denoising blocks project their modulations one by one, ours all at once.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from nova.errors import CheckpointError
from nova.models.config import NovaConfig

CLASS_NAME = "NOVATransformer3DModel"
CLASSES = 1000
"""Labels of published class-conditional models; their config does not say."""

_HEADS = {768: 12, 1024: 16, 1536: 16}

_NAMES = (  # prefixes, published and ours; the first that fits is taken
    ("text_embed.weight", "text.null_rows"),
    ("text_embed.", "text."),
    ("label_embed.weight", "label.table"),
    ("label_embed.", "label."),
    ("motion_embed.flow_proj.0.", "motion.motion.fc1."),
    ("motion_embed.flow_proj.2.", "motion.motion.fc2."),
    ("motion_embed.fps_proj.0.", "motion.frame_rate.fc1."),
    ("motion_embed.fps_proj.2.", "motion.frame_rate.fc2."),
    ("mask_embed.bos_token", "temporal.begin"),
    ("mask_embed.mask_token", "spatial.mask"),
    ("video_pos_embed.time_proj.0.", "temporal.time.proj.fc1."),
    ("video_pos_embed.time_proj.2.", "temporal.time.proj.fc2."),
    ("video_pos_embed.norm.", "temporal.time.norm."),
    ("video_encoder.patch_embed.proj.", "temporal.embed."),
    ("video_encoder.mixer.lora.", "temporal.scale_shift.low_rank."),
    ("video_encoder.mixer.", "temporal.scale_shift."),
    ("video_encoder.", "temporal."),
    ("image_encoder.patch_embed.proj.", "spatial.embed."),
    ("image_encoder.", "spatial."),
    ("image_decoder.patch_embed.proj.", "denoiser.embed."),
    ("image_decoder.time_cond_embed.timestep_proj.", "denoiser.time."),
    ("image_decoder.time_cond_embed.condition_proj.", "denoiser.feature."),
    ("image_decoder.", "denoiser."),
)
_EMBEDDINGS = ("temporal.embed.weight", "spatial.embed.weight", "denoiser.embed.weight")


def read_config(config: Mapping[str, Any]) -> NovaConfig:
    """Our config of a published `transformer/config.json`."""
    try:
        temporal, spatial, denoiser = config["arch"]
        temporal_layers, width = _depth_and_width("vit", temporal)
        spatial_layers, spatial_width = _depth_and_width("vit", spatial)
        blocks, denoiser_width = _depth_and_width("mlp", denoiser)
        stride = int(config["image_stride"])
        size = config["image_size"]
        height, across = (size, size) if isinstance(size, int) else size
        rank = config.get("video_mixer_rank")
        text_dim = config.get("text_token_dim")
        frames = int(config["video_base_size"][0])
        channels = int(config["image_dim"])
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"transformer config: {error!r}; not a published {CLASS_NAME} config") from None
    if spatial_width != width:
        raise CheckpointError(f"transformer config: arch has widths {width} and {spatial_width}; they must be equal")
    return NovaConfig(
        width=width,
        heads=_HEADS.get(width, width // 64),
        temporal_layers=temporal_layers,
        spatial_encoder_layers=spatial_layers // 2,
        spatial_decoder_layers=spatial_layers - spatial_layers // 2,
        denoiser_width=denoiser_width,
        denoiser_blocks=blocks,
        latent_height=height // stride,
        latent_width=across // stride,
        latent_frames=frames,
        channels=channels,
        patch=15 // stride + 1,
        text_dim=text_dim or None,
        text_tokens=config.get("text_token_len") or 256,
        classes=None if text_dim else CLASSES,
        scale_shift=bool(rank),
        scale_shift_rank=rank if rank and rank > 0 else None,
        rotary=bool(config.get("rotary_pos_embed", False)),
    )


def write_config(config: NovaConfig) -> dict[str, Any]:
    """The published `transformer/config.json` of our config; what that layout cannot say is an error."""
    stride = next((stride for stride in (16, 8, 4, 2, 1) if 15 // stride + 1 == config.patch), None)
    obstacles = {
        "heads": config.heads != _HEADS.get(config.width, config.width // 64),
        "spatial_decoder_layers": config.spatial_decoder_layers != config.spatial_encoder_layers,
        "patch": stride is None,
        "classes": config.classes not in (None, CLASSES),
    }
    for field, blocked in obstacles.items():
        if blocked:
            found = getattr(config, field)
            raise CheckpointError(f"NovaConfig.{field}: {found} has no place in the published layout; keep ours")
    assert stride is not None
    rows, columns = config.grid
    return {
        "_class_name": CLASS_NAME,
        "arch": [
            f"vit_d{config.temporal_layers}w{config.width}",
            f"vit_d{2 * config.spatial_encoder_layers}w{config.width}",
            f"mlp_d{config.denoiser_blocks}w{config.denoiser_width}",
        ],
        "image_dim": config.channels,
        "image_size": [config.latent_height * stride, config.latent_width * stride],
        "image_stride": stride,
        "image_base_size": [rows, columns],
        "video_base_size": [config.latent_frames, rows // 2, columns // 2],
        "video_mixer_rank": (config.scale_shift_rank or -1) if config.scale_shift else None,
        "rotary_pos_embed": config.rotary,
        "text_token_dim": config.text_dim,
        "text_token_len": config.text_tokens if config.text_dim else None,
    }


def read_weights(weights: Mapping[str, Tensor], config: NovaConfig) -> dict[str, Tensor]:
    """Published parameters under our names and in our shapes."""
    weights, ours = dict(weights), {}
    for suffix in ("weight", "bias"):
        parts = [weights.pop(name) for name in _modulations(config, suffix) if name in weights]
        if parts:
            ours[f"denoiser.modulation.{suffix}"] = torch.cat(parts)
    for name, value in weights.items():
        our_name = _our_name(name, config)
        if our_name in _EMBEDDINGS:  # (out, channel, row, column) to (out, row column channel)
            value = value.permute(0, 2, 3, 1).flatten(1).contiguous()
        ours[our_name] = value
    return ours


def write_weights(weights: Mapping[str, Tensor], config: NovaConfig) -> dict[str, Tensor]:
    """Inverse of `read_weights`."""
    published: dict[str, Tensor] = {}
    for name, value in weights.items():
        if name.startswith("denoiser.modulation."):
            targets = _modulations(config, name.rpartition(".")[2])
            sizes = [3 * config.denoiser_width] * config.denoiser_blocks + [2 * config.denoiser_width]
            parts = (part.contiguous() for part in value.split(sizes))
            published.update(zip(targets, parts, strict=True))
            continue
        if name in _EMBEDDINGS:
            side = math.isqrt(value.shape[1] // config.channels)
            value = value.unflatten(1, (side, side, config.channels)).permute(0, 3, 1, 2).contiguous()
        published[_published_name(name, config)] = value
    return published


def _depth_and_width(kind: str, name: str) -> tuple[int, int]:
    match = re.fullmatch(kind + r"_d(\d+)w(\d+)", name)
    if match is None:
        raise ValueError(f"arch {name!r} is not of the form {kind}_d<layers>w<width>")
    return int(match[1]), int(match[2])


def _modulations(config: NovaConfig, suffix: str) -> Iterable[str]:
    """Published names of the parts of `denoiser.modulation`, in order."""
    blocks = [f"image_decoder.blocks.{index}.norm1.proj.{suffix}" for index in range(config.denoiser_blocks)]
    return [*blocks, f"image_decoder.norm.proj.{suffix}"]


def _our_name(name: str, config: NovaConfig) -> str:
    for published, ours in _NAMES:
        if name.startswith(published):
            name = ours + name.removeprefix(published)
            break
    if match := re.match(r"spatial\.blocks\.(\d+)\.(.*)", name):
        index, half = int(match[1]), config.spatial_encoder_layers
        part, index = ("encoder", index) if index < half else ("decoder", index - half)
        return f"spatial.{part}.{index}.{match[2]}"
    return re.sub(r"^(denoiser\.blocks\.\d+)\.proj\.", r"\1.mlp.", name)


def _published_name(name: str, config: NovaConfig) -> str:
    name = re.sub(r"^(denoiser\.blocks\.\d+)\.mlp\.", r"\1.proj.", name)
    if match := re.match(r"spatial\.(encoder|decoder)\.(\d+)\.(.*)", name):
        index = int(match[2]) + (config.spatial_encoder_layers if match[1] == "decoder" else 0)
        name = f"spatial.blocks.{index}.{match[3]}"
    for published, ours in _NAMES:
        if name.startswith(ours):
            return published + name.removeprefix(ours)
    return name
