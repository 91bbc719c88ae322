"""The samples of a transformer's run: clips of the small world, encoded once, or a folder of latent shards."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from nova.data.moving_digits import World
from nova.errors import DataError, UsageError
from nova.text import encode_text
from nova.training.cluster import Cluster
from nova.training.heldout import split
from nova.training.latents import ClipSource, EncodedClips, encoded_clips
from nova.training.log import counting_bar
from nova.training.transformer import DigitsData, Encode, Inputs, LatentData, Source, TransformerRun
from nova.weights import weights_digest

if TYPE_CHECKING:
    from nova.data.shards import Model

LATENTS, HELD_OUT = "latents.safetensors", "held_out.safetensors"
_TEXT_BATCH = 64


@dataclass(frozen=True)
class Opened:
    """Samples, a name of all that is in them, and how their captions are encoded if that is not done yet.

    `held_out` are others, which are not trained on. `shards` names what is in each file that they come from, `notice`
    is a line for the user.
    """

    samples: Source
    fingerprint: str
    encode: Encode | None = None
    held_out: Source | None = None
    shards: Mapping[str, str] = field(default_factory=dict)
    notice: str | None = None


def open_source(config: TransformerRun, inputs: Inputs, folder: Path, cluster: Cluster, quiet: bool) -> Opened:
    """What `config.data` names. Clips are encoded into the run `folder` by the main process.

    Raises DataError for shards that don't fit the run, UsageError for data that a run of its kind cannot use.
    """
    match config.data:
        case DigitsData():
            return _digits(config.data, config, inputs, folder, cluster, quiet)
        case LatentData():
            return _shards(config.data, config, inputs, cluster.device)


def _digits(
    data: DigitsData, config: TransformerRun, inputs: Inputs, folder: Path, cluster: Cluster, quiet: bool
) -> Opened:
    if inputs.text_encoder is None:
        raise UsageError("model.classes: the moving digits have captions, no labels; leave it out")
    world = World(data.size, data.frames, data.seed, hands=data.hands, grid=data.grid)
    bfloat16 = config.precision == "bfloat16"

    def encoded(file: str, world: World, count: int) -> EncodedClips:
        def encode(quiet: bool) -> EncodedClips:
            with counting_bar("encoding clips", count, quiet) as progress:
                return encoded_clips(folder / file, world, count, inputs.autoencoder, bfloat16, progress)

        cluster.on_main(lambda: encode(quiet))
        return encode(quiet=True)

    def opened(clips: EncodedClips) -> ClipSource:
        captions = [*clips.short, *clips.long]
        return ClipSource(clips, _features(inputs, captions, config.model.text_tokens))

    samples = opened(encoded(LATENTS, world, data.clips))
    name = hashlib.sha256(f"{world} {data.clips}".encode()).hexdigest()
    if not (config.observe.every and config.observe.held_out):
        return Opened(samples, name)
    held_out = encoded(HELD_OUT, replace(world, split="test"), config.observe.held_out)
    return Opened(samples, name, held_out=opened(held_out))


def _shards(data: LatentData, config: TransformerRun, inputs: Inputs, device: torch.device) -> Opened:
    from nova.data.latents import LatentDataset  # needs pyarrow, which the moving digits don't

    dataset = LatentDataset(data.folder)
    if dataset.header.text_encoder is not None and inputs.text_encoder is not None:
        _same("text_encoder", data.folder, dataset.header.text_encoder, weights_digest(inputs.text_encoder))
    _same("autoencoder", data.folder, dataset.header.autoencoder, weights_digest(inputs.vae))
    encode = None
    if inputs.text_encoder is not None and dataset.header.text_encoder is None:
        encode = functools.partial(_encode, inputs, config.model.text_tokens, device)
    notice = None
    if dataset.unlisted:
        count, first = len(dataset.unlisted), dataset.unlisted[0]
        notice = f"warning: {data.folder}: {count} shards are not in the manifest and not read, the first is {first}"
    opened = Opened(dataset, dataset.fingerprint, encode, shards=dataset.shards, notice=notice)
    if not config.observe.held_out:
        return opened
    samples, held_out = split(dataset, config.observe.held_out)
    return replace(opened, samples=samples, held_out=held_out)


def _same(field: str, folder: str, made_with: Model, given: str) -> None:
    if made_with.sha256 != given:
        raise DataError(
            f"{folder}: its samples were made with {made_with.id!r} as {field}, whose weights are not those of the "
            f"run's; give {field}=…, or prepare the data with the run's"
        )


def _encode(
    inputs: Inputs, max_tokens: int, device: torch.device, captions: Sequence[str]
) -> list[Float[Tensor, "_ dim"]]:
    encoder = inputs.text_encoder.to(device)  # at the first call; where features are stored it is never needed
    return encode_text(inputs.tokenizer, encoder, list(captions), max_tokens, _TEXT_BATCH)


def _features(inputs: Inputs, captions: Sequence[str], max_tokens: int) -> dict[str, Float[Tensor, "_ dim"]]:
    """Text features of the distinct captions, in float16."""
    distinct = list(dict.fromkeys(captions))
    rows = _encode(inputs, max_tokens, inputs.text_encoder.device, distinct)
    return {caption: one.half() for caption, one in zip(distinct, rows, strict=True)}
