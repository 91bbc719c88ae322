"""The items of a source, listed once and kept in a file: memory stays flat, and all that follows sees the same list.

Every item has a key: a digest of the item, of the stamp of its media, and of all that its samples depend on besides.
Two runs that give an item the same key make the same samples of it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from nova.data.shards import Header
from nova.preparation.items import BytesMedia, FileMedia, Item, Media, MemberMedia, Reason, Refusal

_KEY_LENGTH = 32
_DATA = ".data"  # beside the list: media that a table holds itself, one after the other


@dataclass(frozen=True)
class Listed:
    """An item with its key."""

    item: Item
    key: str


def write_listing(path: Path, items: Iterable[Item | Refusal], header: Header) -> Iterator[Listed | Refusal]:
    """Write items to `path`, line by line, and yield each as it is written, an item with its key."""
    recipe = _recipe(header)
    with path.open("wb") as file, path.with_suffix(_DATA).open("wb") as data:
        for one in items:
            listed = one if isinstance(one, Refusal) else Listed(one, _key(recipe, one))
            file.write(_line(listed, data))
            yield listed


def read_listing(path: Path) -> Iterator[Listed | Refusal]:
    """What `write_listing` wrote."""
    with path.open("rb") as file, path.with_suffix(_DATA).open("rb") as data:
        for line in file:
            yield _listed(json.loads(line), data)


def _recipe(header: Header) -> bytes:
    """All that samples depend on beside their item; models count by their weights, whatever they are called."""
    fields = header.model_dump(mode="json")
    for model in ("autoencoder", "text_encoder"):
        if fields[model] is not None:
            del fields[model]["id"]
    return json.dumps(fields, sort_keys=True).encode()


def _key(recipe: bytes, item: Item) -> str:
    """Where the media lie is left out: a folder may move, and what is in it is named by id and stamp."""
    media = item.media
    place = f"{media.offset} {media.size} {media.name}" if isinstance(media, MemberMedia) else ""
    fields = {**vars(item), "scores": dict(item.scores), "media": f"{media.stamp} {place}"}
    return hashlib.sha256(recipe + json.dumps(fields, sort_keys=True).encode()).hexdigest()[:_KEY_LENGTH]


def _line(listed: Listed | Refusal, data: BinaryIO) -> bytes:
    if isinstance(listed, Refusal):
        fields: dict[str, Any] = {"refusal": {**vars(listed), "reason": listed.reason.name}}
    else:
        item = listed.item
        fields = {
            "key": listed.key,
            "item": {**vars(item), "scores": dict(item.scores), "media": _media_fields(item.media, data)},
        }
    return json.dumps(fields).encode() + b"\n"


def _listed(fields: dict[str, Any], data: BinaryIO) -> Listed | Refusal:
    if "refusal" in fields:
        refusal = fields["refusal"]
        return Refusal(**{**refusal, "reason": Reason[refusal["reason"]]})
    item = fields["item"]
    media = _media_from(item["media"], data)
    return Listed(Item(**{**item, "media": media, "captions": tuple(item["captions"])}), fields["key"])


def _media_fields(media: Media, data: BinaryIO) -> dict[str, Any]:
    match media:
        case FileMedia():
            return {"path": str(media.path), "stamp": media.stamp}
        case MemberMedia():
            return {**vars(media), "archive": str(media.archive)}
        case BytesMedia():
            place = data.tell()
            data.write(media.data)
            return {"at": place, "length": len(media.data), "name": media.name, "stamp": media.stamp}


def _media_from(fields: dict[str, Any], data: BinaryIO) -> Media:
    if "path" in fields:
        return FileMedia(Path(fields["path"]), fields["stamp"])
    if "archive" in fields:
        return MemberMedia(**{**fields, "archive": Path(fields["archive"])})
    data.seek(fields["at"])
    return BytesMedia(data.read(fields["length"]), fields["name"], fields["stamp"])
