"""Lines of the report are read as they were written, whatever strangers call their files."""

from hypothesis import given, settings
from hypothesis import strategies as st

from nova.preparation.fates import Fate, from_line, to_line

NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
FATES = st.builds(
    Fate,
    id=st.text(st.characters(), min_size=1),
    path=st.text(st.characters()),
    status=st.sampled_from(["ok", "skipped", "failed"]),
    reason=st.none() | st.sampled_from(["damaged", "black"]),
    detail=st.none() | st.text(min_size=1),
    key=st.none() | st.text("0123456789abcdef", min_size=32, max_size=32),
    shard=st.none() | st.just("00000-0123456789ab.parquet"),
    row=st.none() | st.integers(0, 10**9),
    frames=st.none() | st.integers(1, 999),
    size=st.none() | st.tuples(st.integers(1, 9999), st.integers(1, 9999)),
    fps=st.none() | st.floats(1, 1000),
    motion=st.none() | NUMBERS,
    start=st.none() | NUMBERS,
    hash=st.none() | st.integers(0, 2**64 - 1),
    scores=st.dictionaries(st.text(), NUMBERS),
    notes=st.lists(st.sampled_from(["rotated", "alpha_on_white"])).map(tuple),
    captions=st.lists(st.integers(0, 9999)).map(tuple),
    cut_captions=st.integers(0, 9),
)


@settings(max_examples=150)
@given(FATES)
def test_what_is_read_is_what_was_written(fate):
    line = to_line(fate)
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert line.isascii()
    assert from_line(line) == fate
