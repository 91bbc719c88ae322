"""Patterns stand for names in order."""

import pytest

from nova.errors import UsageError
from nova.preparation.sources.braces import expanded


def test_ranges_keep_zeros_and_lists_their_order():
    assert expanded("s-{008..011}.tar") == ["s-008.tar", "s-009.tar", "s-010.tar", "s-011.tar"]
    assert expanded("{b,a}-{0..1}") == ["b-0", "b-1", "a-0", "a-1"]
    assert expanded("plain.tar") == ["plain.tar"]


@pytest.mark.parametrize("pattern", ["{0..100000000}", "{0..999}{0..999}", "{5..1}"])
def test_patterns_without_end_or_sense_are_refused(pattern):
    with pytest.raises(UsageError):
        expanded(pattern)
