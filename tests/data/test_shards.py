"""What is read is what was written, bit for bit, or an error that names shard, row and sample."""

import itertools
import re
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nova.data.shards import Header, ShardReader, describe_shard, footer_sha256, read_header, write_shard
from nova.errors import DataError, ResourceError, UsageError
from tests.data.made import AUTOENCODER, HEADER, SMALL, WIDE, WITH_TEXT, same, sample


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("header", [HEADER, WITH_TEXT], ids=["captions", "text"])
def test_what_is_read_is_what_was_written(tmp_path, header):
    shapes = [SMALL] * 9 + [WIDE] * 3 + [SMALL]
    samples = [sample(index, shape, text=header is WITH_TEXT) for index, shape in enumerate(shapes)]
    shard = write_shard(tmp_path / "a.parquet", iter(samples), header)
    reader = ShardReader(tmp_path / "a.parquet", shard)
    for row in [12, 0, 5, 9, 11, *range(13)]:
        assert same(samples[row], reader.read(row))
    assert read_header(tmp_path / "a.parquet") == header
    assert [(run.shape, run.rows) for run in shard.runs] == [(SMALL, 9), (WIDE, 3), (SMALL, 1)]
    assert shard == describe_shard(tmp_path / "a.parquet")


def test_a_sample_that_was_read_can_be_written_to(tmp_path):
    shard = write_shard(tmp_path / "a.parquet", [sample(0)], HEADER)
    moments = ShardReader(tmp_path / "a.parquet", shard).read(0).moments
    moments += 1


def test_equal_samples_are_equal_bytes(tmp_path):
    one, other = (write_shard(tmp_path / name, map(sample, range(20)), HEADER) for name in ("a.parquet", "b.parquet"))
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()
    assert one == other.model_copy(update={"file": "a.parquet"})


@pytest.mark.parametrize(
    "change",
    [{"id": "another"}, {"captions": ("clip 4",)}, {"label": 5}, {"moments": sample(5).moments[:, :, ::-1].copy()}],
    ids=["id", "captions", "label", "moments"],
)
def test_the_footer_names_the_content(tmp_path, change):
    samples = [sample(index) for index in range(4)]
    footers = set()
    for last in (samples[3], replace(samples[3], **change)):
        write_shard(tmp_path / "a.parquet", [*samples[:3], last], HEADER)
        footers.add(footer_sha256(tmp_path / "a.parquet"))
    assert len(footers) == 2


def test_other_tools_read_the_columns(tmp_path):
    write_shard(tmp_path / "a.parquet", map(sample, range(20)), HEADER)
    file = pq.ParquetFile(tmp_path / "a.parquet")
    assert {field.name: str(field.type) for field in file.schema_arrow} == {
        "id": "string",
        "moments": "large_binary",
        "shape": "list<element: int32>",
        "captions": "list<element: string>",
        "label": "int32",
        "motion": "float",
        "fps": "float",
    }
    row = file.read().slice(7, 1).to_pylist()[0]
    assert (row["id"], row["captions"], row["shape"]) == ("sample-7", ["clip 7", "Ziffer 7 é"], list(SMALL))
    assert row["moments"] == sample(7).moments.astype("<f2").tobytes()
    assert Header.model_validate_json(file.schema_arrow.metadata[b"nova"]) == HEADER
    assert {file.metadata.row_group(0).column(index).compression for index in range(7)} == {"UNCOMPRESSED"}


