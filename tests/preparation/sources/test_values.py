"""Cells of tables become numbers, or are refused."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nova.preparation.items import Reason
from nova.preparation.sources.refused import RefusedError
from nova.preparation.sources.values import number, pairs, seconds, stretch, unpacked, whole

LEAVES = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text())
ANYTHING = st.one_of(LEAVES, st.lists(LEAVES, max_size=3), st.lists(st.lists(LEAVES, max_size=3), max_size=3))


def refusal(convert, value):
    """What `convert` says no with, None if it does not."""
    try:
        convert(value)
    except RefusedError as refused:
        return refused
    return None


@pytest.mark.parametrize(
    ("value", "expected"),
    [(5, 5), ("5.25", 5.25), (" 7 ", 7), ("0:00:05.2", 5.2), ("1:02:03", 3723), ("1:05", 65), ("00:00:01,500", 1.5)],
)
def test_seconds_are_numbers_or_stamps(value, expected):
    assert seconds(value) == pytest.approx(expected)


@pytest.mark.parametrize("value", [None, "", math.nan, "nan"])
def test_an_absent_time_is_none(value):
    assert seconds(value) is None


@pytest.mark.parametrize("value", [-1, "-0:05", "0:61", "1:60:00", "soon", math.inf, True, [1], "1e999", b"5"])
def test_other_times_are_refused(value):
    with pytest.raises(RefusedError):
        seconds(value)


@settings(max_examples=200)
@given(ANYTHING)
def test_any_value_is_converted_or_refused(value):
    for convert in (seconds, number, whole, pairs):
        refused = refusal(convert, value)
        assert refused is None or (refused.reason is Reason.BAD_VALUE and refused.detail.isprintable())


def test_a_stretch_ends_after_its_start():
    assert stretch(1, "0:02") == (1, 2)
    assert stretch(None, 2) == (None, 2)
    for start, end in ((2, 1), (1, 1), (None, 0)):
        with pytest.raises(RefusedError):
            stretch(start, end)


def test_pairs_are_one_or_several():
    assert pairs([1, 2]) == [(1, 2)]
    assert pairs("[['0:00:00.000', '0:00:05.005'], ['0:00:06', '0:00:07']]") == [(0, 5.005), (6, 7)]
    assert pairs(None) == []


def test_a_label_is_a_whole_number():
    assert [whole(value) for value in (3, "3", 3.0, None)] == [3, 3, 3, None]
    for value in (-1, 1.5, "cat", 2**31):
        with pytest.raises(RefusedError):
            whole(value)


def test_lists_are_unpacked_and_other_text_is_not():
    assert unpacked("['it''s', \"b\"]") == ["its", "b"]
    assert unpacked('["a", null]') == ["a", None]
    for text in ("[Verse 1]", "[", "a [b]", "[" * 5000 + "]" * 5000, "[__import__('os')]"):
        assert unpacked(text) == text
