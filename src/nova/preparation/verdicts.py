"""Which clips are near-duplicates of earlier ones. Decided in the order of items, so that the first of several stays.

The verdict on a clip depends on what came before it, not on its item alone; so it is never taken from an earlier run.
"""

from __future__ import annotations

import dataclasses

from nova.preparation.duplicates import Kept
from nova.preparation.fates import Fate
from nova.preparation.items import Reason

_OPEN = (None, Reason.NEAR_DUPLICATE.code, Reason.NOT_FINITE.code)
"""Reasons of clips that all rules on the clip alone let pass."""


class Verdicts:
    """Judges fates one after the other; `distance` is the rule on near-duplicates, None lets all pass."""

    def __init__(self, distance: int | None) -> None:
        self._kept = None if distance is None else Kept(distance)
        self._ids: list[str] = []

    def __len__(self) -> int:
        return len(self._ids)

    def judge(self, fate: Fate) -> Fate:
        """The fate of a clip when those before are known; what is refused for other reasons stays so."""
        seen = fate.hash
        if fate.reason not in _OPEN or seen is None:
            return fate
        if fate.reason == Reason.NEAR_DUPLICATE.code:
            fate = dataclasses.replace(fate, status="ok", reason=None, detail=None)
        if self._kept is None:
            return fate
        first = self._kept.match(seen)
        if first is not None:
            return fate.refused(Reason.NEAR_DUPLICATE, f"looks like {self._ids[first]}")
        self._kept.add(seen)
        self._ids.append(fate.id)
        return fate

    def forget(self, length: int) -> None:
        """Take back what was judged since `len(self)` was `length`."""
        if self._kept is not None:
            self._kept.forget(len(self._ids) - length)
            del self._ids[length:]
