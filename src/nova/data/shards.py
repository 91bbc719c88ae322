"""Latent shards: Parquet files of encoded samples. Only this module knows what is where in such a file.

A row is a sample, and what is read is what was written. Moments lie uncompressed in row groups so small that any
sample is read by itself; every page has a checksum; the footer ends with a digest of all samples, so that it names
the content. `docs/data.md` lists the columns.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from nova.data.samples import ShardSample, fault_of
from nova.errors import DataError, NovaError, ResourceError, UsageError
from nova.files import remove_drafts, written_whole

try:
    import pyarrow as pa
    import pyarrow.parquet as pq
except ImportError as missing:
    raise UsageError("latent shards need pyarrow; install it with: pip install 'nova-video[train]'") from missing

SUFFIX = ".parquet"
Shape = tuple[int, int, int, int]
"""Of moments: (2c, t, h, w)."""

_HEADER = b"nova"
_CONTENT = "nova.content"
_GROUP_BYTES = 1 << 20
_GROUP_ROWS = 8
_FOOTER_END = 8  # the footer's length in four bytes, and the four letters of the format


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Model(_Record):
    """A frozen model by name, and the sha256 of its weights."""

    id: str = Field(min_length=1)
    sha256: str = Field(pattern="^[0-9a-f]{64}$")


class Header(_Record):
    """What all samples of a folder of shards have in common.

    The latents a model learns are (z - shift) · scale, with a number for each channel or one for all; moments are
    stored unscaled. `text_encoder` is given if and only if the samples hold text features. `options` says how the
    samples were made, in whatever words their maker likes.
    """

    format: Literal[1] = 1
    autoencoder: Model
    shift: tuple[float, ...] = (0.0,)
    scale: tuple[float, ...] = (1.0,)
    text_encoder: Model | None = None
    versions: dict[str, str] = {}
    options: dict[str, JsonValue] = {}


class Run(_Record):
    """So many rows of one shape in succession."""

    shape: Shape
    rows: int = Field(ge=1)


class Shard(_Record):
    """A shard as a manifest lists it: name and size, what its rows are, and digests of the file and of its footer."""

    file: str = Field(pattern=r"^[^./\\][^/\\]*\.parquet$")
    bytes: int
    sha256: str
    footer_sha256: str
    runs: tuple[Run, ...]

    @property
    def rows(self) -> int:
        """The number of samples."""
        return sum(run.rows for run in self.runs)


def write_shard(path: str | Path, samples: Iterable[ShardSample], header: Header) -> Shard:
    """Write `samples` to `path`, whole or not at all; only a few of them are in memory at a time.

    The same samples and header give the same bytes. A shard has one writer at a time: drafts that killed ones left
    are deleted. Row groups hold as many samples as fit into 1 MiB, from 1 to 8.

    Raises:
        DataError: there is no sample, or one is not what it should be; names sample, field and what was found.
        UsageError: `path` does not end in .parquet, or its folder does not exist.
        ResourceError: the system refuses to write the file.
    """
    path = Path(path)
    if path.suffix != SUFFIX or path.name.startswith("."):
        raise UsageError(f"{path}: give a shard a name that ends in {SUFFIX} and does not start with a dot")
    schema = _schema(header)
    digest = hashlib.sha256(header.model_dump_json().encode())
    remove_drafts(path)
    with written_whole(path) as draft:
        with pq.ParquetWriter(
            draft, schema, compression="NONE", use_dictionary=False, write_statistics=False, write_page_checksum=True
        ) as writer:
            for group in _groups(_checked(samples, header, path)):
                rows = [_row(sample) for sample in group]
                for row in rows:
                    digest.update(_row_digest(row))
                writer.write_batch(pa.RecordBatch.from_pylist(rows, schema))
            writer.add_key_value_metadata({_CONTENT: digest.hexdigest()})
        return _described(draft, path.name)


def read_header(path: Path) -> Header:
    """The header of the shard at `path`. Raises DataError for any other file."""
    with _reading(path), pq.ParquetFile(path) as file:
        stored = (file.metadata.metadata or {}).get(_HEADER)
    if stored is None:
        raise DataError(f"{path}: a Parquet file that is not a latent shard; keep it in another folder")
    try:
        return Header.model_validate_json(stored)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"]))
        raise DataError(
            f"{path}: header field {field!r} is not what this version of nova reads ({first['msg'].lower()}); "
            "use the version that wrote the shard, or write it again"
        ) from None


def describe_shard(path: Path) -> Shard:
    """The manifest's entry for the shard at `path`, every byte of which is read. Raises DataError if it is none."""
    read_header(path)
    with _reading(path):
        return _described(path, path.name)


