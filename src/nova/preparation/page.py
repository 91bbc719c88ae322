"""report.html."""

from __future__ import annotations

from pathlib import Path

from nova.preparation.deciding import Shop
from nova.preparation.report import Summary

PAGE = "report.html"


def write_page(folder: Path, summary: Summary, shop: Shop) -> None:
    """Write the page."""
    (folder / PAGE).write_text("<!doctype html>\n")
