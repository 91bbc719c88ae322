"""Near-duplicates: clips whose perceptual hashes differ in few bits from that of one kept before.

Hashes that differ in at most d bits agree in at least one of d + 1 bands of bits, so only those are compared that
share a band. The answer is that of comparing with every earlier hash.
"""

from __future__ import annotations

import itertools
from collections import defaultdict

_BITS = 64


class Kept:
    """The hashes of the clips that are kept, in order; `distance` is the most bits in which duplicates differ."""

    def __init__(self, distance: int) -> None:
        self._distance = distance
        edges = [round(index * _BITS / (distance + 1)) for index in range(distance + 2)]
        self._bands = [(low, (1 << (high - low)) - 1) for low, high in itertools.pairwise(edges)]
        self._by_band: list[dict[int, list[int]]] = [defaultdict(list) for _ in self._bands]
        self._hashes: list[int] = []

    def __len__(self) -> int:
        return len(self._hashes)

    def match(self, hash: int) -> int | None:
        """The number of the first kept clip that `hash` is a duplicate of, or None."""
        found = None
        for (low, mask), by_band in zip(self._bands, self._by_band, strict=True):
            for number in by_band.get((hash >> low) & mask, ()):
                if (self._hashes[number] ^ hash).bit_count() <= self._distance:
                    found = number if found is None else min(found, number)
                    break  # numbers ascend
        return found

    def add(self, hash: int) -> None:
        """Keep one more."""
        number = len(self._hashes)
        for (low, mask), by_band in zip(self._bands, self._by_band, strict=True):
            by_band[(hash >> low) & mask].append(number)
        self._hashes.append(hash)

    def forget(self, count: int) -> None:
        """Take back the last `count` that were added."""
        for _ in range(count):
            hash = self._hashes.pop()
            for (low, mask), by_band in zip(self._bands, self._by_band, strict=True):
                by_band[(hash >> low) & mask].pop()
