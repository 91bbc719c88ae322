"""report.html: counts, spreads and pictures of a preparation in one file that needs nothing else.

All text comes from strangers: it is escaped, and the page's policy allows neither scripts nor anything from elsewhere.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable
from html import escape
from pathlib import Path

from nova.preparation.deciding import Shop
from nova.preparation.examples import Example, pick, pictured
from nova.preparation.fates import Fate
from nova.preparation.histogram import histogram
from nova.preparation.items import Reason
from nova.preparation.report import Summary, read_report
from nova.preparation.sources.names import printable

PAGE = "report.html"
_LONGEST = 300
_WORDS = {reason.code: reason.words for reason in Reason}
_STATUS = {reason.code: reason.status for reason in Reason}
_HEAD = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>Prepared data</title>
<style>
:root { color-scheme: light dark; --ink: #1c2026; --soft: #667; --line: #d8dce2; --card: #f6f7f9; --page: #fff;
  --ok: #2e7d4f; --skipped: #b7791f; --failed: #c0392b; --bar: #3567a8; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e7eb; --soft: #98a1ad; --line: #343a43; --card: #1d2127;
  --page: #14171b; --ok: #58b881; --skipped: #e0ad56; --failed: #ec7063; --bar: #7ba7e0; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1120px; padding: 24px; font: 15px/1.45 system-ui, sans-serif; color: var(--ink);
  background: var(--page); }
h1 { font-size: 22px; margin: 0 0 16px; } h2 { font-size: 17px; margin: 32px 0 12px; }
.figures { display: flex; flex-wrap: wrap; gap: 28px; } .figures b { display: block; font-size: 26px; }
.share { display: flex; height: 10px; margin: 16px 0; border-radius: 5px; overflow: hidden; }
.share span { min-width: 1px; }
.ok { color: var(--ok); } .skipped { color: var(--skipped); } .failed { color: var(--failed); }
.share .ok { background: var(--ok); } .share .skipped { background: var(--skipped); }
.share .failed { background: var(--failed); }
table { border-collapse: collapse; } td, th { padding: 4px 16px 4px 0; text-align: left; vertical-align: top; }
tr + tr td { border-top: 1px solid var(--line); } td.number { text-align: right; font-variant-numeric: tabular-nums; }
.grid { display: grid; grid-template-columns: repeat(auto-fill, minmax(300px, 1fr)); gap: 16px; }
figure { margin: 0; padding: 12px; background: var(--card); border: 1px solid var(--line); border-radius: 8px; }
figure img { display: block; max-width: 100%; margin-bottom: 8px; }
figcaption { overflow-wrap: anywhere; } .soft { color: var(--soft); font-size: 13px; }
svg { display: block; width: 100%; } svg rect { fill: var(--bar); } svg .axis { stroke: var(--line); }
svg text { fill: var(--soft); font: 11px system-ui, sans-serif; }
</style></head><body>
"""


def write_page(folder: Path, summary: Summary, shop: Shop) -> None:
    """Write the page about the report in `folder`. Some items are read from the source again, for pictures."""
    samples, others = pictured(*pick(read_report(folder), summary.ok), shop)
    parts = [
        _HEAD,
        "<h1>Prepared data</h1>",
        _totals(summary),
        "<h2>Why the others are left out</h2>" + _reasons(summary) if summary.reasons else "",
        "<h2>What is trained on</h2>" + _buckets(summary) if summary.ok else "",
        "<h2>Spreads</h2>" + _spreads(folder) if summary.ok else "",
        "<h2>Samples</h2>" + _figures(samples, _about_sample) if samples else "",
        "<h2>Examples of what is left out</h2>" + _figures(others, _about_refusal) if others else "",
        "</body></html>\n",
    ]
    (folder / PAGE).write_text("".join(parts), encoding="utf-8")


def _text(value: str) -> str:
    """Text of a stranger, fit to stand on the page."""
    shown = printable(value)
    return escape(shown if len(shown) <= _LONGEST else f"{shown[:_LONGEST]}…")


