"""Runs that take turns, and what can be said of their times.

Whatever else happens on a machine should meet all sides of a comparison alike. So every round goes through them and
back (A B B A), and each side's two turns of a round show by how much the same thing differs from itself: a ratio of two
sides means nothing within that band.
"""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Callable, Mapping, Sequence


@dataclasses.dataclass(frozen=True)
class Spread:
    """Median, least and most of some figures."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, figures: Sequence[float]) -> Spread:
        """At least one figure."""
        return cls(statistics.median(figures), min(figures), max(figures))

    def __str__(self) -> str:
        return f"{self.median:.3g} ({self.least:.3g} to {self.most:.3g})"


@dataclasses.dataclass(frozen=True)
class Turns:
    """What one side took: a first run outside the comparison, then two turns in every round. Seconds."""

    first: float
    """The first run: whatever is compiled, captured or read from the disk is in it."""
    rounds: tuple[tuple[float, float], ...]

    @property
    def seconds(self) -> Spread:
        """Over all turns."""
        return Spread.of([time for pair in self.rounds for time in pair])

    @property
    def band(self) -> Spread:
        """The side against itself: the first turn over the second, round by round."""
        return Spread.of([early / late for early, late in self.rounds])


def take_turns(
    sides: Mapping[str, Callable[[], float]],
    rounds: int,
    warm_up: Mapping[str, Callable[[], float]] | None = None,
) -> dict[str, Turns]:
    """Run every side once, then `rounds` times there and back. A side returns the seconds that its run took.

    `warm_up` has shorter first runs for sides that need no whole one.
    """
    first = {name: run() for name, run in {**sides, **(warm_up or {})}.items()}
    pairs: dict[str, list[tuple[float, float]]] = {name: [] for name in sides}
    for _ in range(rounds):
        there = {name: run() for name, run in sides.items()}
        back = {name: sides[name]() for name in reversed(list(sides))}
        for name in sides:
            pairs[name].append((there[name], back[name]))
    return {name: Turns(first[name], tuple(pairs[name])) for name in sides}


def ratio(over: Turns, under: Turns) -> Spread:
    """Seconds of one side over another's, round by round."""
    return Spread.of([sum(one) / sum(other) for one, other in zip(over.rounds, under.rounds, strict=True)])
