"""What a preparation reports: counts by reason, spreads of sizes and scores, on the terminal and in summary.json."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from nova.errors import DataError
from nova.preparation.fates import REPORT, Fate, from_line
from nova.preparation.items import Reason

_WORDS = {reason.code: reason.words for reason in Reason}


@dataclass
class Summary:
    """Counts of fates: every one is ok, skipped by a rule, or failed, and counted once.

    buckets: clips of each (frames, height, width).  notes: how often something was done to a clip.
    cut_captions: captions that are longer than the text encoder takes.  per_shard: clips in each.
    """

    ok: int = 0
    skipped: int = 0
    failed: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    buckets: Counter[tuple[int, int, int]] = field(default_factory=Counter)
    notes: Counter[str] = field(default_factory=Counter)
    per_shard: Counter[str] = field(default_factory=Counter)
    captions: int = 0
    cut_captions: int = 0

    @property
    def total(self) -> int:
        """Everything that was listed or cut."""
        return self.ok + self.skipped + self.failed

    def add(self, fate: Fate) -> None:
        """Count one more."""
        match fate.status:
            case "ok":
                self.ok += 1
            case "skipped":
                self.skipped += 1
            case "failed":
                self.failed += 1
        if fate.reason is not None:
            self.reasons[fate.reason] += 1
        if fate.status == "ok":
            self.buckets[fate.bucket] += 1
            self.notes.update(fate.notes)
            self.captions += len(fate.captions)
            self.cut_captions += fate.cut_captions
            if fate.shard is not None:
                self.per_shard[fate.shard] += 1

    def as_json(self) -> dict[str, Any]:
        """For summary.json."""
        return {
            "total": self.total,
            "ok": self.ok,
            "skipped": self.skipped,
            "failed": self.failed,
            "by_reason": dict(self.reasons),
            "buckets": [
                {"frames": frames, "height": height, "width": width, "clips": count}
                for (frames, height, width), count in sorted(self.buckets.items())
            ],
            "notes": dict(self.notes),
            "captions": self.captions,
            "cut_captions": self.cut_captions,
            "shards": dict(self.per_shard),
        }


def summarize(fates: Iterable[Fate]) -> Summary:
    """Count fates."""
    summary = Summary()
    for fate in fates:
        summary.add(fate)
    return summary


def read_report(folder: Path) -> Iterable[Fate]:
    """The fates of a prepared folder. Raises DataError where its report is missing or no such thing."""
    path = folder / REPORT
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                try:
                    yield from_line(line)
                except (ValueError, KeyError, TypeError):
                    raise DataError(f"{path}:{number}: no line of a report; run nova prepare again") from None
    except FileNotFoundError:
        raise DataError(f"{path}: missing; give a folder that nova prepare made") from None


def print_summary(summary: Summary, output: Path, console: Console) -> None:
    """A table on the terminal: how many, and why the others are left out."""
    table = Table(title=Text(str(output)), title_justify="left", box=None, pad_edge=False)
    table.add_column("")
    table.add_column("items and clips", justify="right")
    table.add_column("share", justify="right")
    table.add_column("why")

    def row(name: str, count: int, why: str = "") -> None:
        share = f"{100 * count / summary.total:.1f} %" if summary.total else ""
        table.add_row(Text(name), f"{count:,}", share, Text(why))

    row("ok", summary.ok)
    for status, count in (("skipped", summary.skipped), ("failed", summary.failed)):
        row(status, count)
        for code, number in _of_status(summary.reasons, status):
            row(f"  {code}", number, _WORDS[code])
    console.print(table)
    for (frames, height, width), count in sorted(summary.buckets.items()):
        kind = "images" if frames == 1 else f"clips of {frames} frames"
        console.print(f"  {count:,} {kind} of {height}x{width}", highlight=False, markup=False)
    for note, count in sorted(summary.notes.items()):
        console.print(f"  {count:,} times {note.replace('_', ' ')}", highlight=False, markup=False)
    if summary.cut_captions:
        share = f"{summary.cut_captions:,} of {summary.captions:,} captions"
        console.print(f"  {share} are longer than the text encoder takes", highlight=False, markup=False)


def _of_status(reasons: Mapping[str, int], status: str) -> list[tuple[str, int]]:
    statuses = {reason.code: reason.status for reason in Reason}
    return sorted(
        ((code, count) for code, count in reasons.items() if statuses[code] == status), key=lambda one: -one[1]
    )
