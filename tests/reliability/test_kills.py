"""A run that is killed, wherever and however often, makes the numbers of one that was not: losses, weights, average,
optimizer, to the last bit. Rows A1, A8 and A14 of the catalogue.

The long run: python -m pytest tests/reliability/test_kills.py -m slow -s
"""

from __future__ import annotations

import random
import statistics
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest

from nova.training.checkpoint import checkpoints
from nova.training.config import RunConfig
from nova.training.train import CHECKPOINTS
from tests.reliability.strike import Fate, Strike, lived
from tests.reliability.victims import Manner, larger_run, small_run, trained
from tests.training.toy import metrics

CHAIN = 20
"""Most kills in one run."""


@dataclass(frozen=True)
class Whole:
    """A run that nothing interrupted."""

    config: RunConfig
    lines: list[str]
    state: dict[str, str]
    saving: float
    """Seconds that a save takes."""


def uninterrupted(folder: Path, config: RunConfig) -> Whole:
    fate = lived(trained, folder, config, Manner())
    assert fate.code == 0
    return Whole(config, metrics(folder), fate.told["state"], statistics.median(fate.lasting("save", "saved")))


def resumed(folder: Path, whole: Whole, strikes: list[Strike], workers: int = 0, batch: float = 0.0) -> list[Fate]:
    """Let a run be killed by each of `strikes`, as far as it does not end before, then end; it must equal `whole`.

    As long as it is to be killed, a batch takes `batch` seconds.
    """
    config = whole.config.model_copy(update={"workers": workers})
    fates: list[Fate] = []
    while True:
        coming = tuple(strikes[:1]) if len(fates) < CHAIN else ()
        last = lived(trained, folder, config, Manner(batch if coming else 0.0), strikes=coming)
        if not last.killed:
            break
        fates.append(last)
        strikes.pop(0)
    assert last.code == 0
    assert not list((folder / CHECKPOINTS).glob("damaged-*"))
    assert len(checkpoints(folder / CHECKPOINTS)) == whole.config.keep_checkpoints
    assert metrics(folder) == whole.lines
    assert last.told["state"] == whole.state
    return fates


def test_a_run_killed_in_each_phase_ends_as_if_it_had_not_been(tmp_path):
    whole = uninterrupted(tmp_path / "whole", small_run(steps=24))
    strikes = [
        Strike("step", count=3),
        Strike("save", count=2, delay=whole.saving / 2),
        Strike("loaded"),
        Strike("delete"),
        Strike("look"),
    ]
    planned = len(strikes)
    assert len(resumed(tmp_path / "killed", whole, strikes, batch=0.1)) == planned
    assert not strikes


def moment(chance: random.Random, saving: float) -> Strike:
    """A random moment: half of them in a save, some while old checkpoints are deleted or just after loading."""
    kind = chance.choices(("save", "delete", "loaded", "look", "step"), (10, 2, 2, 2, 5))[0]
    match kind:
        case "save":
            return Strike("save", chance.randint(1, 4), chance.uniform(0, saving))
        case "delete":
            return Strike("delete", chance.randint(1, 3), chance.uniform(0, 0.002))
        case "loaded":
            return Strike("loaded", 1, chance.uniform(0, 0.05))
        case "look":
            return Strike("look", chance.randint(1, 2), chance.uniform(0, 0.01))
        case _:
            return Strike("step", chance.randint(1, 9), chance.uniform(0, 0.03))


@pytest.mark.slow
def test_fifty_kills(tmp_path):
    chance = random.Random(0)
    whole = uninterrupted(tmp_path / "whole", larger_run(steps=100))
    chains: list[list[Fate]] = []
    while (left := 50 - sum(map(len, chains))) > 0:
        strikes = [moment(chance, whole.saving) for _ in range(min(CHAIN, left))]
        run = len(chains)
        chains.append(resumed(tmp_path / str(run), whole, strikes, workers=run % 2))
    fates = [fate for chain in chains for fate in chain]
    phases = Counter(fate.phase for fate in fates)
    inside = phases["saving"] + phases["deleting"]
    assert inside >= 20
    named = ", ".join(f"{count} {phase}" for phase, count in phases.most_common())
    print(
        f"\nA1, A8, A14: {len(fates)}/{len(fates)} kill -9 resumed, {inside} of them inside a save ({named}), "
        f"in {len(chains)} runs with up to {max(map(len, chains))} each; {len(chains) * len(whole.lines)} lines of "
        "losses: 0 bits differ; weights, average, optimizer and counters: sha256 equal"
    )
