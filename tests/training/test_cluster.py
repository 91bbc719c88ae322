"""Processes that share a run make the numbers of one process, save what any other number can load, and end together.

The long run: python -m pytest tests/training/test_cluster.py -m slow -s
"""

import itertools
import json
import random
import signal
import time
from pathlib import Path

import pytest

from nova.training.checkpoint import checkpoints
from nova.training.cluster import Cluster
from nova.training.train import CHECKPOINTS
from tests.training.ranks import config_of, plain, task_of, together, told


def losses(folder: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (folder / "metrics.jsonl").read_text().splitlines()]


def saved(folder: Path) -> list[int]:
    return [step for step, _ in checkpoints(folder / CHECKPOINTS)]


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """Losses of the run in one process."""
    folder = tmp_path_factory.mktemp("alone")
    plain(Cluster(), folder, config_of([]))
    return losses(folder)


def test_shares_are_disjoint_and_complete():
    for size in (1, 2, 4):
        places = [place for rank in range(size) for place in Cluster(rank, size).share(8)]
        assert places == list(range(8))


@pytest.mark.parametrize("sharding", ["none", "full"])
def test_two_processes_are_one_run(tmp_path, alone, sharding):
    one, other = told(together(2, "plain", tmp_path, f"sharding={sharding}", "micro_batch=1"))
    assert one["average"] == other["average"]
    assert not set(one["samples"]) & set(other["samples"])
    assert [*one["samples"], *other["samples"]] == task_of(config_of([])).ids(0, range(4))
    assert losses(tmp_path) == pytest.approx(alone, rel=1e-5)
    assert saved(tmp_path) == [2, 4, 6]


@pytest.mark.parametrize("sharding", [pytest.param("none", marks=pytest.mark.slow), "full"])
def test_one_process_goes_on_with_what_two_saved_and_two_with_that(tmp_path, alone, sharding):
    settings = [f"sharding={sharding}", "optimizer.schedule_steps=6"]
    told(together(2, "plain", tmp_path, *settings, "steps=2"))
    plain(Cluster(), tmp_path, config_of([*settings, "steps=4"]))
    one, other = told(together(2, "plain", tmp_path, *settings))
    assert one["average"] == other["average"]
    assert losses(tmp_path) == pytest.approx(alone, rel=1e-5)


def test_a_signal_to_one_process_stops_all_at_the_same_step(tmp_path):
    for found in told(together(2, "signalled", tmp_path)):
        assert (found["step"], found["stopped"]) == (3, signal.SIGTERM)
    assert saved(tmp_path) == [2, 3]


def test_a_bad_sample_of_one_process_is_skipped_by_all(tmp_path, alone):
    one, other = told(together(2, "spoiled", tmp_path))
    assert one["average"] == other["average"]
    assert one["skipped"] == other["skipped"] == 1
    found = losses(tmp_path)
    assert found[2] is None
    assert found[:2] == pytest.approx(alone[:2], rel=1e-5)


def test_a_process_that_dies_ends_the_others_soon(tmp_path, alone):
    main, dead = together(2, "failing", tmp_path)
    assert dead.returncode == -signal.SIGKILL
    assert main.returncode == 5
    assert "nova: step 2: another process of the run is gone" in main.stderr
    assert saved(tmp_path) == [2]
    plain(Cluster(), tmp_path, config_of([]))
    assert losses(tmp_path) == pytest.approx(alone, rel=1e-5)


@pytest.mark.slow
def test_forty_failures_end_all_processes_and_the_run_goes_on(tmp_path, alone, monkeypatch):
    chance, longest, number = random.Random(0), 0.0, 40
    manners = itertools.cycle(["killed", "raises", "memory"])
    for one, manner in zip(range(number), manners, strict=False):
        (folder := tmp_path / str(one)).mkdir()
        rank = chance.randrange(2)
        monkeypatch.setenv("FAILS", f"{rank} {chance.randrange(6)} {manner}")
        start = time.monotonic()
        done = together(2, "failing", folder)
        longest = max(longest, time.monotonic() - start)
        assert all(process.returncode not in (0, None) for process in done)
        assert {"killed": "", "raises": "planted", "memory": "not enough memory"}[manner] in done[rank].stderr
        assert "another process of the run is gone" in done[1 - rank].stderr
        plain(Cluster(), folder, config_of([]))
        assert losses(folder) == pytest.approx(alone, rel=1e-5)
    print(f"\nE7: {number}/{number} failures of one of two processes ended both, within {longest:.0f} s of the launch;")
    print("every run went on to the losses of one without")
