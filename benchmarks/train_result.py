"""What a comparison of two training steps found: whether they agree, what their turns took, and the table of it."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Iterator, Sequence
from typing import Any

from rows import Row
from train_sides import Findings, Setting
from workers import Memory

from nova.bench.turns import Spread

LOSS_BOUND = 1e-4
"""Largest relative difference between the two sides' losses."""
GRADIENT_BOUND = 1e-3
"""The same for a parameter's gradient norm, relative to it or, where that is more, to 1e-4 of all gradients' norm."""


@dataclasses.dataclass(frozen=True)
class Agreement:
    """Relative differences of the two sides in float32, before the first update."""

    loss: float
    gradient: float
    worst: str
    """The parameter whose gradients differ most."""

    @classmethod
    def of(cls, ours: Findings, theirs: Findings) -> Agreement:
        """Raises ValueError where they are further apart than the bounds, or don't train the same parameters."""
        if different := ours.gradient_norms.keys() ^ theirs.gradient_norms.keys():
            raise ValueError(f"only one side trains {', '.join(sorted(different)[:3])}; {len(different)} in all")
        least = 1e-4 * sum(norm**2 for norm in theirs.gradient_norms.values()) ** 0.5
        losses = [difference(ours.losses[name], value) for name, value in theirs.losses.items()]
        gradients = {
            name: difference(ours.gradient_norms[name], norm, least) for name, norm in theirs.gradient_norms.items()
        }
        worst = max(gradients, key=lambda name: gradients[name])
        found = cls(max(losses), gradients[worst], worst)
        alike = [one <= LOSS_BOUND for one in losses] + [one <= GRADIENT_BOUND for one in gradients.values()]
        if not all(alike):  # also where one is not a number
            raise ValueError(f"the two sides compute different things, so their times mean nothing: {found}")
        return found


def difference(one: float, other: float, least: float = 0.0) -> float:
    """Of `one` and `other`, relative to `other` or to `least`, whichever is more."""
    return abs(one - other) / max(abs(other), least)


@dataclasses.dataclass(frozen=True)
class Turns:
    """What one side's turns took: two in every round, on the batch of the round, the rounds of all starts in a row."""

    warm_up: Sequence[float]
    """Seconds of the steps before the first round, one on each batch."""
    seconds: Sequence[tuple[float, float]]
    losses: Sequence[float]
    averaging: float
    """Seconds of an update of the averaged weights."""
    memory: Memory

    @classmethod
    def together(cls, starts: Sequence[Turns]) -> Turns:
        """Those of one side after each of its starts. The first step is that of the first, the memory all have."""
        return dataclasses.replace(
            starts[0],
            seconds=[pair for start in starts for pair in start.seconds],
            losses=[loss for start in starts for loss in start.losses],
            averaging=statistics.median(start.averaging for start in starts),
        )

    @property
    def step(self) -> Spread:
        """Seconds a step."""
        return Spread.of([time for pair in self.seconds for time in pair])

    @property
    def band(self) -> Spread:
        """A side against itself: the first turn over the second, round by round."""
        return Spread.of([early / late for early, late in self.seconds])

    @property
    def megabytes(self) -> float | None:
        """The most memory in a step, beyond what the process had before it held a model."""
        return self.memory.megabytes


