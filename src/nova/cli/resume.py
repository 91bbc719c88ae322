"""Which outputs of a job are there already.

An output counts as there when its sidecar says that it was made as this job would make it (the same sample, options,
precision, and bytes of model and given files) and holds the sha256 of the media file beside it. The sidecar is written
first, so a media file without one is somebody else's; a sidecar of this job whose media file is missing or damaged is
what a killed run left.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING

from nova.cli.outputs import Target, check_free
from nova.cli.request import Sample, Settings
from nova.errors import DataError, NovaError, UsageError

if TYPE_CHECKING:
    from nova.cli.sidecar import Sidecar
    from nova.cli.task import Sources

_BEGINNING = b'{\n  "format": 1,\n  "sample": {'
"""How every sidecar starts: by it one that was cut short is told from a file of somebody else's."""


class State(Enum):
    """Of the two files of an output."""

    MISSING = "neither file is there"
    VERIFIED = "made as asked, and whole"
    DAMAGED = "made as asked, but not whole: to be made again"


@dataclasses.dataclass(frozen=True)
class Wanted:
    """What the sidecar of an output must say."""

    settings: Settings
    sources: Sources
    dtype: str

    def difference(self, sample: Sample, found: Sidecar) -> str | None:
        """What `found` says otherwise, in words; None where it is the sidecar of `sample`."""
        if found.sample != sample:
            return "another prompt or seed"
        for field in dataclasses.fields(Settings):
            theirs, ours = getattr(found.options, field.name), getattr(self.settings, field.name)
            if theirs != ours:
                return f"{field.name} {theirs}, not {ours}"
        if found.environment.dtype != self.dtype:
            return f"dtype {found.environment.dtype}, not {self.dtype}"
        if found.model.files != self.sources.model.files:
            return "another model"
        if (found.lora and found.lora.files) != (self.sources.lora and self.sources.lora.files):
            return "another LoRA adapter"
        for name in ("image", "video"):
            theirs, ours = getattr(found, name), getattr(self.sources, name)
            if (theirs and theirs.sha256) != (ours and ours.sha256):
                return f"another {name}"
        return None


@dataclasses.dataclass(frozen=True)
class Found:
    """What is there of a job."""

    verified: dict[int, Sidecar]
    """Sidecars of whole outputs, by the outputs' numbers."""
    damaged: list[int]
    """Outputs that a killed run or a failing disk left incomplete."""


def look(numbers: Sequence[int], targets: Sequence[Target], samples: Sequence[Sample], wanted: Wanted) -> Found:
    """Look at the outputs of these `numbers`. Raises UsageError at a file that another job or somebody else made."""
    found = Found({}, [])
    for number in numbers:
        state, sidecar = _state(targets[number], samples[number], wanted)
        if state is State.VERIFIED and sidecar is not None:
            found.verified[number] = sidecar
        elif state is State.DAMAGED:
            found.damaged.append(number)
    return found


def _state(target: Target, sample: Sample, wanted: Wanted) -> tuple[State, Sidecar | None]:
    from nova.cli.sidecar import read_sidecar, sha256

    if not target.sidecar.is_file():
        check_free([target.media, target.sidecar], overwrite=False)
        return State.MISSING, None
    try:
        sidecar = read_sidecar(target.sidecar)
    except NovaError as error:
        if _was_ours(target.sidecar):
            return State.DAMAGED, None
        raise UsageError(f"{target.sidecar} exists and is not of this job; {_WAYS_OUT}") from error
    difference = wanted.difference(sample, sidecar)
    if difference is not None:
        raise UsageError(f"{target.sidecar} exists, of an output with {difference}; {_WAYS_OUT}")
    try:
        whole = target.media.is_file() and sha256(target.media) == sidecar.output.sha256
    except OSError as error:
        raise DataError(f"{target.media}: cannot be read ({error.strerror}); check permissions") from error
    return (State.VERIFIED if whole else State.DAMAGED), sidecar


_WAYS_OUT = "choose another --output, or give --overwrite to replace it"


def _was_ours(sidecar: Path) -> bool:
    """Whether a file that is no sidecar is what is left of one."""
    with sidecar.open("rb") as file:
        start = file.read(len(_BEGINNING))
    return _BEGINNING.startswith(start)
