"""The contact sheet of a job: a row for each output, read back from its file, so that it is the same after a kill."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nova.cli.outputs import sidecar_of
from nova.cli.ranks import Share
from nova.cli.request import Sample
from nova.errors import UsageError

if TYPE_CHECKING:
    import numpy as np

COLUMNS = 8


def check_sheet(path: Path, output: Path | None, share: Share) -> None:
    """Refuse a sheet that cannot be written: another suffix, an output's own name, or one for several processes."""
    taken = () if output is None else (output, sidecar_of(output))
    if path.suffix.lower() != ".png" or path in taken:
        raise UsageError(f"--sheet: {path}; name a .png file of its own")
    if share.size > 1:
        raise UsageError("--sheet: several processes make the outputs; run the command once more in one, for the sheet")


def write_sheet(path: Path, samples: Sequence[Sample], files: Sequence[Path], overwrite: bool) -> None:
    """Write the sheet of media `files`; one that is there must be the same, unless `overwrite`."""
    from nova.media import contact_sheet, read_image, write_image

    rows = [(_label(sample), _evenly(_frames(file))) for sample, file in zip(samples, files, strict=True)]
    sheet = contact_sheet(rows, COLUMNS)
    if path.exists() and not overwrite:
        there = read_image(path)
        if there.shape != sheet.shape or (there != sheet).any():
            raise UsageError(f"--sheet: {path} exists and shows something else; name another, or give --overwrite")
        return
    write_image(path, sheet)


def _frames(file: Path) -> np.ndarray:
    from nova.media import read_image, read_video

    return read_image(file)[None] if file.suffix.lower() == ".png" else read_video(file).frames


def _label(sample: Sample) -> str:
    return sample.prompt if sample.prompt is not None else f"class {sample.class_label}"


def _evenly(frames: np.ndarray) -> np.ndarray:
    """The frames that the sheet will show, so that not all frames of all samples are kept."""
    count = min(COLUMNS, len(frames))
    return frames[[round(index * (len(frames) - 1) / max(1, count - 1)) for index in range(count)]]
