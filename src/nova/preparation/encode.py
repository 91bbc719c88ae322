"""Clips to samples: moments of the autoencoder in float16, and features of captions where they are asked for.

One by one on a CPU, where a sample's bits then depend on nothing but itself; in batches of one shape on a GPU.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float16
from torch import Tensor

from nova.autoencoders.adapter import Autoencoder
from nova.checkpoints.folder import load_autoencoder, read_json
from nova.data.samples import ShardSample
from nova.data.shards import Header, Model
from nova.errors import ResourceError
from nova.preparation.items import Clip
from nova.preparation.motion import definition
from nova.preparation.rules import Rules
from nova.preparation.similarity import Scorer, load_scorer
from nova.text import encode_text, load_text_encoder, load_tokenizer
from nova.weights import weights_digest

VERSION = "1"
"""Of what this package does with an item. Another one makes all samples anew: raise it when the same item would
become other samples."""
_LIBRARIES = ("av", "numpy", "opencv-python-headless", "pillow", "scenedetect-headless", "torch")
"""Whose versions can change pixels, scores or latents."""


@dataclass(frozen=True)
class ModelFolders:
    """Where the frozen models are, and what they are called.

    autoencoder: a folder with its config.json.  text: a folder with text_encoder/ and tokenizer/, None for labels.
    with_features: whether captions are encoded, or only counted in tokens.  max_tokens: of a caption.
    clip, head: a CLIP model by folder or hub id, and the file of an aesthetic head.
    """

    autoencoder: Path
    autoencoder_id: str
    text: Path | None = None
    text_id: str = ""
    with_features: bool = False
    max_tokens: int = 256
    clip: str | None = None
    head: Path | None = None


@dataclass(frozen=True, eq=False)
class Models:
    """The frozen models on their device, and the digests by which they are known. `text` is None without features."""

    autoencoder: Autoencoder
    autoencoder_name: Model
    device: torch.device
    dtype: torch.dtype = torch.float32
    tokenizer: Any = None
    max_tokens: int | None = None
    text: Any = None
    text_name: Model | None = None
    scorer: Scorer | None = None
    scorer_name: Mapping[str, str] | None = None

    def header(self, rules: Rules) -> Header:
        """What all samples have in common that are made with these and by such rules."""
        shift, scale = self.autoencoder.scaling
        return Header(
            autoencoder=self.autoencoder_name,
            shift=shift,
            scale=scale,
            text_encoder=self.text_name,
            versions=_versions(),
            options={
                "rules": rules.model_dump(mode="json"),
                "motion": definition(rules.motion),
                "dtype": str(self.dtype).removeprefix("torch."),
                "max_tokens": self.max_tokens,
                "scorer": None if self.scorer_name is None else dict(self.scorer_name),
            },
        )


@dataclass(frozen=True, eq=False)
class Encoder:
    """Models at work. `batch`: clips that are encoded together."""

    models: Models
    header: Header
    batch: int = 1

    @torch.inference_mode()
    def encode(self, clips: Sequence[Clip]) -> list[ShardSample | None]:
        """The sample of each of some clips of one shape; None where its latents are no finite float16 numbers."""
        return [
            None if moments is None else self._sample(clip, moments)
            for clip, moments in zip(clips, self._moments(clips), strict=True)
        ]

    def cut_captions(self, clip: Clip) -> int:
        """How many captions have more tokens than the text encoder takes."""
        tokenizer, most = self.models.tokenizer, self.models.max_tokens
        if tokenizer is None or most is None:
            return 0
        counts = (len(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in clip.item.captions)
        return sum(count > most for count in counts)

    def scored(self, clip: Clip) -> Clip:
        """The clip with the scores that a CLIP model gives, where there is one."""
        if self.models.scorer is None:
            return clip
        (found,) = self.models.scorer.scores([clip.frames], [clip.item.captions])
        return replace(clip, scores={**clip.scores, **found})

    def _moments(self, clips: Sequence[Clip]) -> list[Float16[np.ndarray, "c2 t h w"] | None]:
        frames = torch.from_numpy(np.stack([clip.frames for clip in clips])).to(self.models.device)
        pixels = frames.movedim(-1, 1).float().div_(127.5).sub_(1.0)
        try:
            encoded = self.models.autoencoder.encode(pixels).half().cpu().numpy()
        except ResourceError:  # one of them is not finite in any precision
            if len(clips) == 1:
                return [None]
            return [moments for clip in clips for moments in self._moments([clip])]
        return [moments if np.isfinite(moments).all() else None for moments in encoded]

    def _sample(self, clip: Clip, moments: np.ndarray) -> ShardSample:
        captions = clip.item.captions
        text = None
        if self.models.text is not None:
            text = tuple(rows.half().cpu().numpy() for rows in self._features(captions))
        return ShardSample(
            clip.id, moments, captions, label=clip.item.label, motion=clip.motion, fps=clip.fps, text=text
        )

    def _features(self, captions: Sequence[str]) -> list[Tensor]:
        models = self.models
        assert models.max_tokens is not None  # it comes with the text encoder
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # captions that are cut are counted in the report
            return encode_text(models.tokenizer, models.text, captions, models.max_tokens)


def load_models(folders: ModelFolders, device: torch.device, dtype: torch.dtype) -> Models:
    """Load the models, in float32 for their digests and then in `dtype`.

    Raises CheckpointError for folders that are incomplete or damaged.
    """
    name = str(read_json(folders.autoencoder / "config.json").get("_class_name"))
    vae = load_autoencoder(folders.autoencoder, name, torch.float32).requires_grad_(False)
    autoencoder_name = Model(id=folders.autoencoder_id, sha256=weights_digest(vae))
    tokenizer = text = text_name = scorer = scorer_name = None
    if folders.text is not None:
        tokenizer = load_tokenizer(folders.text / "tokenizer")
        if folders.with_features:
            encoder: Any = load_text_encoder(folders.text / "text_encoder")
            text_name = Model(id=folders.text_id, sha256=weights_digest(encoder))
            text = encoder.to(device, dtype)
    if folders.clip is not None:
        scorer = load_scorer(folders.clip, folders.head, str(device))
        scorer_name = {"clip": weights_digest(scorer.model)}
        if scorer.head is not None:
            scorer_name["head"] = weights_digest(scorer.head)
    if dtype != torch.float32:  # diffusers warns of every cast, also of those that change nothing
        vae = vae.to(dtype)
    return Models(
        Autoencoder(vae.to(device)),
        autoencoder_name,
        device,
        dtype,
        tokenizer,
        None if tokenizer is None else folders.max_tokens,
        text,
        text_name,
        scorer,
        scorer_name,
    )


def _versions() -> dict[str, str]:
    found = {"preparation": VERSION}
    for name in _LIBRARIES:
        with suppress(metadata.PackageNotFoundError):  # what some media or rules need, and others not
            found[name] = metadata.version(name)
    return found
