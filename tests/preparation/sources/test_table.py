"""Tables: rows become items in order, and what is wrong is named by file, line and character or column."""

import json
import random
import re
import tracemalloc

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nova.errors import DataError, UsageError
from nova.preparation.items import BytesMedia, Item, Reason
from nova.preparation.sources import SourceOptions, list_items
from tests.preparation.sources.made import details, fates, listed, write

FORMATS = ("csv", "tsv", "jsonl", "parquet")


@pytest.fixture
def folder(tmp_path):
    for name in ("a.mp4", "b.mp4", "c.jpg"):
        write(tmp_path / name)
    return tmp_path


def table(path, rows):
    """Rows, dictionaries of the same keys, in the format that the suffix says."""
    match path.suffix:
        case ".jsonl":
            return write(path, "".join(json.dumps(row) + "\n" for row in rows))
        case ".parquet":
            pq.write_table(pa.Table.from_pylist(rows), path)
            return path
    delimiter = "," if path.suffix == ".csv" else "\t"
    lines = [rows[0], *(row.values() for row in rows)]
    quoted = [delimiter.join('"' + str(cell).replace('"', '""') + '"' for cell in line) for line in lines]
    return write(path, "\n".join(quoted) + "\n")


@pytest.mark.parametrize("kind", FORMATS)
def test_paths_captions_times_and_scores_are_read_from_any_format(folder, kind):
    rows = [
        {"path": "a.mp4", "caption": 'one, "two"\nthree', "start": "0:00:05.2", "end": "7", "AESTHETIC_SCORE": "5.5"},
        {"path": "b.mp4", "caption": "café", "start": "", "end": "", "AESTHETIC_SCORE": ""},
    ]
    first, second = listed(table(folder / f"t.{kind}", rows))
    assert (first.id, first.captions, first.start, first.end) == ("a.mp4#t=5.2,7", ('one, "two" three',), 5.2, 7)
    assert first.scores == {"aesthetic": 5.5}
    assert first.media.path == folder / "a.mp4"
    assert (second.id, second.captions, second.start, second.end, second.scores) == ("b.mp4", ("café",), None, None, {})


@pytest.mark.parametrize(
    ("row", "captions", "scores"),
    [
        ({"url": "http://x", "text": "coyo", "aesthetic_score_laion_v2": 5.4, "path": "c.jpg"}, ("coyo",), "aesthetic"),
        ({"SAMPLE_ID": 1, "TEXT": "laion", "similarity": 0.3, "image": "c.jpg"}, ("laion",), "similarity"),
        ({"uid": "x", "text": "comp", "clip_l14_similarity_score": 0.3, "file": "c.jpg"}, ("comp",), "similarity"),
        ({"video": "c.jpg", "caption": "openvid", "aesthetic score": 5, "motion score": 3}, ("openvid",), "motion"),
        ({"path": "c.jpg", "cap": ["plan", "b"], "aesthetic": 5.0}, ("plan", "b"), "aesthetic"),
        (
            {"file_name": "c.jpg", "long_caption": "long", "text": "no", "short_caption": "short"},
            ("short", "long"),
            None,
        ),
        ({"path": "c.jpg", "title": "pexels", "watermark": "none"}, ("pexels",), None),
    ],
)
def test_the_shapes_of_published_sets_are_known(folder, row, captions, scores):
    (item,) = listed(table(folder / "t.jsonl", [row]))
    assert item.captions == captions
    assert scores is None or scores in item.scores


def test_columns_can_be_named(folder):
    row = {"where": "a.mp4", "what": "a thing", "from": 1, "to": 2, "good": 4, "path": "b.mp4", "kind": 3}
    source = table(folder / "t.csv", [row])
    options = {"path": "where", "captions": ("what",), "start": "from", "end": "to", "label": "kind"}
    (item,) = listed(source, scores=(("nice", "good"),), **options)
    assert (item.id, item.captions, item.scores, item.label) == ("a.mp4#t=1,2", ("a thing",), {"nice": 4.0}, 3)
    with pytest.raises(UsageError, match="did you mean 'what'"):
        list_items(source, SourceOptions(captions=("whta",)))


