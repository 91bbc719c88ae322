"""The latents of a fixed set of the world's clips, encoded once and kept in the run folder.

What is kept are moments, so that each use can draw its own latents from them; captions and motion come along. The
file names what it was made from, world and autoencoder, and is made again when that is not what is asked for.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from jaxtyping import Float
from torch import Tensor

from nova.autoencoders.adapter import Autoencoder
from nova.data.moving_digits import World
from nova.data.samples import LatentSample
from nova.errors import CheckpointError
from nova.files import replace_durably
from nova.training.autoencoder import to_pixels
from nova.weights import weights_digest

_BATCH = 8


@dataclass(frozen=True)
class EncodedClips:
    """`n` clips: moments in float16, mean pixels a frame of their motion, and their short and long captions."""

    moments: Float[Tensor, "n 2*c t h w"]
    motion: Float[Tensor, " n"]
    short: tuple[str, ...]
    long: tuple[str, ...]


@dataclass(frozen=True)
class ClipSource:
    """The clips as a transformer's run reads them: one bucket, with the features of both captions of each.

    `features` holds those of every caption; None leaves them to be worked out later.
    """

    clips: EncodedClips
    features: Mapping[str, Float[Tensor, "_ dim"]] | None

    @property
    def counts(self) -> tuple[int, ...]:
        """How many clips there are."""
        return (len(self.clips.motion),)

    @property
    def buckets(self) -> tuple[tuple[int, int, int, int], ...]:
        """Shape (2c t h w) of their moments."""
        channels, frames, height, width = self.clips.moments.shape[1:]
        return ((channels, frames, height, width),)

    def get(self, bucket: int, index: int) -> LatentSample:
        """Clip number `index`."""
        captions = (self.clips.short[index], self.clips.long[index])
        return LatentSample(
            id=str(index),
            moments=self.clips.moments[index],
            captions=captions,
            label=None,
            motion=float(self.clips.motion[index]),
            fps=None,
            text=None if self.features is None else tuple(self.features[caption] for caption in captions),
        )

    def where(self, bucket: int, index: int) -> str:
        """Its name."""
        return f"clip {index}"


def encoded_clips(
    file: Path,
    world: World,
    count: int,
    autoencoder: Autoencoder,
    bfloat16: bool = False,
    progress: Callable[[int], None] = lambda done: None,
) -> EncodedClips:
    """The first `count` clips of `world`: from `file` if it holds them, else encoded now and written there.

    `bfloat16` is for the matrix products; `progress` is told how many clips are done.
    Raises CheckpointError for a file that is damaged.
    """
    precision = "bfloat16" if bfloat16 else "float32"
    source = f"{world} {count} {weights_digest(autoencoder.module)} {precision}"
    if file.exists():
        found = _read(file, source)
        if found is not None:
            return found
    clips = _encode(world, count, autoencoder, bfloat16, progress)
    file.parent.mkdir(parents=True, exist_ok=True)
    replace_durably(file, _serialized(clips, source))
    return clips


@torch.no_grad()
def _encode(
    world: World, count: int, autoencoder: Autoencoder, bfloat16: bool, progress: Callable[[int], None]
) -> EncodedClips:
    moments: list[Tensor] = []
    motion: list[float] = []
    short: list[str] = []
    long: list[str] = []
    for first in range(0, count, _BATCH):
        samples = [world.sample(index) for index in range(first, min(first + _BATCH, count))]
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            encoded = autoencoder.encode(to_pixels([sample.frames for sample in samples]))
        moments.append(encoded.half().contiguous())
        motion += [sample.motion for sample in samples]
        short += [sample.short for sample in samples]
        long += [sample.long for sample in samples]
        progress(len(motion))
    return EncodedClips(torch.cat(moments), torch.tensor(motion), tuple(short), tuple(long))


def _serialized(clips: EncodedClips, source: str) -> bytes:
    tensors = {"moments": clips.moments, "motion": clips.motion}
    digest = hashlib.sha256(b"".join(tensor.numpy().tobytes() for tensor in tensors.values())).hexdigest()
    captions = json.dumps({"short": clips.short, "long": clips.long})
    return safetensors.torch.save(tensors, {"source": source, "sha256": digest, "captions": captions})


def _read(file: Path, source: str) -> EncodedClips | None:
    """The clips in `file`, or None where they were made from something else."""
    try:
        with safetensors.safe_open(file, "pt") as opened:
            facts = opened.metadata()
            if facts["source"] != source:
                return None
            moments, motion = opened.get_tensor("moments"), opened.get_tensor("motion")
        captions = json.loads(facts["captions"])
        clips = EncodedClips(moments, motion, tuple(captions["short"]), tuple(captions["long"]))
        digest = hashlib.sha256(moments.numpy().tobytes() + motion.numpy().tobytes()).hexdigest()
    except (safetensors.SafetensorError, KeyError, ValueError, TypeError) as error:
        raise CheckpointError(f"{file}: not a file of encoded clips ({error}); delete it to encode again") from None
    if digest != facts["sha256"]:
        raise CheckpointError(f"{file}: damaged, its sha256 does not fit; delete it to encode again")
    return clips
