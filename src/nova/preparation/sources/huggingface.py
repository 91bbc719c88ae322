"""Data sets of Hugging Face's `datasets`: by name from the hub, or from a folder that it saved.

The one source that uses the network, and only for a name after `hf:`. Media come as the bytes that the data set
holds; nothing in it is run.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from huggingface_hub import constants

from nova.errors import DataError, UsageError
from nova.preparation.items import Item, Refusal
from nova.preparation.sources.columns import Columns, checked_columns
from nova.preparation.sources.records import Listing, items_of
from nova.preparation.sources.rows import Row, cell_of

if TYPE_CHECKING:
    from datasets import Dataset, IterableDataset

PREFIX = "hf:"
_NAME = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")
_ROWS = 16


def is_saved(folder: Path) -> bool:
    """Whether `datasets` saved something in `folder`: a data set, or several splits of one."""
    single = (folder / "state.json").is_file() and (folder / "dataset_info.json").is_file()
    return single or (folder / "dataset_dict.json").is_file()


def hub_caches() -> tuple[Path, Path]:
    """The folders where files of the hub lie, to which its data sets may refer."""
    return Path(_library().config.HF_DATASETS_CACHE), Path(constants.HF_HUB_CACHE)


def from_hub(name: str, listing: Listing) -> Iterator[Item | Refusal]:
    """The items of the data set `name` of the hub, in its order. Raises UsageError or DataError."""
    if not _NAME.fullmatch(name):
        raise UsageError(f"{PREFIX}{name}: expected a data set of the hub such as {PREFIX}owner/name")
    if Path(name).exists():
        raise UsageError(
            f"{PREFIX}{name}: there is also a folder {name} here; change to another, or leave out {PREFIX}"
        )
    options = listing.options
    load = _library().load_dataset
    return _items(_tried(name, load, name, options.subset, split=options.split, streaming=options.streaming), listing)


def from_folder(folder: Path, listing: Listing) -> Iterator[Item | Refusal]:
    """The items of the data set that `datasets` saved in `folder`, in its order. Raises UsageError or DataError."""
    data = _tried(str(folder), _library().load_from_disk, str(folder))
    if isinstance(data, dict):
        if listing.options.split not in data:
            raise UsageError(f"{folder}: has no split {listing.options.split!r}; choose one of {', '.join(data)}")
        data = data[listing.options.split]
    return _items(data, listing)


def _items(data: Dataset | IterableDataset, listing: Listing) -> Iterator[Item | Refusal]:
    names = data.column_names or list(
        _tried("the data set", next, iter(data), {})
    )  # a stream may know by its rows only
    columns = checked_columns(names, listing.options, "the data set")
    return _rows(data.select_columns(list(columns.used)).with_format("arrow"), columns, listing)


def _rows(data: Any, columns: Columns, listing: Listing) -> Iterator[Item | Refusal]:
    number = 0
    tables = data.iter(batch_size=_ROWS)  # as stored: media are not decoded
    while (table := _tried("the data set", next, tables, None)) is not None:
        for values in table.to_pylist():
            number += 1
            id = f"{listing.options.split}:{number}"
            yield from items_of(Row(id, values, partial(cell_of, id)), columns, listing)


def _tried(name: str, load: Any, *arguments: Any, **options: Any) -> Any:
    try:
        return load(*arguments, **options)
    except Exception as error:  # of any kind: it reads formats of others through libraries of others
        found = (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(
            f"{name}: cannot be loaded as a data set ({found}); check its name, subset and split"
        ) from error


def _library() -> Any:
    try:
        import datasets
    except ImportError as missing:
        raise UsageError("Hugging Face data sets need: pip install 'nova-video[datasets]'") from missing
    return datasets
