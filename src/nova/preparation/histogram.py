"""How often each value of a figure occurs, as an SVG that takes its colours from the page around it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

import numpy as np

_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _TOP = 320, 150, 36, 26, 8
_BINS = 28


def histogram(values: Sequence[float], unit: str) -> str:
    """An SVG of the finite `values`, from the lowest to the highest; whole numbers have bins of whole numbers.

    The outermost 200th at the top is put into the last bin, so that a few large values do not hide the others.
    """
    found = np.asarray(values, float)
    found = found[np.isfinite(found)]
    if not found.size:
        return ""
    edges = _edges(found)
    counts, _ = np.histogram(np.minimum(found, edges[-1]), edges)
    tallest, wide = counts.max(), (_WIDTH - _LEFT) / len(counts)
    room = _HEIGHT - _BOTTOM - _TOP
    beyond = "≥ " if found.max() > edges[-1] else ""
    parts = [
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(unit)}">',
        f'<line class="axis" x1="{_LEFT}" y1="{_HEIGHT - _BOTTOM}" x2="{_WIDTH}" y2="{_HEIGHT - _BOTTOM}"/>',
    ]
    for index, count in enumerate(counts):
        tall = room * count / tallest
        x, y = _LEFT + index * wide, _HEIGHT - _BOTTOM - tall
        last = beyond if index == len(counts) - 1 else ""
        said = f"{last}{edges[index]:.4g} to {edges[index + 1]:.4g}: {count:,}"
        bar = f'<rect x="{x + 0.5:.1f}" y="{y:.1f}" width="{max(wide - 1, 0.5):.1f}" height="{tall:.1f}">'
        parts.append(f"{bar}<title>{said}</title></rect>")
    ends = ((_LEFT, "start", f"{edges[0]:.4g}"), (_WIDTH, "end", f"{beyond}{edges[-1]:.4g}"))
    parts += [f'<text x="{x}" y="{_HEIGHT - 10}" text-anchor="{anchor}">{text}</text>' for x, anchor, text in ends]
    middle = (_LEFT + _WIDTH) / 2
    parts.append(f'<text x="{middle}" y="{_HEIGHT - 10}" text-anchor="middle">{escape(unit)}</text>')
    parts.append(f'<text x="{_LEFT - 4}" y="{_TOP + 10}" text-anchor="end">{_short(int(tallest))}</text></svg>')
    return "".join(parts)


def _edges(values: np.ndarray) -> np.ndarray:
    low, high = float(values.min()), float(np.quantile(values, 0.995))
    if (values == np.rint(values)).all():
        step = max(1, math.ceil((high - low + 1) / _BINS))
        return np.arange(low, high + step + 0.5, step)
    if high <= low:
        high = float(values.max())
    if high <= low:
        high = low + (abs(low) or 1.0)
    return np.linspace(low, high, _BINS + 1)


def _short(count: int) -> str:
    for size, letter in ((1_000_000, "M"), (1_000, "k")):
        if count >= 10 * size:
            return f"{count // size}{letter}"
    return str(count)
