"""Results of comparisons as a page of tables and a plot.

    python benchmarks/results.py [FOLDER]

FOLDER (`benchmarks/results` by default) holds JSON files that the comparisons printed or wrote; it gets `README.md`
and `ratios.png`. Of a CPU only ratios are shown: seconds say little about another one. Of a GPU everything is.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bars import Bar, bar_chart
from PIL import Image
from rows import Figure, Row

from nova.bench.turns import Spread
from nova.errors import DataError, NovaError
from nova.files import written_whole

HERE = Path(__file__).parent / "results"
BANDS = ("the same twice (A/A)", "the same side twice")
"""Rows of a side against itself, of generation and of training."""
PURE = (*BANDS, "times the limit", "share of the matrix product")
"""Rows that are ratios in themselves."""


@dataclasses.dataclass(frozen=True)
class Found:
    """What a file tells of one comparison."""

    title: str
    on_gpu: bool
    rows: tuple[Row, ...]
    goal: float | None
    """The speed-up that was asked for."""
    goals: Mapping[str, bool]
    """Everything that was asked for, and whether it was reached."""

    @property
    def speed(self) -> Figure:
        """The published code's seconds over ours."""
        return next((row.ratio for row in self.rows if row.name in ("seconds", "seconds a step")), None)

    @property
    def drowned(self) -> bool:
        """Whether the ratio lies within what a side differs by from itself."""
        bands = [figure for row in self.rows if row.name in BANDS for figure in (row.ours, row.published)]
        off = [max(band.most, 1 / band.least) for band in bands if isinstance(band, Spread)]
        speed = self.speed
        return isinstance(speed, Spread) and max(speed.median, 1 / speed.median) <= max(off, default=1.0)


def read(path: Path) -> Found:
    """A comparison's JSON. Raises DataError where it is none."""
    try:
        saved = json.loads(path.read_text(encoding="utf-8"))
        setting = saved["setting"]
        on_gpu = setting["device"] != "cpu"
        where = saved.get("device", setting["device"]) if on_gpu else f"CPU, {setting['threads']} threads"
        precision = setting.get("dtype") or setting["precision"]
        kind = "training" if "precision" in setting else "generation"
        rows = tuple(
            Row(name, *map(_figure, (row["ours"], row["published"], row["ratio"])))
            for name, row in saved["table"].items()
        )
        rounds = len(saved["ours"].get("rounds", saved["ours"].get("seconds")) if saved["ours"] else ())
        title = f"{kind}, {setting['name']}: {precision} on {where}, {rounds} round{'' if rounds == 1 else 's'}"
        title += ", ours compiled" if setting.get("compile") else ""
        title += f", recomputing {policy}" if (policy := setting.get("recompute", "nothing")) != "nothing" else ""
        return Found(title, on_gpu, rows, saved.get("goal"), saved.get("goals", {}))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path}: {error!r}; give the JSON of a comparison") from None


def page(found: Sequence[Found]) -> str:
    """Tables of all comparisons in Markdown."""
    parts = ["# Results", "Written by `benchmarks/results.py` from the files beside it. Median (least to most)."]
    if any(one.speed is not None for one in found):
        parts.append("![The published code's time over ours](ratios.png)")
    for one in found:
        parts += [f"## {one.title[0].upper()}{one.title[1:]}", "\n".join(_table(one))]
        if one.drowned:
            parts.append("A side differs from itself by as much: the machine was busy, this ratio means nothing.")
        parts += [f"Goal: {goal}: {'reached' if reached else 'missed'}." for goal, reached in one.goals.items()]
    return "\n\n".join(parts) + "\n"


def plot(found: Sequence[Found]) -> Any:
    """How many times as fast as the published code; None where nothing was compared."""
    bars = [Bar(one.title, speed, one.goal) for one in found if isinstance(speed := one.speed, Spread)]
    return bar_chart("the published code's time over ours", bars) if bars else None


def _table(found: Found) -> Iterator[str]:
    if found.on_gpu:
        yield from ("| | ours | published | published / ours |", "|---|---|---|---|")
        for row in found.rows:
            yield f"| {row.name} | {_text(row.ours)} | {_text(row.published)} | {_text(row.ratio)} |"
        return
    yield from ("| | published / ours |", "|---|---|")
    for row in found.rows:
        if row.ratio is not None:
            yield f"| {row.name} | {_text(row.ratio)} |"
    for row in found.rows:
        for side, figure in (("ours", row.ours), ("published", row.published)):
            if row.name in PURE and figure is not None:
                yield f"| {side}: {row.name} | {_text(figure)} |"


def _figure(saved: Mapping[str, float] | float | None) -> Figure:
    return Spread(**saved) if isinstance(saved, Mapping) else saved


def _text(figure: Figure) -> str:
    return "" if figure is None else str(figure) if isinstance(figure, Spread) else f"{figure:.4g}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Read all JSON files of the folder, write the page and the plot."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", default=HERE)
    folder = parser.parse_args(arguments).folder
    try:
        found = [read(path) for path in sorted(folder.glob("*.json"))]
        if not found:
            raise DataError(f"{folder}: holds no .json; let a comparison write one with --json > {folder}/NAME.json")
        with written_whole(folder / "README.md") as draft:
            draft.write_text(page(found), encoding="utf-8")
        picture = plot(found)
        if picture is not None:
            with written_whole(folder / "ratios.png") as draft:
                Image.fromarray(picture).save(draft)
    except NovaError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
