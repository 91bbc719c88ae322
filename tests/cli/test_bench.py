"""`nova bench`: one JSON object or a table, of a model or of random weights, and errors in one line."""

from __future__ import annotations

import json

import pytest

from nova import cli, machine

FEW = ("--steps", "1", "--diffusion-steps", "1", "--rounds", "1", "--threads", "1", "--device", "cpu")


@pytest.fixture(autouse=True)
def _small_products(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(machine._MATRIX, "cpu", 128)
    monkeypatch.setitem(machine._COPIED, "cpu", 1 << 20)


def test_random_weights_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["bench", "--random", "tiny-image", "--batch", "2", "--json", *FEW]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["model"] == "tiny-image (random weights)"
    assert (found["frames"], found["height"], found["width"]) == (1, 64, 64)
    assert found["setting"]["batch"] == 2
    assert found["table"]["seconds"]["median"] > 0


def test_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["bench", "--random", "tiny", "--size", "32x32", "--frames", "1", *FEW]) == 0
    printed = capsys.readouterr().out
    assert "1 x 32 x 32" in printed
    assert "times the limit" in printed


def test_errors_are_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["bench", "--random", "0.6B-t2v-481"]) == 2
    assert cli.main(["bench", "--random", "tiny", "--model", "somewhere"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("nova: error: --random: no model '0.6B-t2v-481'; did you mean '0.6B-t2v-480'")
    assert lines[1] == "nova: error: --model somewhere and --random tiny: give one of them"
