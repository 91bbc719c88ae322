"""Whatever a tracker does, a run's numbers are the same and the user is told once."""

import sys
import threading

import numpy as np
import pytest

from nova.training import log as reports
from nova.training import trackers
from nova.training.train import Observer, train
from tests.training.toy import everything, metrics, toy, toy_run, toy_task

CANARY = "canary0123456789"


class Recorder:
    """A tracker that keeps what it is told."""

    def __init__(self, run):
        self.run = run
        self.told = []
        Recorder.last = self

    def figures(self, step, figures):
        self.told.append((step, dict(figures)))

    def picture(self, step, name, picture):
        self.told.append((step, name, picture.shape))

    def close(self):
        self.told.append("closed")


class FailsAtStart(Recorder):
    def __init__(self, run):
        raise ConnectionError(f"no network, token={CANARY}\nand a second line")


class Missing(Recorder):
    def __init__(self, run):
        import nothing_of_this_name  # noqa: F401


class Exits(Recorder):
    def __init__(self, run):
        sys.exit("log in first")


class Hangs(Recorder):
    def __init__(self, run):
        threading.Event().wait()


class FailsLater(Recorder):
    def figures(self, step, figures):
        if step == 3:
            raise OSError(28, "No space left on device")


class Sticks(Recorder):
    def figures(self, step, figures):
        threading.Event().wait()


class FailsAtTheEnd(Recorder):
    def close(self):
        raise RuntimeError("upload failed")


BROKEN = [FailsAtStart, Missing, Exits, Hangs, FailsLater, Sticks, FailsAtTheEnd]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """State and metrics of a run without trackers."""
    folder = tmp_path_factory.mktemp("whole")
    outcome = train(toy_task(toy()), toy_run(trackers=[]), folder, quiet=True)
    return everything(outcome.state), metrics(folder)


def use(monkeypatch, tracker):
    monkeypatch.setattr(trackers, "TRACKERS", {"tensorboard": tracker})


@pytest.mark.parametrize("tracker", BROKEN)
def test_a_broken_tracker_changes_nothing_and_is_told_once(tmp_path, whole, monkeypatch, capsys, tracker):
    use(monkeypatch, tracker)
    if tracker in (Hangs, Sticks):
        monkeypatch.setattr(trackers, "START_SECONDS", 0.2)
        monkeypatch.setattr(reports, "CLOSE_SECONDS", 0.2)
    outcome = train(toy_task(toy()), toy_run(), tmp_path, quiet=True)
    assert (everything(outcome.state), metrics(tmp_path)) == whole
    said = capsys.readouterr().err
    assert said.count("tensorboard is left out from here on") == 1
    assert len(said.splitlines()) == 1
    assert CANARY not in said


def test_a_tracker_that_falls_behind_is_left_out_and_holds_little(tmp_path, whole, monkeypatch, capsys):
    use(monkeypatch, Sticks)
    monkeypatch.setattr(trackers, "BACKLOG", 3)
    outcome = train(toy_task(toy()), toy_run(), tmp_path, quiet=True)
    assert (everything(outcome.state), metrics(tmp_path)) == whole
    assert capsys.readouterr().err.count("it is behind with 3 reports") == 1


def test_a_missing_tracker_says_how_to_get_it(tmp_path, monkeypatch, capsys):
    use(monkeypatch, Missing)
    train(toy_task(toy()), toy_run(steps=1), tmp_path, quiet=True)
    assert "pip install 'nova-video[train]'" in capsys.readouterr().err


def test_a_working_tracker_gets_everything_in_order(tmp_path, whole, monkeypatch, capsys):
    use(monkeypatch, Recorder)

    def look(model, step, log):
        log.observed(step, {"held_out/loss": 1.5})
        log.images(step, "samples", np.zeros((4, 5, 3), np.uint8))

    outcome = train(toy_task(toy()), toy_run(), tmp_path, quiet=True, observer=Observer(6, look))
    assert everything(outcome.state) == whole[0]
    told = Recorder.last.told
    assert [one[0] for one in told[:-1]] == [*range(1, 7), 6, 6, *range(7, 13), 12, 12]
    assert told[6:8] == [(6, {"held_out/loss": 1.5}), (6, "samples", (4, 5, 3))]
    assert told[-1] == "closed"
    assert {"loss", "learning_rate", "gradient_norm", "samples_per_second"} <= told[0][1].keys()
    assert capsys.readouterr() == ("", "")


def test_a_tracker_prints_nothing_on_standard_output(tmp_path, monkeypatch, capsys):
    class Chatty(Recorder):
        def __init__(self, run):
            super().__init__(run)
            print("welcome")

        def close(self):
            print("goodbye")

    use(monkeypatch, Chatty)
    train(toy_task(toy()), toy_run(steps=1), tmp_path, quiet=True)
    assert capsys.readouterr() == ("", "welcome\ngoodbye\n")


def test_a_resumed_run_is_the_same_run_to_a_tracker(tmp_path):
    first = trackers.TrackedRun(tmp_path / "a b", 0, "nova", {})
    (tmp_path / "a b").mkdir()
    name = first.id
    assert trackers.TrackedRun(tmp_path / "a b", 7, "nova", {}).id == name
    assert name.startswith("a-b-")


def test_tensorboard_gets_figures_and_pictures(tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    run = trackers.TrackedRun(tmp_path, 0, "nova", {})
    board = trackers.TensorBoard(run)
    for step in (1, 2, 3):
        board.figures(step, {"loss": 1 / step})
    board.picture(3, "samples", np.zeros((4, 5, 3), np.uint8))
    board.close()
    again = trackers.TensorBoard(trackers.TrackedRun(tmp_path, 2, "nova", {}))
    again.figures(3, {"loss": 0.25})
    again.close()
    found = accumulator.EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [(event.step, event.value) for event in found.Scalars("loss")] == [(1, 1.0), (2, 0.5), (3, 0.25)]
