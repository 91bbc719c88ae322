"""Of two runs started in one folder at once, one writes and the other is refused; a holder that is gone holds nothing.
Row A12.

The long run: python -m pytest tests/reliability/test_writers.py -m slow -s
"""

from __future__ import annotations

import json
import os
import re
import socket
import time
from pathlib import Path

import pytest

from nova.lock import run_lock
from tests.reliability.strike import Fate, finish, lived, process
from tests.reliability.victims import Manner, contending, small_run, trained
from tests.training.toy import metrics

RUN = small_run(steps=2)
LEAD = 0.2
"""Seconds until both start: by then both processes are there."""


def contended(folder: Path, lines: list[str]) -> None:
    """Start two runs at once; exactly one may write, and must end as if it had been alone."""
    start, fates = time.time() + LEAD, (Fate(), Fate())
    with process(contending, folder, RUN, start) as first, process(contending, folder, RUN, start) as second:
        for fate, (_, pipe) in zip(fates, (first, second), strict=True):
            fate.hear(pipe)
        holding = [fate.count("holding") == 1 for fate in fates]
        assert sorted(holding) == [False, True]
        winner, loser = (holding.index(is_holding) for is_holding in (True, False))
        refused = fates[loser].told["refused"]
        assert re.match(rf"{re.escape(str(folder))}: another run writes here", refused)
        one, pipe = (first, second)[winner]
        pipe.send("go on")
        finish(one, pipe, fates[winner])
    assert fates[winner].code == 0
    assert metrics(folder) == lines


@pytest.fixture(scope="module")
def alone(tmp_path_factory) -> list[str]:
    folder = tmp_path_factory.mktemp("alone")
    lived(trained, folder, RUN, Manner())
    return metrics(folder)


def test_of_two_starts_at_once_one_writes(tmp_path, alone):
    for number in range(3):
        contended(tmp_path / str(number), alone)


@pytest.mark.slow
def test_of_two_starts_at_once_one_writes_a_hundred_times(tmp_path, alone):
    for number in range(100):
        contended(tmp_path / str(number), alone)
    print("\nA12: 100/100 pairs of starts: exactly one writer, no file mixed")


def test_the_holder_is_named_and_holds_no_longer_than_it_lives(tmp_path):
    with process(contending, tmp_path, RUN, 0.0) as (one, pipe):
        Fate().hear(pipe)
        fate = lived(contending, tmp_path, RUN, 0.0)
        assert f"host {socket.gethostname()}, process {one.pid}, since 20" in fate.told["refused"]
        one.kill()
        one.join()
        with run_lock(tmp_path):
            pass


def test_a_lock_file_that_a_dead_run_left_is_no_lock(tmp_path):
    (tmp_path / ".lock").write_text(json.dumps({"host": "elsewhere", "pid": 1, "started": "2026-01-01T00:00:00+00:00"}))
    with run_lock(tmp_path):
        assert json.loads((tmp_path / ".lock").read_text())["pid"] == os.getpid()
