"""The page holds everything that it shows, counts rightly, and renders nothing that strangers wrote."""

import re
from functools import partial
from html.parser import HTMLParser

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nova.preparation.histogram import histogram
from nova.preparation.inspect import inspect
from nova.preparation.sources import SourceOptions, list_items
from tests.preparation.corpus import RULES, corpus
from tests.preparation.made import prepared

PAYLOADS = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "'-alert(1)-'",
    "</style><svg onload=alert(1)>",
    "&lt;b&gt; \u202e reversed",
    "javascript:alert(1)",
)


class Page(HTMLParser):
    """What a browser would make of a page: its tags with attributes, and its text."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.text = [], ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.text += data


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    truth = corpus(folder / "media", 70, 27)
    for number, payload in enumerate(PAYLOADS):
        (folder / "media" / "00" / f"{number * 10 + 2:04d}.webp").with_suffix(".txt").write_text(payload)
    (folder / "media" / "<img src=x onerror=alert(1)>.png").write_bytes(b"no picture")
    (folder / "media" / "<img src=x onerror=alert(1)>.txt").write_text("x y")
    items = list_items(folder / "media", SourceOptions())
    summary = prepared(items, folder / "out", RULES, inspect=partial(inspect, rules=RULES))
    return truth, summary, (folder / "out" / "report.html").read_text()


def test_it_needs_nothing_else(page):
    _, _, text = page
    sources = [attributes["src"] for _, attributes in Page(text).tags if "src" in attributes]
    assert len(sources) > 20
    assert all(re.fullmatch(r"data:image/jpeg;base64,[\w+/=]+", source) for source in sources)
    assert not [tag for tag, attributes in Page(text).tags if tag in ("script", "link", "iframe", "object")]
    assert "default-src 'none'" in text
    assert "prefers-color-scheme: dark" in text


def test_text_of_strangers_is_text(page):
    _, _, text = page
    found = Page(text)
    assert not [name for _, attributes in found.tags for name in attributes if name.startswith("on")]
    assert "<img src=x onerror=alert(1)>.png" in found.text
    assert "\u202e" not in text


def test_every_reason_has_its_count_and_examples(page):
    truth, summary, text = page
    said = Page(text).text
    assert set(truth.values()) <= set(summary.reasons)
    for code in summary.reasons:
        assert said.count(code) >= 2, "in the table, and beside an example"


@settings(max_examples=100)
@given(st.lists(st.floats(-1e6, 1e6) | st.integers(0, 5000).map(float), min_size=1, max_size=60))
def test_bars_count_every_value_once(values):
    counts = [int(found.replace(",", "")) for found in re.findall(r": ([\d,]+)</title>", histogram(values, "things"))]
    assert sum(counts) == len(values)


def test_nothing_finite_is_no_histogram():
    assert histogram([], "x") == histogram([np.nan, np.inf], "x") == ""
