"""Which ids were listed already, in 8 bytes of memory each (12 to 24 with the free places): a set of hashes.

Two of ten million different ids meet by chance once in 370,000 such listings; the later one is then refused as a
duplicate, which the report says.
"""

from __future__ import annotations

import hashlib
from array import array


class Seen:
    """A set of strings that can only grow, by open addressing."""

    def __init__(self) -> None:
        self._slots = array("Q", bytes(8 * 1024))
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __contains__(self, text: str) -> bool:
        return self._slots[self._place(_hash(text))] != 0

    def add(self, text: str) -> bool:
        """Whether `text` is new; it no longer is."""
        value = _hash(text)
        place = self._place(value)
        if self._slots[place]:
            return False
        self._slots[place] = value
        self._count += 1
        if 3 * self._count > 2 * len(self._slots):
            self._grow()
        return True

    def _place(self, value: int) -> int:
        mask = len(self._slots) - 1
        place = value & mask
        while self._slots[place] not in (0, value):
            place = (place + 1) & mask
        return place

    def _grow(self) -> None:
        values = self._slots
        self._slots = array("Q", bytes(16 * len(values)))
        for value in values:
            if value:
                self._slots[self._place(value)] = value


def _hash(text: str) -> int:
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little") or 1  # 0 is a free place
