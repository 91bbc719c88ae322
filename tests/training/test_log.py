"""What a run reports: whole lines that go on after a kill, and nothing from a process that does not speak for it."""

import json
import sys

import numpy as np

from nova.training.log import METRICS, SKIPPED, RunLog
from tests.training.toy import toy_run

FIGURES = {"loss": 0.1 + 0.2, "learning_rate": 1e-3 / 3}


def run_log(folder, start=0, main=True):
    return RunLog(folder, "toy", start, toy_run(steps=3, trackers=[]), quiet=True, main=main)


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_metrics_tell_the_step_the_figures_and_the_speed(tmp_path):
    with run_log(tmp_path) as log:
        log.metrics(1, FIGURES)
    (line,) = lines(tmp_path / METRICS)
    assert line.pop("samples_per_second") > 0
    assert line == {"step": 1, **FIGURES}


def test_a_run_goes_on_in_the_same_files(tmp_path):
    for start in (0, 1):
        with run_log(tmp_path, start) as log:
            for step in range(start, 3):
                log.skipped(step, float("nan"), 1.0, ["a"])
                log.metrics(step + 1, FIGURES)
                log.observed(step + 1, {"held_out/loss": 2.0})
                log.sync()
    assert [line["step"] for line in lines(tmp_path / METRICS)] == [1, 1, 2, 2, 3, 3]
    assert [line["step"] for line in lines(tmp_path / SKIPPED)] == [1, 2, 3]


def test_a_skipped_step_names_its_samples(tmp_path, capsys):
    ids = [f"clip-{number}" for number in range(50)]
    with run_log(tmp_path) as log:
        log.skipped(0, float("nan"), 2.5, ids[:20])
        log.skipped(1, 1.5, float("inf"), ids)
    first, second = capsys.readouterr().err.splitlines()
    assert first == f"step 1 is left out: loss nan, gradient norm 2.5, samples {', '.join(ids[:20])}"
    assert second == (
        f"step 2 is left out: loss 1.5, gradient norm inf, samples {', '.join(ids[:20])} and 30 more in {SKIPPED}"
    )
    assert lines(tmp_path / SKIPPED)[1] == {"step": 2, "loss": 1.5, "gradient_norm": None, "samples": ids}


def test_long_lines_are_not_wrapped_and_brackets_are_no_markup(tmp_path, capsys):
    with run_log(tmp_path) as log:
        log.say(line := "[red]" + "x" * 300)
    assert capsys.readouterr().err == f"{line}\n"


def test_a_process_that_is_not_the_main_one_does_nothing(tmp_path, capsys):
    with run_log(tmp_path, main=False) as log:
        log.say("a line")
        log.advance(1)
        log.metrics(1, FIGURES)
        log.observed(1, FIGURES)
        log.images(1, "samples", np.zeros((2, 2, 3), np.uint8))
        log.skipped(1, 0.0, 0.0, ["a"])
        log.sync()
    assert list(tmp_path.iterdir()) == []
    assert capsys.readouterr() == ("", "")


def test_the_bar_is_for_terminals_and_shows_what_matters(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    with RunLog(tmp_path, "toy", 0, toy_run(steps=3, trackers=[]), quiet=False) as log:
        log.metrics(1, FIGURES)
        log.advance(1)
    shown = capsys.readouterr().err
    assert all(part in shown for part in ("toy", "1/3", "loss 0.3000", "rate 3.3e-04", "samples/s", ":"))
