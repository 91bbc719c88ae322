"""A contact sheet: several clips on one picture, each a labelled row of evenly sampled frames."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from nova.errors import UsageError

_MARGIN, _GAP, _ROW_GAP = 16, 4, 18
_FONT_SIZE, _LINE, _LINES = 15, 20, 3
_INK = (30, 30, 30)


def contact_sheet(clips: Sequence[tuple[str, np.ndarray]], columns: int = 8, enlarge: int | None = None) -> np.ndarray:
    """Draw (label, frames (f H W 3) uint8) pairs onto one white (H W 3) uint8 picture.

    Each clip shows up to `columns` frames, the first and the last among them, below its label (three lines at
    most, then an ellipsis). Short clips and single images share a row. `enlarge` repeats pixels that many times;
    by default twice where the widest frame has fewer than 128.
    """
    if not clips:
        raise UsageError("clips: found none, expected at least one")
    if columns < 1:
        raise UsageError(f"columns: found {columns}, expected 1 or more")
    for label, frames in clips:
        if frames.ndim != 4 or frames.shape[3] != 3 or frames.dtype != np.uint8 or not frames.size:
            raise UsageError(
                f"clip {label!r}: found {frames.dtype} {frames.shape}, expected uint8 (f, height, width, 3)"
            )
    if enlarge is None:
        enlarge = 2 if max(frames.shape[2] for _, frames in clips) < 128 else 1
    blocks = [_block(label, frames, columns, enlarge) for label, frames in clips]
    across = max(1, columns // max(min(columns, len(frames)) for _, frames in clips))
    rows = [_row(blocks[start : start + across]) for start in range(0, len(blocks), across)]
    width = max(row.width for row in rows) + 2 * _MARGIN
    height = sum(row.height + _ROW_GAP for row in rows) - _ROW_GAP + 2 * _MARGIN
    sheet = Image.new("RGB", (width, height), "white")
    top = _MARGIN
    for row in rows:
        sheet.paste(row, (_MARGIN, top))
        top += row.height + _ROW_GAP
    return np.array(sheet)


def _block(label: str, frames: np.ndarray, columns: int, enlarge: int) -> Image.Image:
    """One clip: its label above its frames."""
    count = min(columns, len(frames))
    shown = frames[np.rint(np.linspace(0, len(frames) - 1, count)).astype(int)]
    height, width = shown.shape[1] * enlarge, shown.shape[2] * enlarge
    block_width = count * (width + _GAP) - _GAP
    lines = _wrapped(label, block_width)
    block = Image.new("RGB", (block_width, _LINE * len(lines) + _GAP + height), "white")
    for index, line in enumerate(lines):
        ImageDraw.Draw(block).text((0, index * _LINE), line, fill=_INK, font=_font())
    for index, frame in enumerate(shown):
        picture = Image.fromarray(frame).resize((width, height), Image.Resampling.NEAREST)
        block.paste(picture, (index * (width + _GAP), block.height - height))
    return block


def _row(blocks: Sequence[Image.Image]) -> Image.Image:
    """Blocks side by side, their frames on one line."""
    row = Image.new("RGB", (sum(block.width + _MARGIN for block in blocks) - _MARGIN, max(b.height for b in blocks)))
    row.paste("white", (0, 0, row.width, row.height))
    left = 0
    for block in blocks:
        row.paste(block, (left, row.height - block.height))
        left += block.width + _MARGIN
    return row


def _wrapped(label: str, width: int) -> list[str]:
    """The label in lines at most `width` pixels wide, the last of _LINES cut with an ellipsis where it must be."""
    lines: list[str] = []
    words = label.split()
    while words and len(lines) < _LINES:
        count = 1
        while count < len(words) and _fits(" ".join(words[: count + 1]), width):
            count += 1
        line, words = " ".join(words[:count]), words[count:]
        if (words and len(lines) == _LINES - 1) or not _fits(line, width):
            while line and not _fits(f"{line}…", width):
                line = line[:-1]
            line = f"{line.rstrip()}…"
        lines.append(line)
    return lines


def _fits(text: str, width: int) -> bool:
    return _font().getlength(text) <= width


@cache
def _font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(_FONT_SIZE)
