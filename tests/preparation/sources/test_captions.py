"""Captions come out clean or not at all: no guessed encodings, no words for nothing, nothing that harms a page."""

import codecs
import json
import math
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nova.errors import DataError
from nova.preparation.items import Reason
from nova.preparation.sources.captions import clean, clean_all, decode, settled
from nova.preparation.sources.options import SourceOptions
from nova.preparation.sources.refused import RefusedError

OPTIONS = SourceOptions()
TEXT = "a café — 猫 😀"


def refusal(call, *arguments):
    with pytest.raises(RefusedError) as error:
        call(*arguments)
    assert error.value.detail.isprintable()
    return error.value


@pytest.mark.parametrize(
    ("mark", "encoding"),
    [
        (b"", "utf-8"),
        (codecs.BOM_UTF8, "utf-8"),
        (codecs.BOM_UTF16_LE, "utf-16-le"),
        (codecs.BOM_UTF16_BE, "utf-16-be"),
        (codecs.BOM_UTF32_LE, "utf-32-le"),
        (codecs.BOM_UTF32_BE, "utf-32-be"),
    ],
)
def test_utf8_and_marked_text_is_read(mark, encoding):
    assert decode(mark + TEXT.encode(encoding), "utf-8") == TEXT


@pytest.mark.parametrize(
    ("data", "offset"),
    [
        (b"it\x92s", 2),
        ("猫がいる".encode("shift_jis"), 0),
        ("café".encode("latin-1"), 3),
        ("plain".encode("utf-16-le"), 1),
        (b"ab\0c", 2),
        (TEXT.encode()[:-1], len(TEXT.encode()) - 4),
        (codecs.BOM_UTF8 + b"a\xff", 4),
        (codecs.BOM_UTF16_LE + b"a\0b", 4),
        (b"\xed\xa0\x80", 0),
    ],
)
def test_other_bytes_are_refused_with_their_offset(data, offset):
    refused = refusal(decode, data, "utf-8")
    assert refused.reason is Reason.CAPTION_ENCODING
    assert f"byte {offset} " in refused.detail


def test_an_encoding_is_believed_unless_a_mark_says_otherwise():
    assert decode(b"it\x92s", "cp1252") == "it\u2019s"
    assert decode("猫".encode("shift_jis"), "shift_jis") == "猫"
    assert decode(codecs.BOM_UTF8 + "é".encode(), "cp1252") == "é"


def outcome(call, *arguments):
    """What a call returns or refuses with."""
    try:
        return call(*arguments)
    except RefusedError as refused:
        return refused.reason


@settings(max_examples=200)
@given(st.binary())
def test_bytes_are_text_or_refused(data):
    text = outcome(decode, data, "utf-8")
    assert text is Reason.CAPTION_ENCODING or "\0" not in text


NASTY = "a \0\x1b\u202e\u2066\ufeff\u200d\n\t\x85e\u0301\ud800🏽👩"


@pytest.mark.parametrize("count", [500, pytest.param(10_000, marks=pytest.mark.slow)])
def test_what_is_clean_is_safe_and_stays_so(count):
    @settings(max_examples=count, database=None)
    @given(st.one_of(st.text(), st.text(st.sampled_from(NASTY))))
    def check(text):
        caption = outcome(clean, text, OPTIONS)
        lone = any("\ud800" <= character <= "\udfff" for character in text)
        assert (caption is Reason.CAPTION_ENCODING) == lone
        if isinstance(caption, str):
            assert clean(caption, OPTIONS) == caption == " ".join(caption.split())
            assert unicodedata.is_normalized("NFC", caption)
            assert not any(unicodedata.category(character) == "Cc" for character in caption)
            turning = ("RLO", "LRO", "RLE", "LRE", "RLI", "LRI", "FSI", "PDF", "PDI")
            assert not any(unicodedata.bidirectional(character) in turning for character in caption)
            assert json.loads(json.dumps(caption)) == caption == caption.encode().decode()

    check()


def test_emoji_and_scripts_keep_their_joiners():
    for text in ("👩\u200d👩\u200d👧", "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645", "שלום"):
        assert clean(text, OPTIONS) == text


@pytest.mark.parametrize(
    "value", [None, math.nan, "", "  \n", "nan", "NaN", " None", "null", "<NA>", "N/A", "\x00\u202e"]
)
def test_nothing_is_nothing(value):
    assert clean(value, OPTIONS) is None


@pytest.mark.parametrize("value", ["nan bread", "None of them", "nullify"])
def test_words_that_only_start_like_nothing_are_captions(value):
    assert clean(value, OPTIONS) == value


@pytest.mark.parametrize("value", [5, 1.5, True, {"a": "b"}, b"bytes", math.inf])
def test_what_is_no_text_is_refused(value):
    assert refusal(clean, value, OPTIONS).reason is Reason.CAPTION_NOT_TEXT


def test_lists_are_several_captions_and_no_deeper():
    assert clean_all(["one", ["two", None, "one", "nan"]], OPTIONS) == ("one", "two")
    assert refusal(clean_all, [["a", ["b"]]], OPTIONS).reason is Reason.CAPTION_NOT_TEXT


def test_lengths_have_bounds():
    options = SourceOptions(min_caption=3, max_caption=5)
    assert clean("abcde", options) == "abcde"
    assert refusal(clean, "ab", options).reason is Reason.CAPTION_TOO_SHORT
    assert refusal(clean, "abcdef", options).reason is Reason.CAPTION_TOO_LONG
    assert refusal(clean, "a\u0301\u0316" * 333_333, OPTIONS).reason is Reason.CAPTION_TOO_LONG


def test_an_item_without_caption_ends_as_the_user_says():
    assert settled((), None, SourceOptions(no_caption="empty"), "x") == ("",)
    assert settled((), 3, OPTIONS, "x") == ()
    assert refusal(settled, (), None, OPTIONS, "x").reason is Reason.NO_CAPTION
    with pytest.raises(DataError, match="t.csv:7"):
        settled((), None, SourceOptions(no_caption="error"), "t.csv:7")
