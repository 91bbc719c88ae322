"""Folders: every file is an item, refused, or ignored, and captions go to the media that they belong to."""

import json
import os
import unicodedata

import pytest

from nova.errors import DataError
from nova.preparation.items import Item, Reason
from tests.preparation.sources.made import details, fates, listed, put, tar, write


def test_captions_are_text_or_json_beside_media(tmp_path):
    put(
        tmp_path,
        a__jpg="x",
        a__txt="one\ntwo",
        b__MP4="x",
        b__json=json.dumps({"short_caption": "short", "long_caption": "long", "aesthetic_score": 5.5}),
        c__png="x",
        c__txt="said",
        c__json=json.dumps({"caption": "said", "title": "not this"}),
        d__webp="x",
        d__webp__txt="by its whole name",
        e__jpg="x",
        e__json='["several", "captions"]',
        f__jpg="x",
        f__cls="7",
    )
    assert fates(tmp_path) == {
        "a.jpg": ("one two",),
        "b.MP4": ("short", "long"),
        "c.png": ("said",),
        "d.webp": ("by its whole name",),
        "e.jpg": ("several", "captions"),
        "f.jpg": (),
    }
    by_id = {item.id: item for item in listed(tmp_path)}
    assert by_id["b.MP4"].scores == {"aesthetic": 5.5}
    assert by_id["f.jpg"].label == 7


def test_lines_can_be_captions(tmp_path):
    put(tmp_path, a__jpg="x", a__txt="one\n\ntwo\r\n")
    assert fates(tmp_path, caption_lines=True) == {"a.jpg": ("one", "two")}


def test_one_caption_for_two_media_is_refused_and_the_same_name_in_two_folders_is_not(tmp_path):
    put(
        tmp_path, a__jpg="x", a__png="x", a__txt="whose?", b__jpg="x", b__mp4="x", b__jpg__txt="mine", b__mp4__txt="its"
    )
    for name in ("one", "two"):
        put(tmp_path / name, c__jpg="x", c__txt=name)
    assert fates(tmp_path) == {
        "a.jpg": Reason.AMBIGUOUS_CAPTION,
        "a.png": Reason.AMBIGUOUS_CAPTION,
        "b.jpg": ("mine",),
        "b.mp4": ("its",),
        "one/c.jpg": ("one",),
        "two/c.jpg": ("two",),
    }


def test_files_of_nobody_are_ignored_and_counted(tmp_path):
    names = [".DS_Store", "._a.jpg", "Thumbs.db", "b.jpg.part", "c.tmp", "\u200b.png", "notes.md", "lonely.txt", "none"]
    for name in names:
        write(tmp_path / name)
    write(tmp_path / ".cache" / "a.jpg")
    found = fates(tmp_path)
    assert set(found.values()) == {Reason.IGNORED_FILE}
    assert len(found) == len(names) + 1


@pytest.mark.parametrize(
    ("caption", "reason"),
    [
        (b"it\x92s", Reason.CAPTION_ENCODING),
        (b"", Reason.NO_CAPTION),
        (b" \n", Reason.NO_CAPTION),
        (b"nan", Reason.NO_CAPTION),
        (b"x" * 10_001, Reason.CAPTION_TOO_LONG),
        (b"x" * 3_000_000, Reason.CAPTION_TOO_LONG),
    ],
)
def test_bad_captions_are_refused(tmp_path, caption, reason):
    put(tmp_path, a__jpg="x", a__txt=caption)
    assert fates(tmp_path) == {"a.jpg": reason}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{bad", Reason.BAD_VALUE),
        ("[" * 100_000, Reason.BAD_VALUE),
        ("9" * 5000, Reason.BAD_VALUE),
        ("5", Reason.CAPTION_NOT_TEXT),
        ('{"caption": {"en": "x"}}', Reason.CAPTION_NOT_TEXT),
        ('{"caption": null}', Reason.NO_CAPTION),
        ('{"caption": "\\ud800"}', Reason.CAPTION_ENCODING),
        ("{}", Reason.NO_CAPTION),
    ],
)
def test_bad_json_is_refused(tmp_path, text, reason):
    put(tmp_path, a__jpg="x", a__json=text)
    assert fates(tmp_path) == {"a.jpg": reason}
    assert all(detail.isprintable() and len(detail) < 500 for detail in details(tmp_path))


