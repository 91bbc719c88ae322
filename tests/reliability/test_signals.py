"""A run that is asked to stop finishes its step, saves once and ends, whatever it is doing; asked twice, it ends now.
Row A10.

The long run: python -m pytest tests/reliability/test_signals.py -m slow -s
"""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path
from signal import SIGINT, SIGTERM, SIGUSR1

import pytest

from nova.training import checkpoint
from nova.training.cluster import Cluster
from nova.training.config import RunConfig
from nova.training.train import CHECKPOINTS
from tests.reliability.strike import Fate, Strike, lived
from tests.reliability.victims import Manner, small_run, trained
from tests.training.toy import metrics

STEPS = 32
GRACE = 30.0
"""Seconds that Slurm and Kubernetes give by default."""
WAITING = {"workers": 2}
QUICK, SLOW = Manner(batch=0.02, look=0.02), Manner(batch=0.2, look=0.02)
"""How runs behave that may end before they are asked to stop, and that may not."""


def stopped(folder: Path, config: RunConfig, strike: Strike, manner: Manner = QUICK) -> Fate:
    """Let a run be asked to stop. It must have lost nothing: neither of its own steps nor of those before."""
    fate = lived(trained, folder, config, manner, strikes=(strike,))
    assert fate.seconds < GRACE
    if fate.code != 0:  # before its first step there is nothing to be saved
        assert fate.count("step") == 0
        assert fate.code in (-strike.number, 1)
        return fate
    assert fate.told is not None
    step, newest = checkpoint.checkpoints(folder / CHECKPOINTS)[-1]
    assert step == fate.told["step"] == len(metrics(folder))
    assert checkpoint.fault(newest, Cluster()) is None
    if fate.told["stopped"] is not None:
        assert fate.told["stopped"] == strike.number
        assert fate.told["step"] < config.steps
    return fate


def unlike(folder: Path, config: RunConfig, whole: Fate, lines: list[str]) -> list[str]:
    """What of a run that was stopped and has now ended differs from the one that was not."""
    last = lived(trained, folder, config, Manner())
    assert last.told is not None
    differing = [name for name, value in last.told["state"].items() if whole.told["state"][name] != value]
    return differing + ([] if metrics(folder) == lines else ["losses"])


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> tuple[Fate, list[str]]:
    folder = tmp_path_factory.mktemp("whole")
    return lived(trained, folder, small_run(steps=STEPS), Manner()), metrics(folder)


def test_a_run_asked_to_stop_in_each_phase_loses_nothing(tmp_path, whole):
    asked = [
        (Strike("step", 2, number=SIGTERM), {}),
        (Strike("save", 1, number=SIGINT), {}),
        (Strike("look", 1, number=SIGUSR1), {}),
        (Strike("step", 3, 0.01, number=SIGUSR1), WAITING),
    ]
    for strike, changes in asked:
        fate = stopped(tmp_path, small_run(steps=STEPS, **changes), strike, SLOW)
        assert fate.told["stopped"] == strike.number
    assert unlike(tmp_path, small_run(steps=STEPS), *whole) == []


@pytest.mark.parametrize("number", [SIGTERM, SIGINT])
def test_a_second_signal_ends_a_run_at_once(tmp_path, number):
    strikes = (Strike("look", delay=0.0, number=SIGTERM), Strike("asked", delay=0.0, number=number))
    fate = lived(trained, tmp_path, small_run(steps=STEPS), Manner(look=60.0), strikes=strikes)
    assert fate.told is None
    assert fate.code == (-number if number == SIGTERM else 1)
    assert fate.seconds < 30  # of the 60 that looking would have taken
    assert [step for step, _ in checkpoint.checkpoints(tmp_path / CHECKPOINTS)] == [2]


def moment(chance: random.Random) -> tuple[Strike, dict]:
    """A random moment in one of the phases, and what its run is like."""
    number = chance.choice((SIGTERM, SIGINT, SIGUSR1))
    kind = chance.choice(("step", "waiting", "save", "look", "loaded"))
    if kind == "waiting":
        return Strike("step", chance.randint(3, 6), chance.uniform(0, 0.03), number), WAITING
    return Strike(kind, 1 if kind == "loaded" else chance.randint(1, 2), chance.uniform(0, 0.03), number), {}


@pytest.mark.slow
def test_a_hundred_signals(tmp_path, whole):
    chance = random.Random(0)
    fates: list[Fate] = []
    phases: Counter[str] = Counter()
    run = 0
    while len(fates) < 100:
        folder = tmp_path / str(run)
        while len(fates) < 100:
            strike, changes = moment(chance)
            fate = stopped(folder, small_run(steps=STEPS, **changes), strike)
            if fate.told is not None and fate.told["stopped"] is None:
                break
            fates.append(fate)
            phase = "waiting for data" if changes else str(fate.phase)
            phases[phase if fate.told is not None else "before the first step"] += 1
        assert unlike(folder, small_run(steps=STEPS), *whole) == []
        run += 1
    seconds = sorted(fate.seconds for fate in fates)
    named = ", ".join(f"{count} {phase}" for phase, count in phases.most_common())
    print(
        f"\nA10: {len(fates)}/{len(fates)} signals ({named}): all is saved, ended within {seconds[-1]:.2f} s, "
        f"99 of 100 within {seconds[98]:.2f} s; {run} runs, 0 steps lost, 0 bits differ"
    )
