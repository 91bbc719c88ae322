"""`nova curves`: the losses of runs as a picture, from their metrics.jsonl alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nova.errors import DataError

if TYPE_CHECKING:
    from nova.media.chart import Curve

_MEASURED, _SMOOTH, _HELD_OUT = (188, 208, 235), (31, 87, 164), (214, 96, 32)
_LONGEST = 50
_PARTS = 60
"""A smoothed value is about the mean of so small a part of the run."""


def curves(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Folders of runs, also of those inside a run.")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE.png", help="The picture.")] = Path(
        "curves.png"
    ),
) -> None:
    """Draw the training loss of each run, as measured and smoothed, and its held-out loss."""
    import numpy as np

    from nova.media import write_image
    from nova.media.chart import line_chart

    panels = [line_chart(_title(run), _curves(run)) for run in runs]
    if len(panels) > 1 and len(panels) % 2:
        panels.append(np.full_like(panels[0], 255))
    rows = [np.concatenate(panels[start : start + 2], axis=1) for start in range(0, len(panels), 2)]
    write_image(output, np.concatenate(rows))
    typer.echo(str(output))


def _title(run: Path) -> str:
    name = str(run)
    return name if len(name) <= _LONGEST else f"…{name[-_LONGEST:]}"


def _curves(run: Path) -> list[Curve]:
    from nova.media.chart import Curve

    steps, losses = _series(run, "loss")
    held_out = _series(run, "held_out/loss")
    drawn = [
        Curve("", steps, losses, _MEASURED, width=1),
        Curve("training loss", steps, _smoothed(losses), _SMOOTH),
        Curve("held out", *held_out, _HELD_OUT),
    ]
    return drawn if held_out[0] else drawn[:2]


def _series(run: Path, name: str) -> tuple[list[int], list[float]]:
    """Steps and values of the lines that have a figure of this name and a number for it."""
    file = run / "metrics.jsonl"
    try:
        lines = [json.loads(line) for line in file.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]
        found = [(int(line["step"]), float(line[name])) for line in lines if line.get(name) is not None]
    except FileNotFoundError:
        raise DataError(f"{file}: is missing; give the folder of a run") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{file}: is no file of metrics ({error}); give the folder of a run") from None
    return [step for step, _ in found], [value for _, value in found]


def _smoothed(values: list[float]) -> list[float]:
    """Means over the past, in which what is further back counts less."""
    keep = 1 - 1 / max(1, len(values) / _PARTS)
    total = weight = 0.0
    means = []
    for value in values:
        total, weight = keep * total + value, keep * weight + 1
        means.append(total / weight)
    return means