def test_a_row_of_stretches_gives_an_item_for_each(folder):
    row = {
        "videoID": "a",
        "url": "http://x",
        "timestamp": "[['0:00:00.000', '0:00:05.005'], ['0:00:06', '0:00:07']]",
        "caption": "['one', \"it's two\"]",
        "matching_score": "[0.4, 0.5]",
    }
    first, second = listed(table(folder / "t.csv", [row]))
    assert (first.id, first.captions, first.scores) == ("a.mp4#t=0,5.005", ("one",), {"similarity": 0.4})
    assert (second.id, second.captions, second.scores) == ("a.mp4#t=6,7", ("it's two",), {"similarity": 0.5})
    source = table(folder / "u.csv", [row | {"caption": "['one']"}])
    assert list(fates(source).items()) == [(one.id, Reason.BAD_VALUE) for one in (first, second)]
    assert "1 values for 2 stretches" in details(source)[0]


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_captions_that_are_no_text(folder, kind):
    cells = [None, float("nan"), "", " ", "NaN", "None"]
    rows = [{"path": "a.mp4", "start": start, "caption": cell} for start, cell in enumerate(cells)]
    if kind == "parquet":
        rows[1]["caption"] = None  # a column has one type there
    assert set(fates(table(folder / f"t.{kind}", rows)).values()) == {Reason.NO_CAPTION}
    assert set(fates(folder / f"t.{kind}", no_caption="empty").values()) == {("",)}


@pytest.mark.parametrize("value", [5, 1.5, {"a": "b"}, [["a"]], [1], True])
@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_numbers_and_nested_captions_are_refused(folder, kind, value):
    source = table(folder / f"t.{kind}", [{"path": "a.mp4", "caption": value}])
    assert fates(source) == {"a.mp4": Reason.CAPTION_NOT_TEXT}


@pytest.mark.parametrize(
    ("cell", "fate"),
    [
        ("12", Reason.CAPTION_NOT_TEXT),
        ("-1.5e3", Reason.CAPTION_NOT_TEXT),
        ("{'a': 1}", Reason.CAPTION_NOT_TEXT),
        ("[1, 2]", Reason.CAPTION_NOT_TEXT),
        ("nan", Reason.NO_CAPTION),
        ("['p', 'q']", ("p", "q")),
        ("[Verse 1]", ("[Verse 1]",)),
        ("12 monkeys", ("12 monkeys",)),
    ],
)
def test_in_a_table_of_texts_captions_are_what_they_spell(folder, cell, fate):
    assert fates(table(folder / "t.csv", [{"path": "a.mp4", "caption": cell}])) == {"a.mp4": fate}


def test_a_broken_line_is_located_and_costs_no_other(folder):
    good = [f'a.mp4,"caption {number}",{number}' for number in range(20)]
    faults = {
        'a.mp4,"never closed,3': 7,
        'a.mp4,"closed" too early,3': 15,
        "a.mp4,too,many,cells": 21,
        "a.mp4": 6,
        "a.mp4,fine,soon": 12,
        "../x.mp4,fine,3": 1,
        "a.mp4,,99": 7,
    }
    for bad, character in faults.items():
        for line in (0, 7, 19):
            rows = [*good[:line], bad, *good[line:]]
            write(folder / "t.csv", "\n".join(["path,caption,start", *rows]))
            items = listed(folder / "t.csv")
            refused = [one for one in items if not isinstance(one, Item)]
            assert len(items) == 21
            assert [one.detail.split(": ")[0] for one in refused] == [f"t.csv:{line + 2}:{character}"]


def test_a_cell_of_several_lines_is_located_where_it_stands(folder):
    write(folder / "t.csv", 'path,caption,start\na.mp4,"one\ntwo",soon\n')
    assert details(folder / "t.csv")[0].startswith("t.csv:3:6: ")


@pytest.mark.parametrize(
    ("line", "character"),
    [
        ("{bad", 2),
        ("[1]", 1),
        ("null", 1),
        ('{"path": "a.mp4", }', 19),
        ("[" * 50_000, 1),
        ('{"path": "../x", "caption": "c"}', 2),
    ],
)
def test_a_broken_line_of_json_is_located(folder, line, character):
    lines = [json.dumps({"path": "a.mp4", "caption": "c", "start": number}) for number in range(5)]
    for place in (0, 3, 5):
        write(folder / "t.jsonl", "\n".join([*lines[:place], line, *lines[place:]]))
        items = listed(folder / "t.jsonl")
        (refused,) = [one for one in items if not isinstance(one, Item)]
        assert len(items) == 6
        assert refused.detail.startswith(f"t.jsonl:{place + 1}:{character}: ")


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_any_damage_is_located_and_costs_no_other_line(folder, kind):
    rows = [{"path": "a.mp4", "caption": f'a "caption", {row}', "start": row} for row in range(8)]
    lines = table(folder / f"t.{kind}", rows).read_bytes().splitlines(keepends=True)
    numbers = random.Random(0)
    for _ in range(150):
        line = numbers.randrange(kind == "csv", len(lines))
        text = bytearray(lines[line])
        text[numbers.randrange(len(text) - 1)] = numbers.choice(b'",\\{}[]:\0\xff09a/')
        write(folder / f"t.{kind}", b"".join([*lines[:line], text, *lines[line + 1 :]]))
        found = listed(folder / f"t.{kind}")
        refused = [one for one in found if not isinstance(one, Item)]
        assert len(found) == 8
        assert len(refused) <= 1
        assert all(re.match(rf"t\.{kind}:{line + 1}(:\d+)?: ", one.detail) for one in refused)


