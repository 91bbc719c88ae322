"""Samples by bucket and index, the same in every process; damage is an error that names the sample."""

import multiprocessing
import os
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from nova.data.latents import LatentDataset
from nova.data.manifest import publish_manifest
from nova.data.shards import write_shard
from nova.errors import DataError, ResourceError
from tests.data.made import HEADER, SMALL, WIDE, WITH_TEXT, folder_of_shards, same, sample


def everything(data):
    """All samples of a data set, bucket by bucket."""
    return [data.get(bucket, index) for bucket, count in enumerate(data.counts) for index in range(count)]


@pytest.mark.parametrize("header", [HEADER, WITH_TEXT], ids=["captions", "text"])
def test_every_sample_is_in_the_bucket_of_its_shape(tmp_path, header):
    files = folder_of_shards(tmp_path, shapes=(SMALL, SMALL, WIDE), header=header)
    written = [one for samples in files.values() for one in samples]
    data = LatentDataset(tmp_path)
    assert (data.buckets, data.counts, len(data)) == ((SMALL, WIDE), (14, 6), 20)
    assert data.header == header
    expected = sorted(written, key=lambda one: one.moments.shape == WIDE)
    for one, found in zip(expected, everything(data), strict=True):
        assert same(one, found)
        assert found.moments.dtype == torch.float16


def test_a_sample_says_where_it_is(tmp_path):
    files = folder_of_shards(tmp_path)
    data = LatentDataset(tmp_path)
    for bucket, count in enumerate(data.counts):
        for index in range(count):
            file, row = data.where(bucket, index).rsplit(" row ", 1)
            assert files[Path(file).name][int(row)].id == data.get(bucket, index).id


def test_there_is_nothing_beyond_a_bucket(tmp_path):
    folder_of_shards(tmp_path)
    data = LatentDataset(tmp_path)
    for bucket, index in ((0, -1), (0, 10), (-1, 0), (2, 0)):
        with pytest.raises(IndexError, match="the buckets hold"):
            data.get(bucket, index)


def test_a_copy_for_another_process_has_no_open_files(tmp_path):
    folder_of_shards(tmp_path)
    data = LatentDataset(tmp_path)
    small = len(pickle.dumps(data))
    first = data.get(0, 0)
    assert len(pickle.dumps(data)) == small
    assert same(first, pickle.loads(pickle.dumps(data)).get(0, 0))


def ids(data, pipe):
    pipe.send([one.id for one in everything(data)])


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_another_process_reads_the_same(tmp_path, method):
    folder_of_shards(tmp_path)
    data = LatentDataset(tmp_path)
    expected = [one.id for one in everything(data)]  # files are open when the process starts
    context = multiprocessing.get_context(method)
    here, there = context.Pipe()
    process = context.Process(target=ids, args=(data, there), daemon=True)
    process.start()
    there.close()  # so that a child that dies is heard
    assert here.poll(300)
    assert here.recv() == expected
    process.join()
    assert [one.id for one in everything(data)] == expected, "nor has the child moved the parent's files"


def test_few_files_are_open_at_a_time(tmp_path):
    for number in range(50):
        write_shard(tmp_path / f"{number}.parquet", [sample(number)], HEADER)
    publish_manifest(tmp_path)
    data = LatentDataset(tmp_path)
    before = len(os.listdir("/proc/self/fd"))
    assert len({one.id for one in everything(data)}) == 50
    assert len(os.listdir("/proc/self/fd")) - before <= 32


def test_the_index_does_not_grow_with_the_rows(tmp_path):
    sizes = []
    for rows in (5, 500):
        folder = tmp_path / str(rows)
        folder.mkdir()
        folder_of_shards(folder, shapes=(SMALL,), rows=rows)
        sizes.append(len(pickle.dumps(LatentDataset(folder))))
    assert sizes[1] - sizes[0] < 50


def test_a_damaged_sample_is_named_and_its_neighbours_are_read(tmp_path):
    moments = np.zeros((2, 1, 512, 512), np.float16)  # each sample is a row group of its own
    samples = [replace(sample(index), moments=moments) for index in range(3)]
    path = tmp_path / "a.parquet"
    write_shard(path, samples, HEADER)
    publish_manifest(tmp_path)
    data = LatentDataset(tmp_path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"a\.parquet: row 1: damaged \(sample 'sample-1': .*CRC"):
        data.get(0, 1)
    assert all(same(samples[index], data.get(0, index)) for index in (0, 2))
    with pytest.raises(DataError, match="1 of 1 shards are damaged: a.parquet"):
        data.verify()


def test_a_shard_that_went_away_is_named(tmp_path):
    folder_of_shards(tmp_path)
    data = LatentDataset(tmp_path)
    (tmp_path / "a.parquet").unlink()
    with pytest.raises(ResourceError, match=r"a\.parquet: cannot be read \(no such file"):
        data.get(0, 0)


def test_unlisted_shards_are_told(tmp_path):
    folder_of_shards(tmp_path)
    write_shard(tmp_path / "z.parquet", [sample(0)], HEADER)
    data = LatentDataset(tmp_path)
    assert data.unlisted == ("z.parquet",)
    assert len(data) == 20
