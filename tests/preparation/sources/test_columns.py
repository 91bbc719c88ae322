"""Columns are known by their names, and every name that is known is documented."""

import re
from pathlib import Path

import pytest

from nova.errors import DataError, UsageError
from nova.preparation.sources import SourceOptions, columns
from nova.preparation.sources.columns import checked_columns, columns_of

PAGE = Path(__file__).parents[3] / "docs" / "prepare.md"


def test_the_page_lists_all_names_that_are_known():
    known = [columns.PATHS, columns.CAPTIONS, columns.TEXTS, columns.STARTS + columns.ENDS, columns.SPANS]
    known += [columns.LABELS, *columns.SCORES.values()]
    rows = [row.split("|") for row in PAGE.read_text().splitlines() if row.startswith("|")]
    listed = {tuple(re.findall(r"`([^`]+)`", row[2])) for row in rows}
    assert set(known) <= listed


def test_case_spaces_and_hyphens_do_not_count():
    found = columns_of(("Video Path", "Long-Caption", "AESTHETIC_SCORE"), SourceOptions())
    assert (found.path, found.captions, found.scores) == (
        *("Video Path", ("Long-Caption",)),
        (("aesthetic", "AESTHETIC_SCORE"),),
    )


def test_the_first_name_counts_and_captions_go_before_other_text():
    found = columns_of(("image", "path", "title", "text", "recaption", "caption", "label"), SourceOptions())
    assert (found.path, found.captions, found.label) == ("path", ("caption", "recaption"), None)
    found = columns_of(("image", "title", "text", "label"), SourceOptions())
    assert (found.captions, found.vague) == (("text",), True)
    assert columns_of(("image", "label"), SourceOptions()).label == "label"


def test_names_that_the_user_gives_go_first():
    options = SourceOptions(path="b", captions=("c", "d"), scores=(("aesthetic", "e"),))
    found = checked_columns(("path", "caption", "aesthetic", "b", "c", "d", "e"), options, "t")
    assert (found.path, found.captions, found.scores) == ("b", ("c", "d"), (("aesthetic", "e"),))
    assert set(found.used) == {"b", "c", "d", "e"}


def test_what_a_table_lacks_is_said():
    with pytest.raises(UsageError, match="no column 'captoin'; did you mean 'caption'"):
        checked_columns(("path", "caption"), SourceOptions(captions=("captoin",)), "t")
    with pytest.raises(DataError, match="hold captions"):
        checked_columns(("path", "x"), SourceOptions(), "t")
    assert checked_columns(("path", "x"), SourceOptions(no_caption="empty"), "t").captions == ()