def footer_sha256(path: Path) -> str:
    """Digest of the footer of a shard, which names its content. Raises DataError where a file does not end in one."""
    size = path.stat().st_size
    with path.open("rb") as file:
        file.seek(max(0, size - _FOOTER_END))
        end = file.read()
        length = int.from_bytes(end[:4], "little") + _FOOTER_END
        if end[4:] != b"PAR1" or length > size:
            raise DataError(f"{path}: not a whole Parquet file ({size} bytes); restore it or write it again")
        file.seek(size - length)
        return hashlib.sha256(file.read()).hexdigest()


class ShardReader:
    """Random access to the samples of a shard, for one process: open it after a fork.

    Raises DataError where the file at `path` is not the one that its manifest's entry describes.
    """

    def __init__(self, path: Path, shard: Shard) -> None:
        with _reading(path):
            if footer_sha256(path) != shard.footer_sha256:
                raise DataError(
                    f"{path}: not the file that the manifest lists; restore it, or publish the manifest again"
                )
            # Neither threads nor pools of Arrow: those of a parent process are gone after a fork.
            self._file = pq.ParquetFile(path, pre_buffer=False, page_checksum_verification=True)
        self._path = path
        self._group = self._file.metadata.row_group(0).num_rows
        self._with_text = "text" in self._file.schema_arrow.names

    def read(self, row: int) -> ShardSample:
        """The sample in `row`, counted from 0.

        Raises:
            DataError: it is damaged, or not what a sample should be; names shard, row and sample.
            ResourceError: the system cannot read the file; a later try may succeed.
        """
        group, place = divmod(row, self._group)
        with _reading(f"{self._path}: row {row}"):
            try:
                table = self._file.read_row_group(group, use_threads=False)
                sample = _sample(table.slice(place, 1).to_pylist()[0])
                fault = fault_of(sample, self._with_text)
            except Exception as error:
                if _refusal(error) is not None:
                    raise
                raise ValueError(f"sample {self._id(group, place)}: {error}") from error
            if fault:
                raise ValueError(f"sample {sample.id!r}: {fault}")
            return sample

    def _id(self, group: int, place: int) -> str:
        """The name of a sample that may not be readable, for an error message."""
        try:
            ids = self._file.read_row_group(group, columns=["id"], use_threads=False)
            return repr(ids.column("id")[place].as_py())
        except (OSError, ValueError, pa.ArrowException):
            return "of unknown name"


def _schema(header: Header) -> pa.Schema:
    columns = [
        ("id", pa.string()),
        ("moments", pa.large_binary()),
        ("shape", pa.list_(pa.int32())),
        ("captions", pa.list_(pa.string())),
        ("label", pa.int32()),
        ("motion", pa.float32()),
        ("fps", pa.float32()),
    ]
    if header.text_encoder is not None:
        columns += [("text", pa.list_(pa.large_binary())), ("text_shapes", pa.list_(pa.list_(pa.int32())))]
    return pa.schema(columns, metadata={_HEADER: header.model_dump_json()})


def _row(sample: ShardSample) -> dict[str, Any]:
    row: dict[str, Any] = {
        "id": sample.id,
        "moments": _bytes(sample.moments),
        "shape": sample.moments.shape,
        "captions": sample.captions,
        "label": None if sample.label is None else int(sample.label),
        "motion": None if sample.motion is None else float(sample.motion),
        "fps": None if sample.fps is None else float(sample.fps),
    }
    if sample.text is not None:
        row |= {"text": [_bytes(one) for one in sample.text], "text_shapes": [one.shape for one in sample.text]}
    return row