@dataclasses.dataclass(frozen=True)
class Result:
    """Everything that a run found out. What is of the published code is None where it was not run."""

    setting: Setting
    parameters: int
    matrix_product: float
    """Operations a second of a matrix product, in the step's precision."""
    floor: Sequence[float]
    """Operations that the forward pass of each round's step needs at least."""
    checked_floor: float
    """The same for the forward pass whose operations were counted."""
    counted: tuple[int, int | None]
    """Operations of that pass on either side; masked attention counts as dense."""
    ours: Turns
    published: Turns | None = None
    agreement: Agreement | None = None

    def rows(self) -> Iterator[Row]:
        """The table, without its head."""
        ours, theirs, batch = self.ours, self.published, self.setting.batch
        yield Row("seconds a step", ours.step, theirs and theirs.step, self.speed)
        yield Row("the same side twice", ours.band, theirs and theirs.band)
        yield Row("samples a second", batch / ours.step.median, theirs and batch / theirs.step.median)
        yield Row("seconds of a first step", ours.warm_up[0], theirs and theirs.warm_up[0])
        yield Row("seconds to average weights", ours.averaging, theirs and theirs.averaging)
        yield Row("peak memory, MB", ours.megabytes, theirs and theirs.megabytes, self.memory)
        mine, other = self.counted
        yield Row("forward TFLOP, counted", mine / 1e12, other and other / 1e12, other and other / mine)
        yield Row("forward TFLOP, floor", self.checked_floor / 1e12, ratio=other and other / self.checked_floor)
        yield Row("TFLOP/s of a matrix product", self.matrix_product / 1e12)
        yield Row("floor's share of that speed", self.utilisation)

    @property
    def speed(self) -> Spread | None:
        """The published code's seconds over ours, round by round."""
        if self.published is None:
            return None
        pairs = zip(self.ours.seconds, self.published.seconds, strict=True)
        return Spread.of([sum(theirs) / sum(mine) for mine, theirs in pairs])

    @property
    def memory(self) -> float | None:
        """The published code's peak memory over ours."""
        if self.published is None or not self.ours.megabytes or not self.published.megabytes:
            return None
        return self.published.megabytes / self.ours.megabytes

    @property
    def utilisation(self) -> Spread:
        """Our step's floor (a step is three forward passes) per second, over the speed of a matrix product."""
        pairs = zip(self.floor, self.ours.seconds, strict=True)
        return Spread.of([3 * floor / statistics.mean(times) / self.matrix_product for floor, times in pairs])

    def goals(self) -> dict[str, bool]:
        """What is asked for and was measured, and whether it was reached."""
        found, goal = {}, self.setting.case.goal
        if goal is not None and self.speed is not None:
            found[f"{goal} times the published code's speed"] = self.speed.median >= goal
        if self.memory is not None:
            found["peak memory no higher"] = self.memory >= 1
        return found

    def __str__(self) -> str:
        setting, shape, theirs = self.setting, self.setting.case.shape, self.published
        lines = [
            f"{setting.name}: {self.parameters / 1e6:.1f} M parameters, {shape.latent_frames} latent frames of "
            f"{shape.latent_height} x {shape.latent_width}, batch {setting.batch}; {setting.precision} on "
            f"{setting.device}, {setting.threads} threads, {len(self.ours.seconds)} rounds"
            + (", our blocks compiled" if setting.compile else "")
            + (f", recomputing {setting.recompute}" if setting.recompute != "nothing" else ""),
            "",
            f"{'median (least to most)':<30}{'ours':<26}" + (f"{'published':<26}published / ours" if theirs else ""),
            *map(str, self.rows()),
        ]
        if self.agreement and theirs and self.speed:
            later = max(map(difference, self.ours.losses, theirs.losses))
            lines += [
                "",
                f"losses before the first update differ by {self.agreement.loss:.1e} (bound {LOSS_BOUND:.0e}), "
                f"gradient norms by at most {self.agreement.gradient:.1e} (bound {GRADIENT_BOUND:.0e}; "
                f"{self.agreement.worst}); losses of the timed steps by at most {later:.1e}",
            ]
        lines += [f"goal: {goal}: {'reached' if reached else 'missed'}" for goal, reached in self.goals().items()]
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """All figures, ready for JSON."""
        saved = dataclasses.asdict(self)
        del saved["setting"]["weights"]  # a file of this run
        table = {row.name: dataclasses.asdict(row) for row in self.rows()}
        return {"table": table, "goal": self.setting.case.goal, "goals": self.goals(), **saved}
