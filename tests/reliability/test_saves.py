"""A save that ends at any system call, by a kill or a power cut, leaves as many valid checkpoints as there were, and
the newest of them is the old one or the new one. Rows A2 and A3 of the catalogue.

The long run: python -m pytest tests/reliability/test_saves.py -m slow -s
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from nova.training import checkpoint
from nova.training.cluster import Cluster
from tests.reliability.syscalls import (
    BEFORE,
    KEEP,
    NEW,
    Call,
    contents,
    is_durable,
    needs_strace,
    power_cut,
    restored,
    state_at,
    traced,
)

pytestmark = needs_strace


@dataclass(frozen=True)
class Watched:
    """A save that nothing disturbed: its folder, the folder as it was before, and its calls."""

    folder: Path
    before: Path
    calls: list[Call]

    @property
    def published(self) -> int:
        """The place of the call that gives the checkpoint its name."""
        return next(place for place, call in enumerate(self.calls) if call.target == self.folder / f"step-{NEW}")


@pytest.fixture(scope="module")
def watched(tmp_path_factory) -> Watched:
    folder, before = (tmp_path_factory.mktemp(name) / "checkpoints" for name in ("saved", "before"))
    for step in BEFORE:
        checkpoint.save(state_at(step), before, KEEP, Cluster())
    fate, calls = traced(folder)
    assert fate.told == {}
    assert restored(folder) == (contents(NEW), {})
    return Watched(folder, before, calls)


def check(folder: Path) -> int:
    """The step that a new process goes on from in `folder`, which must be as a save may leave it, and work on."""
    paths = [path for _, path in checkpoint.checkpoints(folder)]
    assert sum(checkpoint.fault(path, Cluster()) is None for path in paths) >= KEEP
    found, faults = restored(folder)
    assert faults == {}
    assert found in (contents(BEFORE[-1]), contents(NEW))
    checkpoint.save(state_at(NEW + 1), folder, KEEP, Cluster())
    assert restored(folder) == (contents(NEW + 1), {})
    return found["step"]


def test_data_are_durable_before_their_name_and_deletions_come_after_it(watched):
    made, named = watched.calls, watched.published
    written = {call.path for call in made if call.name == "write"}
    assert len(written) >= 5  # three files of tensors, the counters, the manifest
    aside = made[named].path
    assert {path.parent for path in written} == {aside}
    assert [path for path in written if not is_durable(made[:named], path)] == []
    created = max(place for place, call in enumerate(made) if call.name == "openat")
    assert Call("fsync", made[named - 1].number, aside) in made[created:named]
    deleted = min(place for place, call in enumerate(made) if call.name in ("unlink", "unlinkat", "rmdir"))
    assert watched.folder in [call.path for call in made[named:deleted] if call.name == "fsync"]


def killed(folder: Path, call: Call) -> int:
    """Have a save killed as it begins `call`; the step that is gone on from."""
    fate, _ = traced(folder, f"{call.name}:signal=KILL:when={call.number}")
    assert fate.killed, call
    return check(folder)


def test_a_save_killed_at_its_decisive_calls(tmp_path, watched):
    made, named = watched.calls, watched.published
    first_write = next(call for call in made if call.name == "write")
    first_deletion = next(call for call in made if call.name in ("unlink", "unlinkat"))
    found = [
        killed(tmp_path / str(place), call)
        for place, call in enumerate((first_write, made[named], made[named + 1], first_deletion))
    ]
    assert found == [2, 2, 3, 3]


@pytest.mark.slow
def test_a_save_killed_at_every_call(tmp_path, watched):
    found = [killed(tmp_path / str(place), call) for place, call in enumerate(watched.calls)]
    assert found == sorted(found)  # the old one up to some call, the new one from there on
    kinds = ", ".join(f"{count} {name}" for name, count in Counter(call.name for call in watched.calls).items())
    print(f"\nA2: killed at all {len(found)} of {len(found)} calls of a save ({kinds}): all valid")


def cut(tmp_path: Path, watched: Watched, places: Sequence[int], chance: random.Random) -> None:
    """Cut the power after so many calls of the save, as often as there are `places`."""
    new = watched.folder / f"step-{NEW}"
    for number, place in enumerate(places):
        disk = tmp_path / str(number)
        power_cut(watched.calls[:place], watched.before, new, watched.folder, disk, chance)
        step = check(disk)
        assert step == NEW or place <= watched.published + 1, "a save that had ended is lost"


def test_a_power_cut_in_a_save(tmp_path, watched):
    places = [0, watched.published, watched.published + 1, watched.published + 2, len(watched.calls)]
    cut(tmp_path, watched, places, random.Random(0))


@pytest.mark.slow
def test_two_hundred_power_cuts(tmp_path, watched):
    chance = random.Random(1)
    cut(tmp_path, watched, [chance.randint(0, len(watched.calls)) for _ in range(200)], chance)
    print("\nA3: no name before its data are durable; 200/200 simulated power cuts recovered")