def test_rows_without_path_and_urls_are_refused(folder):
    rows = ['{"caption": "c"}', '{"url": "http://x", "caption": "c"}', '{"path": "http://x/a.jpg", "caption": "c"}']
    write(folder / "t.jsonl", "\n".join(rows))
    assert list(fates(folder / "t.jsonl").values()) == [Reason.BAD_ROW, Reason.URL, Reason.URL]


def test_the_same_stretch_twice_is_refused_and_another_is_not(folder):
    write(
        folder / "t.csv",
        "path,caption,start,end\na.mp4,c,1,2\na.mp4,d,1.0,2.000\na.mp4,e,1,3\na.mp4,f,,\n./a.mp4,g,,\n",
    )
    found = listed(folder / "t.csv")
    assert [one.reason if not isinstance(one, Item) else None for one in found] == [
        *(None, Reason.DUPLICATE_ID, None, None, Reason.DUPLICATE_ID)
    ]


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "empty"),
        ("\n", "empty"),
        ("id,caption\n1,c\n", "hold paths"),
        ("url,caption\nhttp://x,c\n", "URLs are not downloaded"),
        ("path,size\na.mp4,1\n", "hold captions"),
        ("path,caption,path\n", "two columns 'path'"),
        ('path,"caption\n', "header"),
    ],
)
def test_tables_that_cannot_be_used_are_refused_at_once(folder, text, what):
    with pytest.raises(DataError, match=what):
        list_items(write(folder / "t.csv", text))


def test_bytes_that_are_no_text_spoil_their_row_only(folder):
    write(folder / "t.csv", b"path,caption\na.mp4,it\x92s\nb.mp4,fine\n")
    assert fates(folder / "t.csv") == {"a.mp4": Reason.CAPTION_ENCODING, "b.mp4": ("fine",)}
    assert "byte 2 " in details(folder / "t.csv")[0]
    assert fates(folder / "t.csv", encoding="cp1252")["a.mp4"] == ("it\u2019s",)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_marked_tables_are_read(folder, encoding):
    write(folder / "t.tsv", "path\tcaption\na.mp4\tcafé\n".encode(encoding))
    assert fates(folder / "t.tsv") == {"a.mp4": ("café",)}


def test_no_other_file_passes_for_a_table(folder):
    noise = random.Random(0).randbytes(100_000)
    write(folder / "t.parquet", noise)
    write(folder / "t.csv", noise.replace(b"\n", b"").replace(b"\r", b""))
    for name in ("t.parquet", "t.csv"):
        with pytest.raises(DataError):
            listed(folder / name)


def test_media_in_a_table_come_as_bytes(folder):
    rows = [
        {"image": {"bytes": b"JPEG", "path": "x.jpg"}, "text": "held"},
        {"image": {"bytes": None, "path": "c.jpg"}, "text": "named"},
        {"image": None, "text": "neither"},
    ]
    pq.write_table(pa.Table.from_pylist(rows), folder / "t.parquet")
    first, second, third = listed(folder / "t.parquet")
    assert isinstance(first.media, BytesMedia)
    assert (first.id, first.media.data, first.media.name) == ("t.parquet:1", b"JPEG", "x.jpg")
    assert (second.id, second.captions) == ("c.jpg", ("named",))
    assert third.reason is Reason.BAD_PATH
    pq.write_table(pa.table({"jpg": [b"JPEG"], "txt": ["bare"]}), folder / "u.parquet")
    (item,) = listed(folder / "u.parquet")
    assert (item.media.data, item.media.stamp) == (b"JPEG", first.media.stamp)


def test_paths_start_at_the_root_that_is_given(folder):
    source = write(folder / "tables" / "t.csv", f"path,caption\na.mp4,c\n{folder}/b.mp4,d\n")
    assert set(fates(source).values()) == {Reason.MISSING, Reason.OUTSIDE_ROOT}
    assert fates(source, root=folder) == {"a.mp4": ("c",), "b.mp4": ("d",)}


def test_memory_does_not_grow_with_the_rows(folder):
    def peak(rows):
        lines = (f"a.mp4,caption number {row},{row},{row + 1}" for row in range(rows))
        write(folder / "t.csv", "path,caption,start,end\n" + "\n".join(lines))
        tracemalloc.start()
        assert sum(isinstance(one, Item) for one in list_items(folder / "t.csv")) == rows
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    peak(10)
    assert peak(2000) < peak(200) + 2000 * 48
