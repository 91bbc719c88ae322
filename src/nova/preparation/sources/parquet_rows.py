"""Rows of Parquet files, a few at a time, and only of the columns that are used."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from nova.errors import DataError, UsageError
from nova.preparation.sources.rows import Row, cell_of

if TYPE_CHECKING:
    from pyarrow.parquet import ParquetFile

_ROWS = 256
_HEAVY_ROWS = 16
_BUFFER = 1 << 20


def parquet_header(path: Path) -> tuple[str, ...]:
    """The names of the columns. Raises DataError if the file is damaged or no Parquet."""
    with _opened(path) as file:
        return tuple(file.schema_arrow.names)


def parquet_rows(path: Path, table: str, columns: tuple[str, ...]) -> Iterator[Row]:
    """All rows in order, of some columns; `table` names the file in them.

    Where columns hold media, 16 rows are in memory at a time, else 256.
    """
    import pyarrow as pa

    with _opened(path) as file:
        types = [file.schema_arrow.field(column).type for column in columns]
        heavy = any(
            pa.types.is_struct(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind) for kind in types
        )
        number = 0
        for batch in file.iter_batches(_HEAVY_ROWS if heavy else _ROWS, columns=list(columns), use_threads=False):
            for values in batch.to_pylist():
                number += 1
                id = f"{table}:{number}"
                yield Row(id, values, partial(cell_of, id))


@contextmanager
def _opened(path: Path) -> Iterator[ParquetFile]:
    """The Parquet file at `path`; errors on opening and on reading become DataError."""
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as missing:
        raise UsageError("Parquet tables need pyarrow; install it with: pip install 'nova-video[data]'") from missing
    try:
        with pq.ParquetFile(path, memory_map=False, buffer_size=_BUFFER, pre_buffer=False) as file:
            yield file
    except (pa.ArrowException, OSError) as error:
        found = str(error).splitlines()[0]
        raise DataError(
            f"{path}: cannot be read as Parquet ({found}); the file is damaged or of another kind"
        ) from error
