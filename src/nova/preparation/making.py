"""Clips on their way into parts: collected into batches of one shape, encoded, written when there are enough.

A part holds whole items only. When one is written depends on the clock, what is in it does not.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable

from nova.data.samples import ShardSample
from nova.preparation.encode import Encoder
from nova.preparation.fates import Fate
from nova.preparation.items import Clip, Reason
from nova.preparation.parts import Store

PART_BYTES = 64 << 20
PART_SECONDS = 30.0
PART_ITEMS = 2000
"""What a kill may cost, and what waits in memory."""
_QUEUE_BYTES = 512 << 20


class Maker:
    """Takes clips and fates, an item at a time, and puts them into the store."""

    def __init__(self, encoder: Encoder, store: Store) -> None:
        self._encoder = encoder
        self._store = store
        self._open: list[Fate] = []
        self._items: list[list[Fate]] = []
        self._samples: dict[str, ShardSample | None] = {}
        self._queue: defaultdict[tuple[int, ...], list[Clip]] = defaultdict(list)
        self._made = 0  # bytes of moments since the last part
        self._since = time.monotonic()

    def take(self, fate: Fate, clip: Clip | None = None) -> None:
        """A fate of the item that is under way, and its clip where that is to be encoded."""
        self._open.append(fate)
        if clip is None:
            return
        alike = self._queue[clip.frames.shape]
        alike.append(clip)
        if len(alike) >= self._encoder.batch:
            self._encode(clip.frames.shape)
        elif sum(one.frames.nbytes for some in self._queue.values() for one in some) > _QUEUE_BYTES:
            self._encode(max(self._queue, key=lambda shape: len(self._queue[shape])))

    def end(self, failure: Fate | None = None) -> None:
        """The item is whole; with a `failure` that is all that became of it."""
        if failure is not None:
            self._drop({fate.id for fate in self._open})
            self._open = [failure]
        self._items.append(self._open)
        self._open = []
        full = self._made >= PART_BYTES or len(self._items) >= PART_ITEMS
        if full or time.monotonic() - self._since >= PART_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Encode what waits, and write a part of all items that are whole."""
        for shape in list(self._queue):
            self._encode(shape)
        whole = {fate.id for fates in self._items for fate in fates}
        samples = {id: sample for id, sample in self._samples.items() if sample is not None and id in whole}
        if self._items:
            self._store.add([[self._final(fate) for fate in fates] for fates in self._items], samples)
        self._items = []
        self._samples = {id: sample for id, sample in self._samples.items() if id not in whole}
        self._made = 0
        self._since = time.monotonic()

    def _encode(self, shape: tuple[int, ...]) -> None:
        clips = self._queue.pop(shape)
        for start in range(0, len(clips), self._encoder.batch):
            batch = clips[start : start + self._encoder.batch]
            for clip, sample in zip(batch, self._encoder.encode(batch), strict=True):
                self._samples[clip.id] = sample
                self._made += 0 if sample is None else sample.moments.nbytes

    def _final(self, fate: Fate) -> Fate:
        if fate.id in self._samples and self._samples[fate.id] is None:
            return fate.refused(Reason.NOT_FINITE, "the autoencoder gives NaN, infinity or more than float16 holds")
        return fate

    def _drop(self, ids: Iterable[str]) -> None:
        gone = set(ids)
        self._samples = {id: sample for id, sample in self._samples.items() if id not in gone}
        for shape, clips in list(self._queue.items()):
            self._queue[shape] = [clip for clip in clips if clip.id not in gone]
