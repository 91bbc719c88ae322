"""What a source is, is found out; and what it lists is the same each time."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from nova.errors import DataError, UsageError
from nova.preparation.items import Reason
from nova.preparation.sources import SourceOptions, list_items
from tests.preparation.sources.made import fates, listed, put, write


@pytest.mark.parametrize(
    "name", ["none", "none.csv", "none-{0..2}.tar", "a.zip", "a.jpg", "x\0y", "http://127.0.0.1/a.csv"]
)
def test_what_is_no_source_is_refused_at_once(tmp_path, monkeypatch, name):
    put(tmp_path, a__zip="PK", a__jpg="x")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match="give a folder") as error:
        list_items(name)
    assert str(error.value).isprintable()


def test_a_root_must_be_a_folder(tmp_path):
    with pytest.raises(UsageError, match="no folder"):
        list_items(tmp_path, SourceOptions(root=tmp_path / "none"))


def test_an_encoding_must_be_one_of_text():
    assert SourceOptions(encoding="UTF8").encoding == "utf-8"
    for encoding in ("utf-9", "base64", "zlib"):
        with pytest.raises(ValidationError, match="no text encoding"):
            SourceOptions(encoding=encoding)


def test_options_may_be_given_as_text():
    options = SourceOptions.model_validate({"captions": "short, long", "scores": {"nice": "good"}})
    assert (options.captions, options.scores) == (("short", "long"), (("nice", "good"),))
    assert SourceOptions.model_validate(options.model_dump(mode="json")) == options


def test_a_folder_of_parquet_files_is_a_table_in_parts(tmp_path):
    for number in range(2):
        image = {"bytes": b"JPEG", "path": "same.jpg"}
        rows = [{"image": image, "text": f"part {number}"}]
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / f"train-{number}.parquet")
    write(tmp_path / "README.md", "about")
    expected = {"train-0.parquet:1": ("part 0",), "train-1.parquet:1": ("part 1",)}
    assert fates(tmp_path) == fates(tmp_path / "train-{0..1}.parquet") == expected


def test_a_damaged_part_costs_no_other(tmp_path):
    for number in range(3):
        rows = [{"image": {"bytes": b"JPEG" * 100, "path": None}, "text": f"part {number}"}]
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / f"{number}.parquet", compression="none")
    whole = (tmp_path / "2.parquet").read_bytes()
    write(tmp_path / "1.parquet", whole[:-4])
    write(tmp_path / "2.parquet", b"PAR1" + bytes(200) + whole[204:])
    assert fates(tmp_path) == {
        "0.parquet:1": ("part 0",),
        "1.parquet": Reason.BAD_TABLE,
        "2.parquet": Reason.BAD_TABLE,
    }


def test_parts_that_lead_out_of_their_folder_are_refused(tmp_path):
    rows = [{"image": {"bytes": b"JPEG", "path": None}, "text": "c"}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "out.parquet")
    folder = tmp_path / "parts"
    folder.mkdir()
    (folder / "in.parquet").symlink_to(tmp_path / "out.parquet")
    assert fates(folder) == {"in.parquet": Reason.OUTSIDE_ROOT}
    assert fates(tmp_path / "parts" / "in.parquet") == {"in.parquet:1": ("c",)}


def test_a_name_with_braces_is_itself_first(tmp_path):
    write(tmp_path / "a.jpg")
    write(tmp_path / "{x,y}.csv", "path,caption\na.jpg,c\n")
    assert fates(tmp_path / "{x,y}.csv") == {"a.jpg": ("c",)}


def test_ids_are_unique_over_tables(tmp_path):
    write(tmp_path / "a.jpg")
    for name in ("x", "y"):
        write(tmp_path / f"{name}.csv", "path,caption\na.jpg,c\n")
    one, other = listed(tmp_path / "{x,y}.csv")
    assert (one.id, other.reason) == ("a.jpg", Reason.DUPLICATE_ID)


def test_a_source_may_be_named_from_where_one_is(tmp_path, monkeypatch):
    put(tmp_path / "data", a__jpg="x", a__txt="c")
    write(tmp_path / "data" / "t.csv", "path,caption\na.jpg,d\n")
    monkeypatch.chdir(tmp_path)
    assert fates("data")["a.jpg"] == ("c",)
    assert fates("data/t.csv") == {"a.jpg": ("d",)}
    monkeypatch.chdir(tmp_path / "data")
    (item,) = list_items("t.csv")
    assert item.media.path == tmp_path / "data" / "a.jpg"


def test_the_list_is_the_same_each_time(tmp_path):
    put(tmp_path, a__jpg="x", a__txt="c", b__jpg="x", c__mp4="x", c__json='{"caption": "d"}', d__tmp="x")
    assert listed(tmp_path) == listed(tmp_path)
