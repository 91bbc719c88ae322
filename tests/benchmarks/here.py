"""For tests of comparisons: where the scripts are, and a side in this process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

SCRIPTS = Path(__file__).parents[2] / "benchmarks"
"""They are no package, and import each other by name."""


class Here:
    """A side in this process: what a `Worker` does, without starting Python again."""

    def __init__(self, make: Callable[..., Any], *arguments: Any) -> None:
        self._side = make(*arguments)

    @classmethod
    def frugal(cls, make: Callable[..., Any], *arguments: Any) -> Here:
        return cls(make, *arguments)

    def ask(self, question: str, *arguments: Any) -> Any:
        return getattr(self._side, question)(*arguments)

    def __enter__(self) -> Here:
        return self

    def __exit__(self, *_: object) -> None:
        pass
