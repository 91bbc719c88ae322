"""All parts to what is published: shards of rows sorted by bucket, their manifest, and the report.

What is written depends on the fates and their order alone, not on how the work was split. It is put together in a
folder of its own, which appears whole (`READY`), and then moved into place file by file, the manifest after its
shards. A move that was cut short is taken up by the next run, before anything else.
"""

from __future__ import annotations

import itertools
import re
import shutil
from array import array
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import numpy as np

from nova.data.manifest import MANIFEST, publish_manifest, read_manifest
from nova.data.shards import SUFFIX, Header, write_shard
from nova.files import publish_folder, sync_folder
from nova.preparation.fates import REPORT, Fate, from_line, to_line
from nova.preparation.parts import Store

READY = "ready"
_OURS = re.compile(r"\d{5}-[0-9a-f]{12}\.parquet")


def final_fates(decided: Path, store: Store) -> Iterator[Fate]:
    """The fates of a file of verdicts in order, those that are ok with the place of their latents."""
    with decided.open("rb") as file:
        for key, group in itertools.groupby(map(from_line, file), lambda fate: fate.key):
            fates = list(group)
            if key is None or all(fate.status != "ok" for fate in fates):
                yield from fates
                continue
            found = store.find(key)
            stored = {fate.id: fate for fate in found}
            if all(fate.id in stored for fate in fates):
                yield from (stored[fate.id] if fate.status == "ok" else fate for fate in fates)
            else:  # it was to be made again, and could not be
                yield from found


def assemble(
    decided: Path,
    store: Store,
    header: Header,
    shard_bytes: int,
    work: Path,
    describe: Callable[[Path], None],
    progress: Callable[[int], None],
) -> None:
    """Fill `work`/READY with shards of about `shard_bytes`, manifest and report; `describe` adds what tells of these.

    Raises ResourceError where the system refuses to write, DataError where a part is damaged.
    """

    def write(folder: Path) -> None:
        rows = _Rows(final_fates(decided, store))
        placed = _write_shards(folder, rows, store, header, shard_bytes, progress)
        if len(rows):
            publish_manifest(folder)
        places = iter(placed)
        with (folder / REPORT).open("wb") as file:
            for fate in final_fates(decided, store):
                if fate.status == "ok":
                    shard, row = next(places)
                    fate = replace(fate, shard=shard, row=row)
                file.write(to_line(fate))
        describe(folder)

    publish_folder(work / READY, write)


def finish(work: Path, output: Path) -> None:
    """Move what is ready into `output`, and delete the shards that it takes the place of; nothing where none is."""
    ready = work / READY
    if not ready.exists():
        return
    names = sorted(path.name for path in ready.iterdir())
    for name in sorted(names, key=lambda name: (not name.endswith(SUFFIX), name != MANIFEST)):
        (ready / name).replace(output / name)
    sync_folder(output)
    if (output / MANIFEST).exists():
        listed = {shard.file for shard in read_manifest(output).shards}
        for path in output.glob(f"*{SUFFIX}"):
            if _OURS.fullmatch(path.name) and path.name not in listed:
                path.unlink()
    shutil.rmtree(ready)


class _Rows:
    """Where the samples to publish lie now, in order, in 24 bytes each."""

    def __init__(self, fates: Iterable[Fate]) -> None:
        self._buckets: dict[tuple[int, int, int], int] = {}
        self._shards: dict[str, int] = {}
        self._columns = array("l"), array("l"), array("l")
        for fate in fates:
            if fate.status == "ok":
                name, row = fate.place
                bucket = self._buckets.setdefault(fate.bucket, len(self._buckets))
                shard = self._shards.setdefault(name, len(self._shards))
                for column, value in zip(self._columns, (bucket, shard, row), strict=True):
                    column.append(value)

    def __len__(self) -> int:
        return len(self._columns[0])

    def by_bucket(self) -> Iterator[np.ndarray]:
        """The numbers of the rows of each bucket, shorter and smaller ones first."""
        buckets = np.frombuffer(self._columns[0], dtype=np.dtype("l")) if len(self) else np.zeros(0, int)
        for bucket in sorted(self._buckets):
            yield np.flatnonzero(buckets == self._buckets[bucket])

    def place(self, number: int) -> tuple[str, int]:
        """Shard and row of one of them."""
        _, shards, rows = self._columns
        return self._names[shards[number]], rows[number]

    @cached_property
    def _names(self) -> list[str]:
        return list(self._shards)


def _write_shards(
    folder: Path, rows: _Rows, store: Store, header: Header, shard_bytes: int, progress: Callable[[int], None]
) -> Iterable[tuple[str, int]]:
    """Write all rows, bucket by bucket; shard and row of each, in the order of `rows`.

    A shard is named by its number and its content: new ones never take the name of old ones that are in use.
    """
    names: list[str] = []
    shards, places = np.zeros(len(rows), np.int64), np.zeros(len(rows), np.int64)
    done = 0
    for numbers in rows.by_bucket():
        size = store.sample(*rows.place(numbers[0])).moments.nbytes
        length = max(1, shard_bytes // size)
        for some in np.split(numbers, range(length, len(numbers), length)):
            draft = folder / f"{len(names):05d}{SUFFIX}"
            shard = write_shard(draft, (store.sample(*rows.place(number)) for number in some), header)
            names.append(f"{draft.stem}-{shard.sha256[:12]}{SUFFIX}")
            draft.rename(folder / names[-1])
            shards[some], places[some] = len(names) - 1, np.arange(len(some))
            done += len(some)
            progress(done)
    return ((names[shard], int(place)) for shard, place in zip(shards, places, strict=True))
