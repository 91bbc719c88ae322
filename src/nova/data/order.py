"""Which samples make batch number k: a pure function of (counts, batch size, seed, k), at the same cost for every k.

Nothing is stored and nothing is replayed, so a run that goes on at step k reads what it would have read. No
permutation is ever held: the sample at a place is computed, by a keyed permutation of the integers below n (Black and
Rogaway, Ciphers with Arbitrary Finite Domains, 2002: a Feistel network on a grid, with cycle walking).
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from itertools import accumulate

import numpy as np

from nova.errors import UsageError

_ROUNDS = 8


@dataclass(frozen=True)
class Batch:
    """Samples `ids` of one `bucket`, counted within it, in the order of their places; `epoch` counts from 0."""

    bucket: int
    epoch: int
    ids: tuple[int, ...]


@dataclass(frozen=True)
class BatchOrder:
    """The order of an endless run over buckets of `counts` samples, in global batches of `batch_size`.

    A batch comes from one bucket, since only samples of one shape can be stacked. In each epoch a bucket of n samples
    has ceil(n / batch_size) batches, and all batches of all buckets are shuffled together. What the last batch of a
    bucket lacks is taken from the beginning of the bucket's order of that epoch: every sample is seen in every epoch,
    some of them twice, and those of a bucket smaller than a batch several times.

    The order does not know of ranks, workers and micro-batches: each takes a slice of `Batch.ids`, by place.
    """

    counts: tuple[int, ...]
    batch_size: int
    seed: int

    def __post_init__(self) -> None:
        if not self.counts or min(self.counts) < 1:
            raise UsageError(f"counts: found {self.counts}, expected one or more samples in each of the buckets")
        if self.batch_size < 1:
            raise UsageError(f"batch_size: found {self.batch_size}, expected 1 or more")

    @property
    def batches_per_epoch(self) -> int:
        """The number of batches until every sample has been seen."""
        return self._ends()[-1]

    def batch(self, step: int) -> Batch:
        """Batch number `step`, counted from 0 over all epochs."""
        if step < 0:
            raise UsageError(f"step: found {step}, expected 0 or more")
        ends = self._ends()
        epoch, place = divmod(step, ends[-1])
        chosen = int(permuted(np.array([place]), ends[-1], self.seed, "batches", epoch)[0])
        bucket = next(index for index, end in enumerate(ends) if chosen < end)
        first = (chosen - (ends[bucket - 1] if bucket else 0)) * self.batch_size
        count = self.counts[bucket]
        places = np.arange(first, first + self.batch_size) % count
        ids = permuted(places, count, self.seed, "samples", epoch, bucket)
        return Batch(bucket, epoch, tuple(ids.tolist()))

    def _ends(self) -> tuple[int, ...]:
        """How many batches of an epoch are of the buckets up to each one, itself included."""
        return tuple(accumulate(-(-count // self.batch_size) for count in self.counts))


def permuted(places: np.ndarray, count: int, *key: int | str) -> np.ndarray:
    """Where a random permutation of range(`count`), chosen by `key`, puts each of `places`; both int64, any shape."""
    side = math.isqrt(count - 1) + 1
    rows, columns = np.uint64(side), np.uint64(-(-count // side))
    round_keys = _round_keys(*key)
    ids = _feistel(places.astype(np.uint64), rows, columns, round_keys)
    # The grid has at most `rows` cells too many. Who lands there walks on along the cycle of the grid's permutation,
    # and comes out in range because it started there.
    while (outside := ids >= count).any():
        ids[outside] = _feistel(ids[outside], rows, columns, round_keys)
    return ids.astype(np.int64)


def _feistel(ids: np.ndarray, rows: np.uint64, columns: np.uint64, round_keys: np.ndarray) -> np.ndarray:
    """A permutation of range(rows * columns): row and column in turn are moved by a random function of the other."""
    row: np.ndarray = ids // columns
    column: np.ndarray = ids % columns
    for even, odd in round_keys.reshape(-1, 2):
        row = (row + _mix(column ^ even) % rows) % rows
        column = (column + _mix(row ^ odd) % columns) % columns
    return row * columns + column


def _mix(bits: np.ndarray) -> np.ndarray:
    """The finaliser of SplitMix64 (Steele, Lea and Flood 2014): every bit of the result hangs on every bit given."""
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return bits ^ (bits >> np.uint64(31))


def _round_keys(*key: int | str) -> np.ndarray:
    digest = hashlib.sha512("/".join(map(str, key)).encode()).digest()
    return np.frombuffer(digest, "<u8").astype(np.uint64)[:_ROUNDS]
