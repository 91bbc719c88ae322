"""A manifest lists what is there, tells when it is no longer so, and names the content."""

import os
import time
from dataclasses import replace

import pytest

from nova.data import manifest as module
from nova.data.manifest import MANIFEST, fingerprint, publish_manifest, read_manifest, verify
from nova.data.shards import write_shard
from nova.errors import DataError, UsageError
from nova.files import sealed_json, unsealed
from tests.data.made import HEADER, SMALL, WIDE, folder_of_shards, sample


def test_a_manifest_lists_the_shards(tmp_path):
    folder_of_shards(tmp_path)
    manifest = read_manifest(tmp_path)
    assert manifest == publish_manifest(tmp_path)
    assert manifest.header == HEADER
    assert [(shard.file, shard.rows) for shard in manifest.shards] == [("a.parquet", 10), ("b.parquet", 10)]
    assert {run.shape for shard in manifest.shards for run in shard.runs} == {SMALL, WIDE}
    verify(manifest)


def test_the_fingerprint_names_the_content_and_not_its_place_or_time(tmp_path):
    folders = [tmp_path / name for name in "abc"]
    for folder in folders:
        folder.mkdir()
        folder_of_shards(folder)
    write_shard(folders[2] / "b.parquet", [sample(0)], HEADER)
    publish_manifest(folders[2])
    one, same, other = map(fingerprint, folders)
    assert one == same != other


def test_files_that_are_not_listed_do_not_count_and_are_named(tmp_path):
    folder_of_shards(tmp_path)
    before = fingerprint(tmp_path)
    write_shard(tmp_path / "c.parquet", [sample(0)], HEADER)
    (tmp_path / ".d.01234567.parquet").write_bytes(b"half")
    (tmp_path / "notes.txt").touch()
    assert read_manifest(tmp_path).unlisted == ("c.parquet",)
    assert fingerprint(tmp_path) == before
    assert publish_manifest(tmp_path).unlisted == ()
    assert fingerprint(tmp_path) != before


def test_only_new_shards_are_read_when_a_manifest_is_published_again(tmp_path, monkeypatch):
    folder_of_shards(tmp_path)
    (tmp_path / "a.parquet").unlink()
    write_shard(tmp_path / "c.parquet", [sample(0)], HEADER)
    described = []
    whole = module.describe_shard
    monkeypatch.setattr(module, "describe_shard", lambda path: described.append(path.name) or whole(path))
    assert [shard.file for shard in publish_manifest(tmp_path).shards] == ["b.parquet", "c.parquet"]
    assert described == ["c.parquet"]


def age(path):
    """Make a file an hour older."""
    past = time.time() - 3600
    os.utime(path, (past, past))


def test_missing_cut_and_rewritten_shards_are_refused(tmp_path):
    written = folder_of_shards(tmp_path)["b.parquet"]
    path = tmp_path / "b.parquet"
    data = path.read_bytes()
    path.write_bytes(data[:-1])
    with pytest.raises(DataError, match=f"b.parquet: {len(data) - 1} bytes, but the manifest lists {len(data)}"):
        read_manifest(tmp_path)
    write_shard(path, [replace(written[0], captions=("clip 99",)), *written[1:]], HEADER)
    assert path.stat().st_size == len(data), "one caption for another of the same length"
    with pytest.raises(DataError, match="b.parquet: changed since the manifest was published"):
        read_manifest(tmp_path)
    path.unlink()
    with pytest.raises(DataError, match="b.parquet: missing"):
        read_manifest(tmp_path)
    path.write_bytes(data)
    read_manifest(tmp_path)


def test_a_flipped_bit_is_found_by_reading_every_byte(tmp_path):
    folder_of_shards(tmp_path)
    data = bytearray((tmp_path / "a.parquet").read_bytes())
    data[40] ^= 1
    (tmp_path / "a.parquet").write_bytes(data)
    age(tmp_path / "a.parquet")
    with pytest.raises(DataError, match="1 of 2 shards are damaged: a.parquet"):
        verify(read_manifest(tmp_path))


def test_shards_made_in_different_ways_are_kept_apart(tmp_path):
    folder_of_shards(tmp_path)
    before = (tmp_path / MANIFEST).read_bytes()
    write_shard(tmp_path / "c.parquet", [sample(0)], HEADER.model_copy(update={"scale": (1.5,), "options": {}}))
    with pytest.raises(DataError, match="c.parquet: header fields scale, options differ from those of a.parquet"):
        publish_manifest(tmp_path)
    assert (tmp_path / MANIFEST).read_bytes() == before


def test_what_is_no_manifest_is_refused(tmp_path):
    with pytest.raises(DataError, match="no .parquet files"):
        publish_manifest(tmp_path)
    with pytest.raises(DataError, match="manifest.json: missing"):
        read_manifest(tmp_path)
    folder_of_shards(tmp_path)
    file = tmp_path / MANIFEST
    body = unsealed(file.read_bytes())
    for content, fault in (
        (b"{}", "damaged"),
        (file.read_bytes()[:-2], "damaged"),
        (sealed_json(body | {"format": 2}), "format 2, this version of nova reads 1"),
        (sealed_json(body | {"shards": [{"file": "../a.parquet"}]}), "not a manifest of shards"),
    ):
        file.write_bytes(content)
        with pytest.raises(DataError, match=f"manifest.json: {fault}"):
            read_manifest(tmp_path)
    with pytest.raises(UsageError, match="not a folder"):
        read_manifest(file)
    assert len(publish_manifest(tmp_path).shards) == 2, "a damaged manifest is replaced"


@pytest.mark.parametrize("name", ["../a.parquet", "/etc/a.parquet", ".a.parquet", "a/b.parquet", "a.txt"])
def test_a_manifest_cannot_lead_out_of_its_folder(tmp_path, name):
    folder_of_shards(tmp_path)
    body = unsealed((tmp_path / MANIFEST).read_bytes())
    body["shards"][0]["file"] = name
    (tmp_path / MANIFEST).write_bytes(sealed_json(body))
    with pytest.raises(DataError, match="not a manifest of shards"):
        read_manifest(tmp_path)