def _totals(summary: Summary) -> str:
    counts = (("ok", summary.ok), ("skipped", summary.skipped), ("failed", summary.failed))
    figures = "".join(f'<div class="{name}"><b>{count:,}</b>{name}</div>' for name, count in counts)
    bars = "".join(f'<span class="{name}" style="flex: {count}"></span>' for name, count in counts if count)
    total = f"<div><b>{summary.total:,}</b>items and clips</div>"
    return f'<div class="figures">{total}{figures}</div><div class="share">{bars}</div>'


def _reasons(summary: Summary) -> str:
    rows = "".join(
        f'<tr><td class="{_STATUS[code]}">{_STATUS[code]}</td><td class="number">{count:,}</td>'
        f"<td>{escape(code)}</td><td>{escape(_WORDS[code])}</td></tr>"
        for code, count in summary.reasons.most_common()
    )
    return f"<table>{rows}</table>"


def _buckets(summary: Summary) -> str:
    rows = "".join(
        f'<tr><td class="number">{count:,}</td><td>{"images" if frames == 1 else f"clips of {frames} frames"}</td>'
        f"<td>{height}&times;{width}</td></tr>"
        for (frames, height, width), count in sorted(summary.buckets.items())
    )
    notes = "".join(
        f'<tr><td class="number">{count:,}</td><td>{escape(note.replace("_", " "))}</td><td></td></tr>'
        for note, count in sorted(summary.notes.items())
    )
    cut = f'<tr><td class="number">{summary.cut_captions:,}</td><td>captions longer than the text encoder takes</td>'
    return f"<table>{rows}{notes}{cut + '<td></td></tr>' if summary.cut_captions else ''}</table>"


_SPREADS: tuple[tuple[str, str, Callable[[Fate], Iterable[float | None]]], ...] = (
    ("Shorter side of the source", "pixels", lambda fate: [fate.source_size and min(fate.source_size)]),
    ("Aspect of the source", "width / height", lambda fate: [_aspect(fate)]),
    ("Length", "seconds", lambda fate: [_seconds(fate)]),
    ("Motion", "pixels a frame", lambda fate: [fate.motion]),
    ("Captions", "characters", lambda fate: fate.captions),
)


def _spreads(folder: Path) -> str:
    """A histogram of every figure that some clip has."""
    found = {(title, unit): array("d") for title, unit, _ in _SPREADS}
    for fate in read_report(folder):
        if fate.status != "ok":
            continue
        for title, unit, values in _SPREADS:
            found[title, unit].extend(value for value in values(fate) if value is not None)
        for name, score in fate.scores.items():
            found.setdefault((f"Score {printable(name)}", ""), array("d")).append(score)
    figures = (
        f"<figure>{histogram(values, unit)}<figcaption>{escape(title)}</figcaption></figure>"
        for (title, unit), values in found.items()
        if values
    )
    return f'<div class="grid">{"".join(figures)}</div>'


def _aspect(fate: Fate) -> float | None:
    return None if fate.source_size is None else fate.source_size[1] / fate.source_size[0]


def _seconds(fate: Fate) -> float | None:
    return None if fate.fps is None or fate.frames is None else fate.frames / fate.fps


def _figures(examples: Iterable[Example], about: Callable[[Example], str]) -> str:
    def figure(example: Example) -> str:
        picture = "" if example.picture is None else f'<img src="{example.picture}" alt="" loading="lazy">'
        return f"<figure>{picture}<figcaption>{about(example)}</figcaption></figure>"

    return f'<div class="grid">{"".join(map(figure, examples))}</div>'


def _about_sample(example: Example) -> str:
    fate = example.fate
    captions = "<br>".join(_text(caption) for caption in example.captions) or "no caption"
    motion = "" if fate.motion is None else f", motion {fate.motion:.2f}"
    frames, height, width = fate.bucket
    return f'{captions}<div class="soft">{_text(fate.id)}: {frames}&times;{height}&times;{width}{motion}</div>'


def _about_refusal(example: Example) -> str:
    fate = example.fate
    code = fate.reason or ""
    detail = f": {_text(fate.detail)}" if fate.detail else ""
    return f'<b class="{fate.status}">{escape(code)}</b>{detail}<div class="soft">{_text(fate.id)}</div>'