@pytest.mark.parametrize(("side", "rows"), [(2, 8), (256, 4), (512, 1), (1024, 1)])
def test_row_groups_hold_a_mebibyte_or_one_sample(tmp_path, side, rows):
    moments = np.zeros((2, 1, side, side), np.float16)
    write_shard(tmp_path / "a.parquet", (replace(sample(index), moments=moments) for index in range(9)), HEADER)
    metadata = pq.ParquetFile(tmp_path / "a.parquet").metadata
    groups = [metadata.row_group(index).num_rows for index in range(metadata.num_row_groups)]
    assert groups == [rows] * (9 // rows) + ([9 % rows] if 9 % rows else [])


def test_a_bad_sample_is_named_and_nothing_is_written(tmp_path):
    write_shard(tmp_path / "a.parquet", [sample(0)], HEADER)
    before = (tmp_path / "a.parquet").read_bytes()
    bad = replace(sample(11), fps=-1.0)
    for last, fault in ((bad, "sample 'sample-11': fps: found -1.0"), (sample(3), "'sample-3': id: .* already")):
        with pytest.raises(DataError, match=f"a.parquet: sample .*{fault[8:]}"):
            write_shard(tmp_path / "a.parquet", [*map(sample, range(11)), last], HEADER)
    with pytest.raises(DataError, match="no samples"):
        write_shard(tmp_path / "a.parquet", [], HEADER)
    assert (tmp_path / "a.parquet").read_bytes() == before
    assert names(tmp_path) == ["a.parquet"]


def test_drafts_of_a_killed_writer_go(tmp_path):
    (tmp_path / ".a.01234567.parquet").write_bytes(b"half")
    write_shard(tmp_path / "a.parquet", [sample(0)], HEADER)
    assert names(tmp_path) == ["a.parquet"]


def test_wrong_names_are_refused(tmp_path):
    for name in ("a.pq", ".a.parquet"):
        with pytest.raises(UsageError, match="ends in .parquet"):
            write_shard(tmp_path / name, [sample(0)], HEADER)
    with pytest.raises(UsageError, match="does not exist"):
        write_shard(tmp_path / "no" / "a.parquet", [sample(0)], HEADER)


def read_all(path, shard, rows):
    """Each sample of a shard, or the line that says why there is none."""
    try:
        reader = ShardReader(path, shard)
    except DataError as error:
        return [str(error)] * rows
    found = []
    for row in range(rows):
        try:
            found.append(reader.read(row))
        except DataError as error:
            found.append(str(error))
    return found


def test_no_flipped_bit_changes_a_sample_in_silence(tmp_path):
    samples = [sample(index, WIDE, text=True) for index in range(3)]
    path = tmp_path / "a.parquet"
    shard = write_shard(path, samples, WITH_TEXT)
    data = path.read_bytes()
    refused = 0
    for place in range(0, len(data), 7):
        path.write_bytes(data[:place] + bytes([data[place] ^ 1 << place % 8]) + data[place + 1 :])
        for row, found in enumerate(read_all(path, shard, len(samples))):
            if isinstance(found, str):
                refused += 1
                assert re.match(rf"{path}: (not the|not a whole|row {row}: damaged \(sample )", found)
                assert "\n" not in found
            else:
                assert same(samples[row], found), f"byte {place}"
    assert refused > len(data) // 7 * 2, "most bytes are those of samples"


def test_every_truncation_is_refused(tmp_path):
    path = tmp_path / "a.parquet"
    shard = write_shard(path, [sample(0)], HEADER)
    data = path.read_bytes()
    for length in range(0, len(data), 13):
        path.write_bytes(data[:length])
        with pytest.raises(DataError, match="a.parquet: not"):
            ShardReader(path, shard)


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"shape": [4, 1, 2, 3]}, "moments: 32 bytes, but the shape .4, 1, 2, 3. needs 48"),
        ({"moments": np.full(16, np.nan, "<f2").tobytes()}, "moments: found nan at .0, 0, 0, 0."),
        ({"moments": None}, "sample 'sample-1'"),
        ({"captions": None}, "sample 'sample-1'"),
    ],
    ids=["shape", "nan", "no moments", "no captions"],
)
def test_what_another_writer_did_wrong_is_named(tmp_path, change, fault):
    path = tmp_path / "a.parquet"
    write_shard(path, [sample(0), sample(1)], HEADER)
    table = pq.read_table(path)
    rows = [row if index == 0 else row | change for index, row in enumerate(table.to_pylist())]
    pq.write_table(pa.Table.from_pylist(rows, table.schema), path)
    reader = ShardReader(path, describe_shard(path))
    assert same(reader.read(0), sample(0))
    with pytest.raises(DataError, match=f"a.parquet: row 1: damaged .*{fault}"):
        reader.read(1)


def test_files_that_are_no_shards_are_refused(tmp_path):
    pq.write_table(pa.table({"id": ["a"]}), tmp_path / "a.parquet")
    with pytest.raises(DataError, match="not a latent shard"):
        describe_shard(tmp_path / "a.parquet")
    (tmp_path / "b.parquet").write_text("hello")
    with pytest.raises(DataError, match="b.parquet: damaged"):
        describe_shard(tmp_path / "b.parquet")
    newer = HEADER.model_dump_json().replace('"format":1', '"format":2').encode()
    schema = pa.schema([("shape", pa.list_(pa.int32()))], metadata={b"nova": newer})
    pq.write_table(pa.table({"shape": [[2, 1, 1, 1]]}, schema=schema), tmp_path / "c.parquet")
    with pytest.raises(DataError, match="header field 'format'.*use the version that wrote"):
        describe_shard(tmp_path / "c.parquet")
    with pytest.raises(ResourceError, match="d.parquet: cannot be read .no such file or directory.; check"):
        describe_shard(tmp_path / "d.parquet")


def test_groups_of_odd_lengths_are_refused(tmp_path):
    with pq.ParquetWriter(
        tmp_path / "a.parquet",
        pa.schema([("shape", pa.list_(pa.int32()))], metadata={b"nova": HEADER.model_dump_json()}),
    ) as writer:
        for rows in (2, 1, 2):
            writer.write_batch(pa.RecordBatch.from_pylist([{"shape": [2, 1, 1, 1]}] * rows, writer.schema))
    with pytest.raises(DataError, match="row groups are not of one length"):
        describe_shard(tmp_path / "a.parquet")


def test_a_header_is_closed_and_checked():
    for wrong in ({"format": 2}, {"autoencoder": {"id": "x", "sha256": "short"}}, {"scaling": 1.0}):
        with pytest.raises(ValueError):
            Header.model_validate({"autoencoder": AUTOENCODER, **wrong})


def test_samples_are_taken_as_they_are_needed(tmp_path):
    taken = itertools.count()

    def endless():
        for index in taken:
            yield sample(0) if index == 40 else sample(index)

    with pytest.raises(DataError, match="'sample-0': id"):
        write_shard(tmp_path / "a.parquet", endless(), HEADER)
    assert next(taken) == 41
