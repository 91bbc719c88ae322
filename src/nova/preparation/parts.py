"""What a preparation has made so far: parts, each a shard with the fates of its items, and what it published before.

A part counts when its fates are there, which are written last; whatever else lies about is deleted. An item is found
by its key, in whichever part or published shard it is, and its latents are read from there.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import shutil
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from nova.data.manifest import intact_shards
from nova.data.samples import ShardSample
from nova.data.shards import SUFFIX, Header, Shard, ShardReader, footer_sha256, write_shard
from nova.errors import DataError
from nova.files import replace_durably
from nova.preparation.fates import REPORT, SUMMARY, Fate, from_line, to_line

_FATES = ".jsonl"
_OPEN_FILES = 16


@dataclass(frozen=True)
class _Place:
    """Where the fates of an item begin in a file of fates."""

    book: int
    offset: int


class Store:
    """Fates and latents by key, from the finished parts in `folder` and from what is published in `output`.

    Memory is an entry of about 200 bytes an item.
    """

    def __init__(self, folder: Path, output: Path, header: Header) -> None:
        self._folder = folder
        self._header = header
        self._books: list[Path] = []
        self._shards: dict[str, tuple[Path, Shard]] = {}
        self._places: dict[bytes, _Place] = {}
        self._readers: OrderedDict[str, ShardReader] = OrderedDict()
        folder.mkdir(parents=True, exist_ok=True)
        if _is_sealed(output):
            self._read_book(output / REPORT, {name: (output, shard) for name, shard in intact_shards(output).items()})
        named = [path for path in sorted(folder.glob(f"*{_FATES}")) if not path.name.startswith(".")]  # no drafts
        finished = {path.stem for path in named if self._read_part(path)}
        for path in folder.iterdir():
            if path.stem not in finished:
                path.unlink()

    def __contains__(self, key: str) -> bool:
        return bytes.fromhex(key) in self._places

    @property
    def size(self) -> int:
        """Bytes of the shards of all parts."""
        return sum(shard.bytes for folder, shard in self._shards.values() if folder == self._folder)

    @property
    def has_parts(self) -> bool:
        """Whether there is more than what is published."""
        return any(path.parent == self._folder for path in self._books)

    def find(self, key: str) -> tuple[Fate, ...]:
        """All fates of the item with this key. Raises KeyError where nothing is known of it."""
        return self._fates_at(self._places[bytes.fromhex(key)])

    def sample(self, shard: str, row: int) -> ShardSample:
        """The sample that a stored fate names. Raises DataError where its shard turns out to be damaged."""
        return self._reader(shard).read(row)

    def add(self, items: Sequence[Sequence[Fate]], samples: Mapping[str, ShardSample]) -> None:
        """Write one part: the fates of some items, and the samples of those of their clips that have one, by id.

        It is there whole or not at all. Raises ResourceError where the system refuses to write it.
        """
        name = hashlib.sha256("".join(fates[0].key or "" for fates in items).encode()).hexdigest()[:16]
        shard, rows = None, {id: row for row, id in enumerate(samples)}
        if samples:
            shard = write_shard(self._folder / f"{name}{SUFFIX}", samples.values(), self._header)
        lines: list[bytes] = []
        for fate in itertools.chain.from_iterable(items):
            placed = fate
            if shard is not None and fate.status == "ok" and fate.id in rows:
                placed = dataclasses.replace(fate, shard=shard.file, row=rows[fate.id])
            lines.append(to_line(placed))
        path = self._folder / f"{name}{_FATES}"
        body = b"".join(lines)
        head = {"shard": shard and shard.model_dump(mode="json"), "sha256": hashlib.sha256(body).hexdigest()}
        replace_durably(path, json.dumps(head).encode() + b"\n" + body)
        self._readers.pop(f"{name}{SUFFIX}", None)
        self._read_part(path)

    def clear(self) -> None:
        """Delete all parts: what they hold is published."""
        shutil.rmtree(self._folder)

    def _read_part(self, path: Path) -> bool:
        """Take a part in; whether it is one that can be used."""
        try:
            with path.open("rb") as file:
                head = json.loads(file.readline())
                if hashlib.file_digest(file, "sha256").hexdigest() != head["sha256"]:
                    return False
            shard = None if head["shard"] is None else Shard.model_validate(head["shard"])
            if shard is not None and footer_sha256(self._folder / shard.file) != shard.footer_sha256:
                return False
        except (OSError, ValueError, KeyError, TypeError, ValidationError, DataError):
            return False
        self._read_book(path, {} if shard is None else {shard.file: (self._folder, shard)})
        return True

    def _read_book(self, path: Path, shards: Mapping[str, tuple[Path, Shard]]) -> None:
        """Note where the items of a file of fates are, of those whose latents are all there."""
        self._shards.update(shards)
        book = len(self._books)
        self._books.append(path)
        with path.open("rb") as file:
            offset = 0
            for key, lines in itertools.groupby(file, _key_of):
                begin, whole = offset, True
                for line in lines:
                    offset += len(line)
                    whole = whole and _shard_of(line) in (None, *shards)
                if key is not None and whole:
                    self._note(bytes.fromhex(key), _Place(book, begin))

    def _note(self, key: bytes, place: _Place) -> None:
        """What is newer counts, unless it has fewer latents: those of duplicates are made only when they are needed."""
        known = self._places.get(key)
        if known is None or _stored(self._fates_at(place)) >= _stored(self._fates_at(known)):
            self._places[key] = place

    def _fates_at(self, place: _Place) -> tuple[Fate, ...]:
        with self._books[place.book].open("rb") as file:
            file.seek(place.offset)
            first = from_line(file.readline())
            fates = [first]
            for line in file:
                if _key_of(line) != first.key:
                    break
                fates.append(from_line(line))
        return tuple(fates)

    def _reader(self, name: str) -> ShardReader:
        if name not in self._readers:
            if len(self._readers) >= _OPEN_FILES:
                self._readers.popitem(last=False)
            folder, shard = self._shards[name]
            self._readers[name] = ShardReader(folder / name, shard)
        self._readers.move_to_end(name)
        return self._readers[name]


def _is_sealed(output: Path) -> bool:
    """Whether there is a report in `output` that is as it was written: its lines are gone by."""
    try:
        with (output / REPORT).open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        return json.loads((output / SUMMARY).read_bytes())["report_sha256"] == found
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _key_of(line: bytes) -> str | None:
    return json.loads(line).get("key")


def _shard_of(line: bytes) -> str | None:
    return json.loads(line).get("shard")


def _stored(fates: Iterable[Fate]) -> int:
    return sum(fate.stored for fate in fates)
