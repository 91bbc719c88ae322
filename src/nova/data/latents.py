"""Random access to the latents of a folder of shards, in buckets of one shape, from any number of processes.

Memory is flat: an index of a few numbers for each run of rows, and some open files. Every sample is checked as it is
read, and a bad one is an error that names it, never another sample in its place.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nova.data.manifest import read_manifest, verify
from nova.data.samples import LatentSample
from nova.data.shards import Shape, ShardReader

_OPEN_FILES = 32


@dataclass(frozen=True)
class _Runs:
    """Where the samples of a bucket lie: run i ends before sample `ends[i]` and starts in `shards[i]` at `rows[i]`."""

    ends: np.ndarray
    shards: np.ndarray
    rows: np.ndarray

    def find(self, index: int) -> tuple[int, int]:
        """Shard and row of sample `index`."""
        run = int(np.searchsorted(self.ends, index, side="right"))
        before = int(self.ends[run - 1]) if run else 0
        return int(self.shards[run]), int(self.rows[run]) + index - before


class LatentDataset:
    """The shards of `folder` as its manifest lists them; pickles and forks without its open files.

    Attributes:
        header: how the samples were made: autoencoder, scaling, text encoder, options.
        buckets: the shape (2c, t, h, w) of the moments of each bucket, in ascending order.
        counts: the number of samples of each bucket.
        fingerprint: a digest that names the content.
        shards: the sha256 of every shard, by its name.
        unlisted: names of shards in the folder that the manifest does not list, which are not read.

    Raises:
        DataError: the manifest is missing or damaged, or a shard is missing or not the one it lists.
    """

    def __init__(self, folder: str | Path) -> None:
        self._manifest = read_manifest(folder)
        self.folder = self._manifest.folder
        self.header = self._manifest.header
        self.fingerprint = self._manifest.fingerprint
        self.shards = {shard.file: shard.sha256 for shard in self._manifest.shards}
        self.unlisted = self._manifest.unlisted
        found: dict[Shape, list[tuple[int, int, int]]] = {}
        for number, shard in enumerate(self._manifest.shards):
            row = 0
            for run in shard.runs:
                found.setdefault(run.shape, []).append((run.rows, number, row))
                row += run.rows
        self.buckets = tuple(sorted(found))
        tables = [np.array(found[shape]) for shape in self.buckets]
        self._runs = [_Runs(table[:, 0].cumsum(), table[:, 1], table[:, 2]) for table in tables]
        self.counts = tuple(int(runs.ends[-1]) for runs in self._runs)
        self._readers: OrderedDict[int, ShardReader] = OrderedDict()
        self._process = os.getpid()

    def __len__(self) -> int:
        return sum(self.counts)

    def get(self, bucket: int, index: int) -> LatentSample:
        """Sample `index` of `bucket`, both counted from 0.

        Raises:
            DataError: the sample is damaged; names shard, row and id.
            ResourceError: the system cannot read the shard; a later try may succeed.
        """
        number, row = self._find(bucket, index)
        sample = self._reader(number).read(row)
        return LatentSample(
            id=sample.id,
            moments=torch.from_numpy(sample.moments),
            captions=sample.captions,
            label=sample.label,
            motion=sample.motion,
            fps=sample.fps,
            text=None if sample.text is None else tuple(map(torch.from_numpy, sample.text)),
        )

    def where(self, bucket: int, index: int) -> str:
        """Shard and row of a sample, for messages; reads nothing."""
        number, row = self._find(bucket, index)
        return f"{self.folder / self._manifest.shards[number].file} row {row}"

    def verify(self) -> None:
        """Read every byte of every shard. Raises DataError that names all damaged ones."""
        verify(self._manifest)

    def _find(self, bucket: int, index: int) -> tuple[int, int]:
        if not (0 <= bucket < len(self.counts) and 0 <= index < self.counts[bucket]):
            raise IndexError(f"bucket {bucket}, sample {index}: the buckets hold {self.counts} samples")
        return self._runs[bucket].find(index)

    def _reader(self, number: int) -> ShardReader:
        if self._process != os.getpid():  # the files of a parent process stay the parent's
            self._readers, self._process = OrderedDict(), os.getpid()
        if number not in self._readers:
            if len(self._readers) >= _OPEN_FILES:
                self._readers.popitem(last=False)
            shard = self._manifest.shards[number]
            self._readers[number] = ShardReader(self.folder / shard.file, shard)
        self._readers.move_to_end(number)
        return self._readers[number]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_readers": OrderedDict()}
