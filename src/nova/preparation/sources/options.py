"""What a source is told by its user: where its paths may lead, what its columns mean, how its captions are taken."""

from __future__ import annotations

import codecs
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

CaptionPolicy = Literal["skip", "empty", "error"]


class SourceOptions(BaseModel):
    """Columns that are None or empty are recognised by their names, which `columns.py` lists.

    Captions may be given as names with commas between them, scores as an object of names and columns.

    root: folder that a table's paths are relative to and that no path may leave; the source's own folder where None.
    split, subset: of a Hugging Face dataset.
    streaming: read a dataset of the hub without keeping a copy.
    path, captions, start, end, label: columns of a table; `captions` also fields of a JSON sidecar.
    span: column of [start, end] or of a list of such pairs, each of which is an item.
    scores: pairs of a score's name and its column, beside those that are recognised.
    no_caption: what becomes of an item without usable caption and label: it is left out, has an empty caption, or
        ends the preparation.
    encoding: of captions and tables that do not start with a byte-order mark.
    caption_lines: every line of a .txt sidecar is a caption, not the whole file one.
    min_caption, max_caption: characters.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    root: Path | None = None
    split: str = "train"
    subset: str | None = None
    streaming: bool = False
    path: str | None = None
    captions: tuple[str, ...] = ()
    start: str | None = None
    end: str | None = None
    span: str | None = None
    label: str | None = None
    scores: tuple[tuple[str, str], ...] = ()
    no_caption: CaptionPolicy = "skip"
    encoding: str = "utf-8"
    caption_lines: bool = False
    min_caption: int = Field(default=1, ge=1)
    max_caption: int = Field(default=10_000, ge=1, le=1_000_000)

    @field_validator("captions", mode="before")
    @classmethod
    def _names(cls, value: object) -> object:
        return [name.strip() for name in value.split(",")] if isinstance(value, str) else value

    @field_validator("scores", mode="before")
    @classmethod
    def _pairs(cls, value: object) -> object:
        return list(value.items()) if isinstance(value, dict) else value

    @field_validator("encoding")
    @classmethod
    def _text_encoding(cls, value: str) -> str:
        try:
            "".encode(value)  # codecs that are no text encodings refuse
            return codecs.lookup(value).name
        except LookupError as error:
            raise ValueError(f"{value!r} is no text encoding; give one such as utf-8, cp1252 or shift_jis") from error
