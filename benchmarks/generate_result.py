"""What a comparison of two generations found: whether they agree, what their turns took, and the table of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from generate_sides import Latents, Setting
from rows import Row
from workers import Memory

import nova
from nova.bench.limit import Work
from nova.bench.turns import Spread, Turns, ratio

BOUND = 1e-3
"""Largest distance of the two sides' latents in float32, relative to their size."""
FURTHER = 1.25
"""In half precision ours may be so many times as far from float32 as the published code is."""


@dataclasses.dataclass(frozen=True)
class Agreement:
    """Distances of latents, relative to their size."""

    free: float
    """Of the two sides in float32: a short generation, each side going on from its own tokens."""
    forced: float
    """The same for one set of tokens after a given frame."""
    half: tuple[float, float] | None = None
    """Ours and theirs of `forced` in the timed runs' precision, from ours in float32."""

    @property
    def alike(self) -> bool:
        """Whether the two compute the same; not where a distance is no number."""
        near = self.free <= BOUND and self.forced <= BOUND
        return near and (self.half is None or self.half[0] <= FURTHER * self.half[1] + BOUND)

    def check(self) -> None:
        """Raise ValueError where the two compute different things."""
        if not self.alike:
            raise ValueError(f"the two sides compute different things, so their times mean nothing: {self}")

    def __str__(self) -> str:
        text = (
            f"latents in float32 differ by {self.free:.1e} of their size after a short generation, "
            f"by {self.forced:.1e} after one set (bound {BOUND:.0e})"
        )
        if self.half is None:
            return text
        ours, theirs = self.half
        return f"{text}; one set in half precision is {ours:.1e} (ours) and {theirs:.1e} (theirs) from float32"


def distance(one: Latents, other: Latents) -> float:
    """Of `one` from `other`, relative to the size of `other`."""
    return float(np.linalg.norm(one - other) / np.linalg.norm(other))


@dataclasses.dataclass(frozen=True)
class Result:
    """Everything found so far; None: not measured, or not yet. Pairs are ours and the published code's."""

    setting: Setting
    device: str
    parameters: int
    frames: int
    """Pixel frames of a whole generation."""
    work: Work
    matrix_product: float
    """Operations a second, in the timed runs' precision."""
    bandwidth: float
    """Bytes a second."""
    agreement: Agreement | None = None
    ours: Turns | None = None
    published: Turns | None = None
    ours_pixels: Turns | None = None
    """Whole calls, autoencoder included."""
    ours_first_frame: Turns | None = None
    published_decoding: float | None = None
    """Seconds of its autoencoder for the whole generation."""
    memory: tuple[Memory, Memory | None] | None = None
    """Of generations up to their latents."""

    @property
    def limit(self) -> float:
        """Seconds that latents take at least on this machine."""
        return self.work.limit(self.matrix_product, self.bandwidth)

    @property
    def utilisation(self) -> float | None:
        """The floor's operations per second of our generation, over the speed of a matrix product."""
        return None if self.ours is None else self.work.flops / self.ours.seconds.median / self.matrix_product

    @property
    def speed(self) -> Spread | None:
        """The published code's seconds over ours, round by round."""
        return None if self.ours is None or self.published is None else ratio(self.published, self.ours)

    @property
    def memory_ratio(self) -> float | None:
        """The published code's peak memory over ours."""
        if self.memory is None or self.memory[1] is None:
            return None
        mine, theirs = (one.megabytes for one in self.memory if one is not None)
        return theirs / mine if theirs and mine else None

    def goals(self) -> Iterator[tuple[str, bool]]:
        """What the case asks for, as far as it was measured, and whether it is reached."""
        case = self.setting.case
        if case.goal is not None and self.speed is not None:
            yield f"{case.goal:g} times the published code's speed", self.speed.median >= case.goal
        if case.share is not None and self.ours is not None:
            yield f"{case.share:.0%} of the limit's speed", self.limit / self.ours.seconds.median >= case.share
        if case.first_frame is not None and self.ours_first_frame is not None:
            reached = self.ours_first_frame.seconds.median <= case.first_frame
            yield f"first frame within {case.first_frame:g} s", reached
        if self.memory_ratio is not None:
            yield "peak memory no higher", self.memory_ratio >= 1

    def rows(self) -> Iterator[Row]:
        """The table, without its head."""
        ours, theirs = self.ours, self.published
        if ours is not None:
            yield Row("seconds", ours.seconds, theirs and theirs.seconds, self.speed)
            yield Row("the same twice (A/A)", ours.band, theirs and theirs.band)
            yield Row("seconds of the first run", (self.ours_pixels or ours).first)
            yield Row("frames a second", *_rate(self.frames, ours, theirs))
            yield Row(
                "times the limit", ours.seconds.median / self.limit, theirs and theirs.seconds.median / self.limit
            )
            yield Row("share of the matrix product", self.utilisation)
        if self.ours_pixels is not None:
            mine = self.ours_pixels.seconds
            other = None
            if theirs is not None and self.published_decoding is not None:
                other = theirs.seconds.median + self.published_decoding
            yield Row("seconds with autoencoder", mine, other, other and other / mine.median)
            yield Row("frames a second with it", self.frames / mine.median, other and self.frames / other)
        if self.ours_first_frame is not None:
            yield Row("seconds to the first frame", self.ours_first_frame.seconds)
        if self.memory is not None:
            mine, other = self.memory
            yield Row("peak memory, MB", mine.megabytes, other and other.megabytes, self.memory_ratio)
        yield Row("floor, TFLOP", self.work.flops / 1e12)
        yield Row("matrix product, TFLOP/s", self.matrix_product / 1e12)
        yield Row("copy, GB/s", self.bandwidth / 1e9)
        yield Row("limit, seconds", self.limit)

    def __str__(self) -> str:
        setting, case = self.setting, self.setting.case
        lines = [
            f"{setting.name}: {self.parameters / 1e6:.1f} M parameters, {self.frames} frames, {case.steps} steps, "
            f"{case.diffusion_steps} diffusion steps, batch 1; {setting.dtype} on {self.device}, "
            f"{setting.threads} threads, {len(self.ours.rounds) if self.ours else 0} rounds"
            + (", ours compiled" if setting.compile else ""),
            "",
            f"{'median (least to most)':<30}{'ours':<26}"
            + (f"{'published':<26}published / ours" if self.published else ""),
            *map(str, self.rows()),
        ]
        if self.agreement is not None:
            lines += ["", str(self.agreement)]
            if not self.agreement.alike:
                lines.append("THE TWO SIDES COMPUTE DIFFERENT THINGS, so their times mean nothing")
        lines += [f"goal: {goal}: {'reached' if reached else 'missed'}" for goal, reached in self.goals()]
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """All figures, ready for JSON."""
        table = {row.name: dataclasses.asdict(row) for row in self.rows()}
        derived = {
            "goal": self.setting.case.goal,
            "goals": dict(self.goals()),
            "limit": self.limit,
            "utilisation": self.utilisation,
        }
        versions = {"torch": torch.__version__, "nova": nova.__version__}
        return {"case": self.setting.name, "table": table, **versions, **derived, **dataclasses.asdict(self)}


def _rate(frames: int, ours: Turns, theirs: Turns | None) -> tuple[float, float | None]:
    return frames / ours.seconds.median, theirs and frames / theirs.seconds.median
