"""A line of a comparison's table: one figure of both sides."""

from __future__ import annotations

import dataclasses

from nova.bench.turns import Spread

Figure = Spread | float | None


@dataclasses.dataclass(frozen=True)
class Row:
    """A figure of both sides, and the published code's over ours where that says something."""

    name: str
    ours: Figure
    published: Figure = None
    ratio: Figure = None

    def __str__(self) -> str:
        return f"{self.name:<30}" + "".join(map(_cell, (self.ours, self.published, self.ratio))).rstrip()


def _cell(figure: Figure) -> str:
    text = "" if figure is None else str(figure) if isinstance(figure, Spread) else f"{figure:.4g}"
    return f"{text:<26}"
