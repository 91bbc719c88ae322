"""Errors a user can cause: one line each, with the exit code the command line returns.

Every message says what is wrong, where (file or field), what was found and how to fix it.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class NovaError(Exception):
    """Base of all errors that a user can mend; the command line prints its one line and exits with `exit_code`."""

    exit_code = 1


class UsageError(NovaError, ValueError):
    """A wrong option, argument or configuration field (exit code 2)."""

    exit_code = 2


class DataError(NovaError):
    """Media, captions or data sets that cannot be read or are not what they claim (exit code 3)."""

    exit_code = 3


class CheckpointError(NovaError):
    """Model folders and checkpoints that are missing, damaged or of the wrong kind (exit code 4)."""

    exit_code = 4


class ResourceError(NovaError):
    """Memory, disk or devices that are not there (exit code 5)."""

    exit_code = 5


def nearest(word: str, options: Iterable[str]) -> str:
    """A hint for a misspelt `word`: `"; did you mean 'x'?"`, or the list of `options` when none is close."""
    known = sorted(options)
    close = difflib.get_close_matches(word, known, n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; choose one of {', '.join(known)}"