def _sample(row: dict[str, Any]) -> ShardSample:
    """The inverse of `_row`. Raises ValueError where bytes and shapes do not fit."""
    text = None
    if "text" in row:
        text = tuple(_array("text", *one) for one in zip(row["text"], row["text_shapes"], strict=True))
    return ShardSample(
        id=row["id"],
        moments=_array("moments", row["moments"], row["shape"]),
        captions=tuple(row["captions"]),
        label=row["label"],
        motion=row["motion"],
        fps=row["fps"],
        text=text,
    )


def _bytes(array: np.ndarray) -> bytes:
    return array.astype("<f2").tobytes()


def _array(field: str, data: bytes, shape: list[int]) -> np.ndarray:
    if len(data) != 2 * math.prod(shape):
        raise ValueError(f"{field}: {len(data)} bytes, but the shape {tuple(shape)} needs {2 * math.prod(shape)}")
    return np.frombuffer(data, "<f2").astype(np.float16).reshape(shape)  # a copy, which can be written to


def _row_digest(row: dict[str, Any]) -> bytes:
    arrays = [row["moments"], *row.get("text", ())]
    others = {name: value for name, value in row.items() if name not in ("moments", "text")}
    return hashlib.sha256(b"".join([json.dumps(others).encode(), *arrays])).digest()


def _groups(samples: Iterator[ShardSample]) -> Iterator[list[ShardSample]]:
    """The samples in the row groups they are stored in, all but the last of one length."""
    first = next(samples)
    rows = max(1, min(_GROUP_ROWS, _GROUP_BYTES // first.moments.nbytes))
    samples = itertools.chain([first], samples)
    while group := list(itertools.islice(samples, rows)):
        yield group


def _checked(samples: Iterable[ShardSample], header: Header, path: Path) -> Iterator[ShardSample]:
    ids = set()
    for sample in samples:
        fault = fault_of(sample, header.text_encoder is not None)
        if fault is None and sample.id in ids:
            fault = "id: a sample of this name is in the shard already; give each its own"
        if fault:
            raise DataError(f"{path}: sample {sample.id!r}: {fault}")
        ids.add(sample.id)
        yield sample
    if not ids:
        raise DataError(f"{path}: no samples; a shard holds one or more")


def _described(path: Path, name: str) -> Shard:
    with path.open("rb") as opened:
        sha256 = hashlib.file_digest(opened, "sha256").hexdigest()
    with pq.ParquetFile(path) as file:
        groups = [file.metadata.row_group(index).num_rows for index in range(file.num_row_groups)]
        shapes = file.read(["shape"], use_threads=False).column("shape").to_pylist()
    if not groups or groups[:-1] != groups[:1] * (len(groups) - 1) or groups[-1] > groups[0]:
        raise ValueError("its row groups are not of one length")
    runs = tuple(Run(shape=tuple(shape), rows=len(list(rows))) for shape, rows in itertools.groupby(shapes))
    return Shard(file=name, bytes=path.stat().st_size, sha256=sha256, footer_sha256=footer_sha256(path), runs=runs)


@contextmanager
def _reading(where: Path | str) -> Iterator[None]:
    """Turn whatever goes wrong while a file is read into one line that begins with `where`.

    By boundary, not by kind: what Arrow raises for damaged bytes are errors of many kinds.
    """
    try:
        yield
    except NovaError:
        raise
    except Exception as error:
        if (number := _refusal(error)) is not None:
            raise ResourceError(
                f"{where}: cannot be read ({os.strerror(number).lower()}); check the storage"
            ) from error
        line = " ".join(str(error).split())
        raise DataError(f"{where}: damaged ({line}); restore the shard or write it again") from error


def _refusal(error: Exception) -> int | None:
    """The system's error number, if it refused to read; Arrow's complaints about bytes are OSErrors without one."""
    return error.errno if isinstance(error, OSError) else None
