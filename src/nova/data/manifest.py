"""A folder of shards is what its `manifest.json` says: files, sizes, digests, and the shapes row by row.

The manifest is published after the shards and replaced in one step. What it does not list does not count, so a shard
half written or forgotten never reaches training. It carries its own checksum, which names the whole content.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from nova.data.shards import SUFFIX, Header, Shard, describe_shard, footer_sha256, read_header
from nova.errors import DataError, UsageError
from nova.files import replace_durably, sealed_json, unsealed

MANIFEST = "manifest.json"
FORMAT = 1


@dataclass(frozen=True)
class Manifest:
    """What a folder holds: `shards` by name, made as `header` says, and files beside them that do not count.

    fingerprint: names the content; equal exactly where files, their names and the header are equal.
    """

    folder: Path
    header: Header
    shards: tuple[Shard, ...]
    unlisted: tuple[str, ...]
    fingerprint: str


def publish_manifest(folder: str | Path) -> Manifest:
    """List all shards of `folder`, now, in its manifest; call it again after shards came, went or changed.

    Shards that the last manifest listed and that are as they were then are not read again.

    Raises:
        DataError: no shards, a file that is none, or shards of different headers; the last manifest stays.
    """
    folder = Path(folder)
    names = _shard_names(folder)
    if not names:
        raise DataError(f"{folder}: no {SUFFIX} files; write shards there first")
    known = intact_shards(folder)
    headers = {name: read_header(folder / name) for name in names}
    first = headers[names[0]]
    for name, header in headers.items():
        fields = [field for field in Header.model_fields if getattr(header, field) != getattr(first, field)]
        if fields:
            raise DataError(
                f"{folder / name}: header fields {', '.join(fields)} differ from those of {names[0]}; "
                "keep shards that were made in different ways in different folders"
            )
    shards = [known[name] if name in known else describe_shard(folder / name) for name in names]
    body = {
        "format": FORMAT,
        "header": first.model_dump(mode="json"),
        "shards": [shard.model_dump(mode="json") for shard in shards],
    }
    replace_durably(folder / MANIFEST, sealed_json(body))
    return read_manifest(folder)


def read_manifest(folder: str | Path) -> Manifest:
    """The manifest of `folder`. Every shard's size is compared, and the footer of those younger than the manifest.

    Raises DataError where the manifest is missing or damaged, or a shard is missing or not the one it lists.
    """
    folder = Path(folder)
    body, fingerprint = _read(folder / MANIFEST)
    try:
        header = Header.model_validate(body["header"])
        shards = tuple(Shard.model_validate(shard) for shard in body["shards"])
    except (ValidationError, KeyError, TypeError):
        raise DataError(f"{folder / MANIFEST}: not a manifest of shards; publish it again") from None
    published = (folder / MANIFEST).stat().st_mtime_ns
    for shard in shards:
        if fault := _fault(folder, shard, published):
            raise DataError(f"{folder / shard.file}: {fault}; restore it, or publish the manifest again")
    listed = {shard.file for shard in shards}
    unlisted = tuple(name for name in _shard_names(folder) if name not in listed)
    return Manifest(folder, header, shards, unlisted, fingerprint)


def intact_shards(folder: str | Path) -> dict[str, Shard]:
    """Those of the last manifest that are there as it lists them, by name; none where it cannot be read.

    Sizes and footers are compared, as by `read_manifest`.
    """
    folder = Path(folder)
    return {name: shard for name, shard in _known_shards(folder).items() if _fault(folder, shard) is None}


def verify(manifest: Manifest) -> None:
    """Read every byte of every shard. Raises DataError that names all damaged ones."""
    damaged = []
    for shard in manifest.shards:
        with (manifest.folder / shard.file).open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != shard.sha256:
                damaged.append(shard.file)
    if damaged:
        raise DataError(
            f"{manifest.folder}: {len(damaged)} of {len(manifest.shards)} shards are damaged: {', '.join(damaged)}; "
            "restore them or write them again"
        )


def fingerprint(folder: str | Path) -> str:
    """A digest that names the content of a folder of shards. Raises as `read_manifest` does."""
    return read_manifest(folder).fingerprint


def _fault(folder: Path, shard: Shard, published: int = 0) -> str | None:
    """What is wrong with a listed shard, as far as its size and, unless older than `published`, its footer show."""
    path = folder / shard.file
    try:
        found = path.stat()
    except FileNotFoundError:
        return "missing"
    if found.st_size != shard.bytes:
        return f"{found.st_size} bytes, but the manifest lists {shard.bytes}"
    if found.st_mtime_ns >= published and footer_sha256(path) != shard.footer_sha256:
        return "changed since the manifest was published"
    return None


def _read(path: Path) -> tuple[Mapping[str, Any], str]:
    """Body and digest of a manifest."""
    try:
        data = path.read_bytes()
        body = unsealed(data)
    except FileNotFoundError:
        raise DataError(
            f"{path}: missing; a folder of shards gets it from nova.data.manifest.publish_manifest"
        ) from None
    except NotADirectoryError:
        raise UsageError(f"{path.parent}: not a folder; give a folder of shards") from None
    except ValueError as error:
        raise DataError(f"{path}: damaged ({error}); publish it again") from None
    if body.get("format") != FORMAT:
        raise DataError(
            f"{path}: format {body.get('format')}, this version of nova reads {FORMAT}; use the version that wrote it"
        )
    return body, hashlib.sha256(data).hexdigest()


def _known_shards(folder: Path) -> dict[str, Shard]:
    """The shards of the last manifest; none where there is no such thing that can be read."""
    try:
        body, _ = _read(folder / MANIFEST)
        return {shard["file"]: Shard.model_validate(shard) for shard in body["shards"]}
    except (DataError, ValidationError, KeyError, TypeError):
        return {}


def _shard_names(folder: Path) -> list[str]:
    """Parquet files by name; those that begin with a dot are drafts."""
    return sorted(path.name for path in folder.glob(f"*{SUFFIX}") if not path.name.startswith("."))
