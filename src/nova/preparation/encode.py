"""Clips to samples: moments of the autoencoder in float16, and features of captions where they are asked for.

One by one on a CPU, where a sample's bits then depend on nothing but itself; in batches of one shape on a GPU.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
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
from nova.preparation.rules import Rules
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

    autoencoder: a folder with its config.json.  text: a folder with text_encoder/ and tokenizer/.
    with_features: whether captions are encoded, or only counted in tokens.  max_tokens: that the features may have.
    """

    autoencoder: Path
    autoencoder_id: str
    text: Path | None = None
    text_id: str = ""
    with_features: bool = False
    max_tokens: int = 256


@dataclass(frozen=True)
class Encoder:
    """The frozen models on their device. `batch`: clips that are encoded together."""

    autoencoder: Autoencoder
    header: Header
    device: torch.device
    batch: int
    tokenizer: Any
    text_encoder: Any
    max_tokens: int

    @torch.inference_mode()
    def encode(self, clips: Sequence[Clip]) -> list[ShardSample | None]:
        """The sample of each of some clips of one shape; None where its latents are no finite float16 numbers."""
        return [
            None if moments is None else self._sample(clip, moments)
            for clip, moments in zip(clips, self._moments(clips), strict=True)
        ]

    def cut_captions(self, clip: Clip) -> int:
        """How many captions have more tokens than the text encoder takes."""
        if self.tokenizer is None:
            return 0
        counts = (len(self.tokenizer(text, add_special_tokens=False)["input_ids"]) for text in clip.item.captions)
        return sum(count > self.max_tokens for count in counts)

    def _moments(self, clips: Sequence[Clip]) -> list[Float16[np.ndarray, "c2 t h w"] | None]:
        frames = torch.from_numpy(np.stack([clip.frames for clip in clips])).to(self.device)
        pixels = frames.movedim(-1, 1).float().div_(127.5).sub_(1.0)
        try:
            encoded = self.autoencoder.encode(pixels).half().cpu().numpy()
        except ResourceError:  # one of them is not finite in any precision
            if len(clips) == 1:
                return [None]
            return [moments for clip in clips for moments in self._moments([clip])]
        return [moments if np.isfinite(moments).all() else None for moments in encoded]

    def _sample(self, clip: Clip, moments: np.ndarray) -> ShardSample:
        captions = clip.item.captions
        text = None
        if self.text_encoder is not None:
            text = tuple(rows.half().cpu().numpy() for rows in self._features(captions))
        return ShardSample(
            clip.id, moments, captions, label=clip.item.label, motion=clip.motion, fps=clip.fps, text=text
        )

    def _features(self, captions: Sequence[str]) -> list[Tensor]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # captions that are cut are counted in the report
            return encode_text(self.tokenizer, self.text_encoder, captions, self.max_tokens)


def load_encoder(folders: ModelFolders, rules: Rules, device: torch.device, dtype: torch.dtype, batch: int) -> Encoder:
    """Load the models, in float32 for their digests and then in `dtype`.

    Raises CheckpointError for folders that are incomplete or damaged.
    """
    name = str(read_json(folders.autoencoder / "config.json").get("_class_name"))
    vae = load_autoencoder(folders.autoencoder, name, torch.float32).requires_grad_(False)
    autoencoder = Model(id=folders.autoencoder_id, sha256=weights_digest(vae))
    tokenizer: Any = None
    text_encoder: Any = None
    text_model = None
    if folders.text is not None:
        tokenizer = load_tokenizer(folders.text / "tokenizer")
        if folders.with_features:
            text_encoder = load_text_encoder(folders.text / "text_encoder")
            text_model = Model(id=folders.text_id, sha256=weights_digest(text_encoder))
            text_encoder = text_encoder.to(device, dtype)
    adapter = Autoencoder(vae.to(device, dtype))
    shift, scale = adapter.scaling
    header = Header(
        autoencoder=autoencoder,
        shift=shift,
        scale=scale,
        text_encoder=text_model,
        versions=_versions(),
        options={
            "rules": rules.model_dump(mode="json"),
            "dtype": str(dtype).removeprefix("torch."),
            "max_tokens": folders.max_tokens if folders.text is not None else None,
        },
    )
    return Encoder(adapter, header, device, batch, tokenizer, text_encoder, folders.max_tokens)


def _versions() -> dict[str, str]:
    found = {"preparation": VERSION}
    for name in _LIBRARIES:
        with suppress(metadata.PackageNotFoundError):  # what some media or rules need, and others not
            found[name] = metadata.version(name)
    return found
