"""What the flags of `nova prepare` ask for: which models, by which rules."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from nova.checkpoints.folder import read_transformer_config
from nova.checkpoints.locate import locate
from nova.cli.request import parse_size
from nova.errors import UsageError
from nova.preparation.encode import ModelFolders, Models
from nova.preparation.rules import Autoencoder, Rules, buckets_of, paper
from nova.preparation.sources import SourceOptions
from nova.recipes.overrides import override, validated
from nova.recipes.parts import autoencoder_folder, text_encoder_folder

_SOURCE = "source."
_TOKENS = 256  # of the published models


@dataclass(frozen=True)
class Asked:
    """The flags that say what is made, as they stand on the command line."""

    model: str
    autoencoder: str | None = None
    text_encoder: str | None = None
    text_features: bool = False
    sizes: tuple[str, ...] = ()
    frames: tuple[int, ...] = ()
    paper: bool = False
    clip: str | None = None
    head: Path | None = None
    caption_encoding: str | None = None
    settings: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """For prepare.json, from which `asked_before` reads it."""
        return {**asdict(self), "head": None if self.head is None else str(self.head)}


def asked_before(fields: Mapping[str, Any]) -> Asked:
    """The inverse of `Asked.as_json`. Raises TypeError for other fields."""
    lists = {name: tuple(value) for name, value in fields.items() if isinstance(value, list)}
    return Asked(**{**fields, **lists, "head": fields["head"] and Path(fields["head"])})


def folders_for(asked: Asked) -> ModelFolders:
    """Where the models are. Raises UsageError for what is not there, CheckpointError for a folder without a model."""
    if asked.head is not None and asked.clip is None:
        raise UsageError("--aesthetic-head: needs the CLIP model that it was trained on; name it with --clip")
    text = asked.text_encoder or asked.autoencoder or asked.model
    try:
        text_folder = text_encoder_folder(text)
    except UsageError:
        if asked.text_encoder is not None or asked.text_features:
            raise
        text_folder = None  # a model of classes, or an autoencoder alone: nobody asked for text
    return ModelFolders(
        autoencoder=autoencoder_folder(asked.autoencoder or asked.model),
        autoencoder_id=asked.autoencoder or asked.model,
        text=text_folder,
        text_id=text,
        with_features=asked.text_features,
        max_tokens=_max_tokens(asked.model),
        clip=asked.clip,
        head=asked.head,
    )


def rules_for(asked: Asked, models: Models) -> Rules:
    """The rules: the paper's or our own, in the sizes asked for, changed by the settings. Raises UsageError."""
    autoencoder = models.autoencoder
    fields = (paper() if asked.paper else Rules()).model_dump()
    fields["autoencoder"] = Autoencoder(
        pixels=autoencoder.spatial_stride, frames=autoencoder.temporal_stride
    ).model_dump()
    if not asked.paper or asked.sizes or asked.frames:
        config = read_transformer_config(locate(asked.model) / "transformer")
        stride = autoencoder.spatial_stride
        sizes = [parse_size(text) for text in asked.sizes]
        sizes = sizes or [(config.latent_height * stride, config.latent_width * stride)]
        lengths = asked.frames or (autoencoder.frames(config.latent_frames),)
        fields["buckets"] = [bucket.model_dump() for bucket in buckets_of(sizes, lengths)]
    if models.scorer is not None:
        fields["predicted"] = ["similarity"] if models.scorer.head is None else ["similarity", "aesthetic"]
    rules = validated(Rules, fields)
    return override(rules, [word for word in asked.settings if not word.startswith(_SOURCE)])


def source_for(asked: Asked) -> SourceOptions:
    """How the source is read. Raises UsageError."""
    words = [word.removeprefix(_SOURCE) for word in asked.settings if word.startswith(_SOURCE)]
    if asked.caption_encoding is not None:
        words.append(f"encoding={asked.caption_encoding}")
    return override(SourceOptions(), words)


def share(text: str) -> float:
    """A share of one from `1%` or `0.01`. Raises UsageError."""
    try:
        value = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise UsageError(f"--max-bad: {text!r} is no share; write 1% or 0.01")
    return value


def _max_tokens(model: str) -> int:
    return read_transformer_config(locate(model) / "transformer").text_tokens or _TOKENS
