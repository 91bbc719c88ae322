"""`field=value` on the command line: a changed copy of a config, checked like the config itself."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError

from nova.errors import UsageError, nearest

Run = TypeVar("Run", bound=BaseModel)


def override(config: Run, settings: Sequence[str]) -> Run:
    """`config` with each `a.b=value` of `settings` in place; values are JSON, or else text.

    Raises UsageError for a setting without "=", an unknown field (naming the nearest) and a value that does not fit.
    """
    fields = config.model_dump()
    for setting in settings:
        path, equals, value = setting.partition("=")
        if not equals:
            raise UsageError(f"{setting!r} is not a setting; write field=value")
        _set(config, fields, path, value)
    return validated(type(config), fields)


def validated(kind: type[Run], fields: Any) -> Run:
    """A config of `kind` from plain `fields`; UsageError in one line for what does not fit."""
    try:
        return kind.model_validate(fields)
    except ValidationError as error:
        first = max(error.errors(), key=lambda one: len(one["loc"]))  # of a union, the kind that fits best
        where = ".".join(str(part) for part in first["loc"])
        raise UsageError(f"{where}: found {first['input']!r}; {first['msg']}") from None


def _parse(value: str) -> Any:
    try:
        return json.loads(value)
    except ValueError:
        return value


def _set(config: BaseModel, fields: dict[str, Any], path: str, text: str) -> None:
    """Put the value that `text` stands for at the dotted `path` of `fields`, which are `config`'s."""
    name, dot, rest = path.partition(".")
    if name not in fields:
        raise UsageError(f"unknown field {name!r} of {type(config).__name__}{nearest(name, fields)}")
    inner = getattr(config, name)
    if not dot:
        value = _parse(text)
        # A folder may be called 12.
        named = isinstance(inner, str | BaseModel) and isinstance(value, int | float)
        fields[name] = text if named else value
    elif isinstance(inner, BaseModel):
        _set(inner, fields[name], rest, text)
    elif inner is None and (begun := _defaults(config, name)) is not None:
        fields[name] = fields[name] or begun.model_dump()
        _set(begun, fields[name], rest, text)
    else:
        raise UsageError(f"field {name!r} of {type(config).__name__} has no fields, found {path!r}")


def _defaults(config: BaseModel, name: str) -> BaseModel | None:
    """What an optional field is when only a part of it is set: its kind of value with all defaults, if it has them."""
    for kind in get_args(type(config).model_fields[name].annotation):
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            try:
                return kind()
            except ValidationError:
                return None
    return None
