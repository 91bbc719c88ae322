"""Paths that others wrote lead to files under the root, or nowhere."""

import os
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nova.preparation.items import Reason
from nova.preparation.sources.paths import Place, find
from nova.preparation.sources.refused import RefusedError
from tests.preparation.sources.made import write


@pytest.fixture
def place(tmp_path):
    """A root with a few files, and beside it one that is out of bounds."""
    root = tmp_path / "root"
    for name in ("a.mp4", "sub/b.jpg", "Case.JPG", "sub/" + unicodedata.normalize("NFD", "é.png"), "clip.webm"):
        write(root / name)
    write(tmp_path / "secret.jpg")
    (root / "out.jpg").symlink_to(tmp_path / "secret.jpg")
    (root / "outside").symlink_to(tmp_path)
    (root / "in.jpg").symlink_to(root / "sub" / "b.jpg")
    os.mkfifo(root / "pipe.mp4")
    return Place.of(root)


def refusal(name, place):
    with pytest.raises(RefusedError) as error:
        find(name, place)
    assert error.value.detail.isprintable()
    return error.value.reason


@pytest.mark.parametrize("name", ["a.mp4", "sub/b.jpg", "./sub//b.jpg", "in.jpg"])
def test_paths_inside_are_found(place, name):
    media = find(name, place)
    assert os.path.samefile(media.path, place.base / name)
    assert find(str(place.base / name), place).stamp == media.stamp


def test_a_stamp_changes_with_size_and_time(place):
    path, stamps = place.base / "a.mp4", set()
    for data, time in ((b"x", 1), (b"xy", 1), (b"xz", 2)):
        path.write_bytes(data)
        os.utime(path, ns=(time, time))
        stamps.add(find("a.mp4", place).stamp)
    assert len(stamps) == 3


def test_a_name_may_leave_out_its_suffix(place):
    assert find("clip", place).path.name == "clip.webm"


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        *((name, Reason.OUTSIDE_ROOT) for name in ("../secret.jpg", "sub/../../secret.jpg", "sub/../a.mp4")),
        *((name, Reason.OUTSIDE_ROOT) for name in ("/etc/passwd", "/nowhere/x.jpg", "out.jpg", "outside/secret.jpg")),
        *((name, Reason.URL) for name in ("http://127.0.0.1/a.jpg", "HTTPS://x", "s3://b/k", "file:///etc/passwd")),
        *((name, Reason.URL) for name in ("data:image/png;base64,AA", "concat:a.mp4|b.mp4")),
        *(
            (name, Reason.MISSING)
            for name in ("none.mp4", "none/none.mp4", "a.mp4/b.mp4", "~", "-rf", "CON", "%2e%2e/x")
        ),
        *((name, Reason.OTHER_SPELLING) for name in ("case.jpg", "CASE.JPG", "Sub/b.jpg", "sub/é.png")),
        *(
            (name, Reason.BAD_PATH)
            for name in ("", "  ", None, 5, ["a.mp4"], "a\0.mp4", "x" * 300, "x/" * 3000, "\ud800")
        ),
        *((name, Reason.NOT_MEDIA) for name in ("sub", "pipe.mp4", ".")),
    ],
)
def test_others_are_refused_with_the_reason(place, name, reason):
    assert refusal(name, place) is reason


def test_absolute_paths_may_lie_in_another_root(tmp_path, place):
    with pytest.raises(RefusedError):
        find(str(tmp_path / "secret.jpg"), place)
    assert find(str(tmp_path / "secret.jpg"), Place.of(place.base, tmp_path)).path.name == "secret.jpg"


def test_ids_are_relative_and_the_same_for_both_forms_of_a_name(place):
    decomposed = unicodedata.normalize("NFD", "é.png")
    assert place.id_of(place.base / "sub" / decomposed) == place.id_of(place.base / "sub" / "é.png") == "sub/é.png"


WORDS = st.sampled_from(
    ["..", ".", "/", "\\", "~", "root", "secret.jpg", "out.jpg", "outside", "a.mp4", "\0", "\n", "//"]
)


NAMES = st.one_of(st.text(), st.lists(WORDS, max_size=6).map("/".join), st.lists(WORDS, max_size=6).map("".join))


@pytest.mark.parametrize("count", [500, pytest.param(10_000, marks=pytest.mark.slow)])
def test_no_name_leads_out(place, count):
    @settings(max_examples=count, database=None)
    @given(NAMES)
    def check(name):
        try:
            found = find(name, place).path.resolve()
        except RefusedError as refused:
            found = place.base if refused.detail.isprintable() else None
        assert found is not None
        assert found.is_relative_to(place.base.resolve())

    check()