def test_links_do_not_lead_out(tmp_path):
    write(tmp_path / "secret.txt", "secret")
    folder = put(tmp_path / "root", a__jpg="x", a__txt="a", b__jpg="x")
    (folder / "out.jpg").symlink_to(tmp_path / "secret.txt")
    (folder / "b.txt").symlink_to(tmp_path / "secret.txt")
    (folder / "c.jpg").symlink_to("a.jpg")
    (folder / "c.txt").symlink_to("a.txt")
    (folder / "loop").symlink_to(".")
    (folder / "up").symlink_to("..")
    (folder / "gone.jpg").symlink_to("nowhere.jpg")
    os.mkfifo(folder / "pipe.jpg")
    assert fates(folder) == {
        "a.jpg": ("a",),
        "b.jpg": Reason.OUTSIDE_ROOT,
        "c.jpg": ("a",),
        "gone.jpg": Reason.MISSING,
        "out.jpg": Reason.OUTSIDE_ROOT,
        "pipe.jpg": Reason.NOT_MEDIA,
        "loop": Reason.IGNORED_FILE,
        "up": Reason.IGNORED_FILE,
    }
    assert fates(folder, root=tmp_path)["b.jpg"] == ("secret",)


def test_metadata_tables_describe_files_and_the_others_are_still_listed(tmp_path):
    write(tmp_path / "metadata.csv", "file_name,text\na.jpg,from the table\nsub/b.jpg,below\nnone.jpg,nothing\n")
    write(tmp_path / "train" / "metadata.jsonl", '{"file_name": "c.jpg", "text": "near"}\n')
    for name in ("a.jpg", "sub/b.jpg", "train/c.jpg", "train/d.jpg", "e.jpg"):
        write(tmp_path / name)
    write(tmp_path / "e.txt", "beside")
    assert fates(tmp_path) == {
        "a.jpg": ("from the table",),
        "sub/b.jpg": ("below",),
        "none.jpg": Reason.MISSING,
        "e.jpg": ("beside",),
        "train/c.jpg": ("near",),
        "train/d.jpg": Reason.NO_CAPTION,
    }
    assert len(listed(tmp_path)) == 6


def test_tables_that_are_none_or_lead_out_cost_no_other_file(tmp_path):
    write(tmp_path / "out.csv", "file_name,text\na.jpg,secret\n")
    for name, table in (("link", None), ("pipe", None), ("empty", ""), ("late", "file_name,text\n" + "x" * 17_000_000)):
        folder = put(tmp_path / "root" / name, a__jpg="x", a__txt="beside")
        if table is not None:
            write(folder / "metadata.csv", table)
    (tmp_path / "root" / "link" / "metadata.csv").symlink_to(tmp_path / "out.csv")
    os.mkfifo(tmp_path / "root" / "pipe" / "metadata.csv")
    assert fates(tmp_path / "root") == {
        "empty/metadata.csv": Reason.BAD_TABLE,
        "empty/a.jpg": ("beside",),
        "late/metadata.csv": Reason.BAD_TABLE,
        "late/a.jpg": ("beside",),
        "link/metadata.csv": Reason.OUTSIDE_ROOT,
        "link/a.jpg": ("beside",),
        "pipe/metadata.csv": Reason.NOT_MEDIA,
        "pipe/a.jpg": ("beside",),
    }


def test_archives_in_a_folder_are_read(tmp_path):
    tar(tmp_path / "deep" / "0.tar", ("a.jpg", "x"), ("a.txt", "in the tar"))
    assert fates(tmp_path) == {"deep/0.tar/a.jpg": ("in the tar",)}


def test_the_order_is_that_of_names(tmp_path):
    names = ["b/z.jpg", "b.jpg", "a/y.jpg", "a/x/w.jpg", "10.jpg", "9.jpg"]
    for folder, order in (("one", names), ("two", names[::-1])):
        for name in order:
            write(tmp_path / folder / name)
    orders = [[item.id for item in listed(tmp_path / folder, no_caption="empty")] for folder in ("one", "two")]
    assert orders[0] == orders[1] == ["10.jpg", "9.jpg", "b.jpg", "a/y.jpg", "a/x/w.jpg", "b/z.jpg"]


def test_names_that_differ_in_unicode_form_only_are_one_id(tmp_path):
    for form in ("NFC", "NFD"):
        write(tmp_path / unicodedata.normalize(form, "é.jpg"))
    assert [type(one) is Item for one in listed(tmp_path, no_caption="empty")] == [True, False]
    assert "another item" in details(tmp_path, no_caption="empty")[0]


def test_names_without_unicode_are_listed_and_printable(tmp_path):
    with open(os.fsencode(tmp_path) + b"/\xff\n\x1b.jpg", "wb"):
        pass
    (item,) = listed(tmp_path, no_caption="empty")
    assert item.id == "\\udcff\\n\\x1b.jpg"
    assert item.media.path.exists()


def test_very_deep_folders_are_walked(tmp_path):
    folder = tmp_path
    for _ in range(300):
        folder = folder / "d"
    write(folder / "a.jpg")
    write(folder / "a.txt", "deep")
    assert fates(tmp_path) == {"d/" * 300 + "a.jpg": ("deep",)}


def test_without_caption_all_ends_where_the_user_wants_that(tmp_path):
    put(tmp_path, a__jpg="x")
    with pytest.raises(DataError, match=r"a\.jpg"):
        fates(tmp_path, no_caption="error")
