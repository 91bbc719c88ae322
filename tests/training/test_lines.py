"""Lines are whole, one a step in order, also after a kill and on a disk that was full for a while."""

import errno
import json
import os

import pytest

from nova.training.lines import StepLines, drop_after


def steps(path):
    return [json.loads(line)["step"] for line in path.read_text().splitlines()]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "lines.jsonl"


def test_lines_beyond_the_step_and_cut_lines_are_dropped(path):
    whole = "".join(json.dumps({"step": step}) + "\n" for step in range(1, 6))
    for cut in range(len(whole)):
        path.write_text(whole[:cut])
        drop_after(path, 3)
        assert steps(path) == [step for step in (1, 2, 3) if step <= whole[:cut].count("\n")]


def test_without_a_file_there_is_nothing_to_drop(path):
    drop_after(path, 3)
    assert not path.exists()


def test_numbers_are_kept_to_the_last_bit_and_what_is_none_is_null(path):
    lines = StepLines(path, 0, pytest.fail)
    lines.write(1, {"a": 0.1 + 0.2, "names": ["x"]})
    lines.write(2, {"a": float("nan"), "b": float("inf")})
    lines.close()
    first, second = (json.loads(line) for line in path.read_text().splitlines())
    assert first == {"step": 1, "a": 0.1 + 0.2, "names": ["x"]}
    assert second == {"step": 2, "a": None, "b": None}


@pytest.mark.parametrize("taken", [0, 1, 17])
def test_a_full_disk_is_told_once_and_loses_no_line(path, monkeypatch, taken):
    """The disk takes `taken` more bytes, then none, then has room again."""
    write, said, room = os.write, [], [taken]

    def full(file, data):
        if not room[0]:
            raise OSError(errno.ENOSPC, "No space left on device")
        written = write(file, data[: room[0]])
        room[0] -= written
        return written

    lines = StepLines(path, 0, said.append)
    monkeypatch.setattr(os, "write", full)
    for step in (1, 2, 3):
        lines.write(step, {"a": 0.5})
    monkeypatch.setattr(os, "write", write)
    lines.write(4, {"a": 0.5})
    lines.close()
    assert steps(path) == [1, 2, 3, 4]
    assert len(said) == 1
    assert "no space left" in said[0]


def test_a_disk_that_cannot_flush_is_told_once(path, monkeypatch):
    def failing(file):
        raise OSError(errno.EIO, "Input/output error")

    said = []
    lines = StepLines(path, 0, said.append)
    monkeypatch.setattr(os, "fsync", failing)
    lines.write(1, {})
    lines.sync()
    lines.sync()
    lines.close()
    assert len(said) == 1
    assert steps(path) == [1]
