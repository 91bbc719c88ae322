"""Metrics are whole JSON lines, one a step, also after a kill."""

import json

from nova.training.log import METRICS, RunLog, drop_after


def steps(path):
    return [json.loads(line)["step"] for line in path.read_text().splitlines()]


def test_lines_beyond_the_step_and_cut_lines_are_dropped(tmp_path):
    path = tmp_path / METRICS
    whole = "".join(json.dumps({"step": step}) + "\n" for step in range(1, 6))
    for cut in range(len(whole)):
        path.write_text(whole[:cut])
        drop_after(path, 3)
        assert steps(path) == [step for step in (1, 2, 3) if step <= whole[:cut].count("\n")]


def test_a_run_without_metrics_has_nothing_to_drop(tmp_path):
    drop_after(tmp_path / METRICS, 3)
    assert not (tmp_path / METRICS).exists()


def test_numbers_are_kept_to_the_last_bit_and_what_is_none_is_null(tmp_path):
    with RunLog(tmp_path, "toy", 0, 2, 8, quiet=True) as log:
        log.metrics(1, {"loss": 0.1 + 0.2, "learning_rate": 1e-3 / 3})
        log.metrics(2, {"loss": float("nan"), "learning_rate": 0.0})
    first, second = (json.loads(line) for line in (tmp_path / METRICS).read_text().splitlines())
    assert (first["step"], first["loss"], first["learning_rate"]) == (1, 0.1 + 0.2, 1e-3 / 3)
    assert second["loss"] is None


def test_a_run_goes_on_in_the_same_file(tmp_path):
    for start in (0, 1):
        with RunLog(tmp_path, "toy", start, 3, 8, quiet=True) as log:
            for step in range(start + 1, 4):
                log.metrics(step, {"loss": 1.0, "learning_rate": 0.0})
    assert steps(tmp_path / METRICS) == [1, 2, 3]
