"""Keeps secrets out of what a run writes down: passwords and keys that stand in a text by accident."""

from __future__ import annotations

import os
import re

HIDDEN = "***"
_NAME = r"(?:token|secret|password|passwd|api[-_]?key)"
_SHAPES = (
    re.compile(rf"(?i)({_NAME}\s*[=:]\s*['\"]?)[^\s,;)'\"]+"),  # token=abc
    re.compile(rf"(?i)(--[\w-]*{_NAME}\s+)\S+"),  # --api-key abc
    re.compile(r"()\b(?:hf|sk|gh[opsu]|wandb_v1)_\w{16,}"),  # keys that tell by their looks
    re.compile(r"(://)[^/\s@]+(?=@)"),  # user:password@host
)
_SHORTEST = 8


def redacted(text: str) -> str:
    """`text` without what looks like a secret, and without the value of any environment variable named like one."""
    for name, value in os.environ.items():
        if len(value) >= _SHORTEST and re.search(_NAME, name, re.IGNORECASE):
            text = text.replace(value, HIDDEN)
    for shape in _SHAPES:
        text = shape.sub(rf"\g<1>{HIDDEN}", text)
    return text
