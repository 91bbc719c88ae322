"""Names tell media from what belongs to nobody, and print safely whatever they hold."""

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nova.preparation.sources.names import belongs_to_nobody, printable, shown, suffix_of


@pytest.mark.parametrize(
    "name",
    [".DS_Store", "._x.png", "Thumbs.db", "desktop.ini", "a.mp4.part", "a.jpg.tmp", "b.crdownload", "c.jpg~", ".git"],
)
def test_files_of_the_system_and_of_unfinished_copies_belong_to_nobody(name):
    assert belongs_to_nobody(name)


@pytest.mark.parametrize("name", ["\u200b.jpg", "\u2060\ufeff.png", " .jpg", "\u202e.mp4"])
def test_names_that_nobody_can_see_belong_to_nobody(name):
    assert belongs_to_nobody(name)


@pytest.mark.parametrize("name", ["a.jpg", "part.mp4", "tmp.png", "-rf.jpg", "~.jpg", "a\u200bb.jpg", "CON", "猫.webp"])
def test_other_files_do_not(name):
    assert not belongs_to_nobody(name)


def test_suffixes_are_in_lower_case():
    assert [suffix_of(name) for name in ("A.JPG", "a.tar", "a.b.Mp4", "none")] == [".jpg", ".tar", ".mp4", ""]


@settings(max_examples=300)
@given(st.text())
def test_a_printable_text_is_one_line_of_unicode_that_turns_nothing_around(text):
    shown_text = printable(text)
    assert shown_text.isprintable()
    assert shown_text.encode().decode() == shown_text
    assert printable(shown_text) == shown_text


def test_two_forms_of_a_name_print_alike():
    assert printable(unicodedata.normalize("NFD", "café.jpg")) == printable("café.jpg") == "café.jpg"


def test_what_does_not_print_is_escaped():
    assert printable("a\nb\x1b[31m\u202e\udcff") == "a\\nb\\x1b[31m\\u202e\\udcff"


def test_what_is_shown_is_short():
    assert shown("x" * 1000, limit=5) == "'xxxxx…'"
