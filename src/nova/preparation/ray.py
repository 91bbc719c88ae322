"""The same work on a Ray cluster: items are inspected by tasks, clips encoded by actors that keep the models.

Ray Data moves rows from the ones to the others, a few at a time; what comes back are samples, in the order of the
items. Verdicts, parts and shards stay with the process that asked. All machines see the source under the same path. A
task has worker processes of its own, so that no file can take Ray's worker with it.
"""

from __future__ import annotations

import itertools
import logging
import os
from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nova.data.samples import ShardSample
from nova.errors import UsageError
from nova.preparation.deciding import Tickets
from nova.preparation.encode import Encoder, ModelFolders, load_models
from nova.preparation.inspect import inspect
from nova.preparation.items import Clip, FileMedia, Media
from nova.preparation.listing import Listed
from nova.preparation.pool import Limits, Piece, pooled
from nova.preparation.rules import Rules

_CHUNK = 4096
"""Items of one pass of Ray Data, whose rows are listed here before it begins."""
_TOGETHER = 16
"""Items of a task."""
_ELSEWHERE = FileMedia(Path(), "")
_NO_FRAMES = np.zeros(1, np.uint8)


@dataclass(frozen=True)
class Cluster:
    """What the machines of a cluster are to do; they load the models themselves.

    on_gpus: an actor that encodes on each GPU that the cluster has, not a single one without.  batch: clips that one
    encodes together.
    """

    folders: ModelFolders
    rules: Rules
    dtype: torch.dtype
    limits: Limits
    on_gpus: bool = False
    batch: int = 1

    def inspect(self, tickets: Tickets) -> Generator[Piece[str], None, None]:
        """What becomes of items, as `nova.preparation.pool.pooled` has it, with clips that are encoded already."""
        data, gpus = _ray_data()
        gpus = gpus if self.on_gpus else 0
        coming = iter(tickets)
        while chunk := list(itertools.islice(coming, _CHUNK)):
            rows = data.from_items([{"row": Listed(item, key)} for key, item in chunk])
            inspected = rows.map_batches(partial(_inspected, self), batch_size=_TOGETHER)
            encoded = inspected.map_batches(
                _Encoding,
                fn_constructor_args=(self,),
                batch_size=max(self.batch, _TOGETHER),
                concurrency=max(1, gpus),
                num_gpus=min(1, gpus),
            )
            media = {key: item.media for key, item in chunk}
            for row in encoded.iter_rows():
                yield _near(row["row"], media)


@dataclass(frozen=True, eq=False)
class EncodedClip(Clip):
    """A clip with its sample, None where that is not finite; its frames are but a shape."""

    sample: ShardSample | None = None


@dataclass(frozen=True, eq=False)
class FarEncoder(Encoder):
    """An encoder whose work was done elsewhere."""

    def encode(self, clips: Sequence[Clip]) -> list[ShardSample | None]:
        """The samples that clips brought with them."""
        return [clip.sample for clip in clips if isinstance(clip, EncodedClip)]

    def scored(self, clip: Clip) -> Clip:
        """As it is: it brought its scores."""
        return clip


@dataclass(frozen=True)
class _Far:
    """A piece on its way back: a clip without frames, their shape, and its sample."""

    piece: Piece[str]
    shape: tuple[int, ...] = ()
    sample: ShardSample | None = None


def _near(far: _Far, media: Mapping[str, Media]) -> Piece[str]:
    made = far.piece.made
    if not isinstance(made, Clip):
        return far.piece
    item = replace(made.item, media=media[far.piece.ticket])
    fields = {**vars(made), "item": item, "frames": np.broadcast_to(_NO_FRAMES, far.shape)}
    return replace(far.piece, made=EncodedClip(**fields, sample=far.sample))


def _ray_data() -> tuple[Any, int]:
    """Ray Data, and the number of GPUs, of the cluster that RAY_ADDRESS names or that is started on this machine.

    Raises UsageError where Ray is not installed.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
        import ray.data
    except ImportError:
        raise UsageError("--executor ray: Ray is not installed; pip install 'nova-video[ray]'") from None
    ray.init(ignore_reinit_error=True, log_to_driver=False, include_dashboard=False, logging_level=logging.ERROR)
    context = ray.data.DataContext.get_current()
    context.execution_options.preserve_order = True
    context.enable_progress_bars = False
    return ray.data, int(ray.cluster_resources().get("GPU", 0))


def _inspected(cluster: Cluster, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The pieces of some items, in a task."""
    tickets = ((listed.key, listed.item) for listed in batch["row"])
    return _column(pooled(tickets, partial(inspect, rules=cluster.rules), replace(cluster.limits, workers=1)))


class _Encoding:
    """An actor: it loads the models once."""

    def __init__(self, cluster: Cluster) -> None:
        device = torch.device("cuda" if cluster.on_gpus and torch.cuda.is_available() else "cpu")
        models = load_models(cluster.folders, device, cluster.dtype)
        self._encoder = Encoder(models, models.header(cluster.rules), cluster.batch)

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Every piece with the sample of its clip in place of the frames."""
        pieces: list[Piece[str]] = list(batch["row"])
        clips = [self._encoder.scored(piece.made) for piece in pieces if isinstance(piece.made, Clip)]
        samples: dict[str, ShardSample | None] = {}
        for shape in dict.fromkeys(clip.frames.shape for clip in clips):
            alike = [clip for clip in clips if clip.frames.shape == shape]
            for start in range(0, len(alike), self._encoder.batch):
                some = alike[start : start + self._encoder.batch]
                samples.update(zip((clip.id for clip in some), self._encoder.encode(some), strict=True))
        coming = iter(clips)
        return _column(
            self._far(piece, next(coming), samples) if isinstance(piece.made, Clip) else _Far(piece) for piece in pieces
        )

    @staticmethod
    def _far(piece: Piece[str], clip: Clip, samples: Mapping[str, ShardSample | None]) -> _Far:
        light = replace(clip, item=replace(clip.item, media=_ELSEWHERE), frames=np.zeros((0, 0, 0, 3), np.uint8))
        return _Far(replace(piece, item=light.item, made=light), clip.frames.shape, samples[clip.id])


def _column(found: Iterable[Any]) -> dict[str, np.ndarray]:
    """Objects as a column of Ray Data."""
    values = list(found)
    column = np.empty(len(values), object)
    for place, value in enumerate(values):
        column[place] = value
    return {"row": column}
