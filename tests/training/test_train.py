"""The loop: what it does is a function of seed and step, whatever happens in between."""

import dataclasses
import json
import os
import signal

import pytest
import torch

from nova.errors import CheckpointError, DataError, UsageError
from nova.training import checkpoint
from nova.training import train as loop
from nova.training.config import OptimizerConfig
from nova.training.state import TrainState
from nova.training.train import train
from tests.training.toy import everything, metrics, toy, toy_run, toy_task


class Killed(BaseException):
    """Stands for kill -9: nothing catches it."""


def killed_at(task, step):
    def batch(now, places):
        if now == step:
            raise Killed
        return task.batch(now, places)

    return dataclasses.replace(task, batch=batch)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """State and metrics of a run that nothing interrupted."""
    folder = tmp_path_factory.mktemp("whole")
    outcome = train(toy_task(toy()), toy_run(), folder, quiet=True)
    assert outcome.stopped is None
    return everything(outcome.state), metrics(folder)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_run_learns(tmp_path, precision):
    train(toy_task(toy()), toy_run(steps=80, precision=precision), tmp_path, quiet=True)
    losses = [json.loads(line)["loss"] for line in metrics_of(tmp_path)]
    assert losses[-1] < losses[0] / 2


def metrics_of(folder):
    return (folder / "metrics.jsonl").read_text().splitlines()


def test_the_same_seed_gives_the_same_run(tmp_path, whole):
    outcome = train(toy_task(toy()), toy_run(), tmp_path, quiet=True)
    assert (everything(outcome.state), metrics(tmp_path)) == whole


@pytest.mark.parametrize("kills", [[0], [3], [4], [5], [11], [2, 6, 7, 10]])
def test_a_killed_run_goes_on_as_if_it_had_not_been(tmp_path, whole, kills):
    def task():
        """Once there is a checkpoint, first weights must not matter."""
        saved = any(tmp_path.glob("checkpoints/step-*"))
        return toy_task(toy(seed=1 if saved else 0))

    for step in kills:
        with pytest.raises(Killed):
            train(killed_at(task(), step), toy_run(), tmp_path, quiet=True)
    outcome = train(task(), toy_run(), tmp_path, quiet=True)
    assert (everything(outcome.state), metrics(tmp_path)) == whole


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("step", [0, 5, 7])
def test_a_signal_finishes_the_step_saves_and_stops(tmp_path, whole, number, step):
    task = toy_task(toy())

    def batch(now, places):
        if now == step:
            os.kill(os.getpid(), number)
        return task.batch(now, places)

    before = signal.getsignal(number)
    outcome = train(dataclasses.replace(task, batch=batch), toy_run(), tmp_path, quiet=True)
    assert outcome.stopped == number
    assert outcome.state.step == step + 1
    assert (tmp_path / "checkpoints" / f"step-{step + 1}").is_dir()
    assert signal.getsignal(number) is before
    outcome = train(toy_task(toy()), toy_run(), tmp_path, quiet=True)
    assert (everything(outcome.state), metrics(tmp_path)) == whole


def test_a_damaged_checkpoint_is_told_and_the_run_is_the_same(tmp_path, whole, capsys):
    train(toy_task(toy()), toy_run(), tmp_path, quiet=True)
    file = max((tmp_path / "checkpoints" / "step-12").glob("*.safetensors"))
    file.write_bytes(file.read_bytes()[:-1])
    outcome = train(toy_task(toy(seed=3)), toy_run(), tmp_path, quiet=True)
    assert "skipped a damaged checkpoint" in capsys.readouterr().err
    assert (everything(outcome.state), metrics(tmp_path)) == whole


def test_no_valid_checkpoint_is_no_fresh_start(tmp_path):
    train(toy_task(toy()), toy_run(), tmp_path, quiet=True)
    for step in (8, 12):
        (tmp_path / "checkpoints" / f"step-{step}" / "manifest.json").write_text("{}")
    with pytest.raises(CheckpointError, match="no valid checkpoint"):
        train(toy_task(toy()), toy_run(), tmp_path, quiet=True)


def test_a_step_without_a_finite_loss_changes_nothing_and_is_counted(tmp_path, capsys):
    one = toy_run(steps=1)
    clean, spoiled = toy(), toy()
    expected = everything(TrainState.start(clean, one.optimizer))
    outcome = train(toy_task(spoiled, spoiled=frozenset([0])), one, tmp_path, quiet=True)
    found = everything(outcome.state)
    assert (found.pop("step"), found.pop("skipped"), found.pop("skipped_in_row")) == (1, 1, 1)
    assert found == {name: value for name, value in expected.items() if name in found}
    line = json.loads(metrics_of(tmp_path)[0])
    assert line["loss"] is None
    assert line["skipped"] == 1
    assert "0-0, 0-1" in capsys.readouterr().err


def test_a_gradient_that_is_not_finite_is_skipped_too(tmp_path):
    model = toy()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.inner.weight.register_hook(lambda gradient: gradient * float("inf"))
    outcome = train(toy_task(model), toy_run(steps=3), tmp_path, quiet=True)
    assert outcome.state.skipped == 3
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_the_run_goes_on_after_a_skipped_step(tmp_path):
    outcome = train(toy_task(toy(), spoiled=frozenset([2, 3, 7])), toy_run(max_skipped=3), tmp_path, quiet=True)
    assert outcome.stopped is None
    assert outcome.state.skipped == 3
    assert outcome.state.skipped_in_row == 0


def test_too_many_skipped_steps_in_a_row_stop_the_run(tmp_path):
    task = toy_task(toy(), spoiled=frozenset(range(5, 100)))
    with pytest.raises(DataError, match="3 steps in a row, up to step 8"):
        train(task, toy_run(max_skipped=3), tmp_path, quiet=True)
    assert [step for step, _ in checkpoint.checkpoints(tmp_path / "checkpoints")] == [4]


@pytest.mark.parametrize("changes", [{"micro_batch": 2}, {"micro_batch": 1, "workers": 2}])
def test_a_split_batch_is_the_same_step(tmp_path, whole, changes):
    outcome = train(toy_task(toy()), toy_run(**changes), tmp_path, quiet=True)
    lines = [json.loads(line + "}") for line in metrics(tmp_path)]
    for line, expected in zip(lines, (json.loads(line + "}") for line in whole[1]), strict=True):
        assert line == pytest.approx(expected, rel=1e-5)
    assert outcome.state.step == 12


def test_a_batch_that_does_not_split_is_refused(tmp_path):
    with pytest.raises(UsageError, match="batch_size: 8 samples.*multiple of 3, or micro_batch smaller"):
        train(toy_task(toy()), toy_run(micro_batch=3), tmp_path, quiet=True)


def test_what_is_frozen_stays(tmp_path):
    model = toy()
    before = {name: tensor.clone() for name, tensor in model.named_parameters()}
    train(toy_task(model), toy_run(freeze=["in*", "norm.bias"]), tmp_path, quiet=True)
    moved = {name for name, tensor in model.named_parameters() if not torch.equal(tensor, before[name])}
    assert moved == {"table.weight", "norm.weight", "start"}


def test_a_pattern_that_freezes_nothing_is_refused(tmp_path):
    with pytest.raises(UsageError, match="freeze: 'iner.*' matches no module"):
        train(toy_task(toy()), toy_run(freeze=["iner.*"]), tmp_path, quiet=True)


def test_an_observer_sees_the_averaged_model_and_changes_nothing(tmp_path, whole):
    seen = []

    def look(model, step, log):
        torch.rand(3)
        seen.append((step, model.training, model.inner.weight.clone()))
        with torch.no_grad():
            model.inner.weight.zero_()

    outcome = train(toy_task(toy()), toy_run(), tmp_path, quiet=True, observer=loop.Observer(5, look))
    assert [step for step, *_ in seen] == [5, 10, 12]
    assert not any(training for _, training, _ in seen)
    assert torch.equal(seen[-1][2], outcome.state.ema.shadows["inner.weight"])
    assert (everything(outcome.state), metrics(tmp_path)) == whole


def test_the_optimizer_gets_the_mean_gradient_clipped(tmp_path):
    def remembered(folder, clip_norm):
        (tmp_path / folder).mkdir()
        optimizer = OptimizerConfig(clip_norm=clip_norm, beta1=0.5)
        state = train(toy_task(toy()), toy_run(steps=1, optimizer=optimizer), tmp_path / folder, quiet=True).state
        moments = [one["exp_avg"] for one in state.optimizer.state.values()]
        return 2 * float(torch.cat([moment.flatten() for moment in moments]).norm())

    norm = remembered("free", 1e9)
    told = json.loads((tmp_path / "free" / "metrics.jsonl").read_text().splitlines()[0])
    assert norm == pytest.approx(told["gradient_norm"], rel=1e-4)
    assert remembered("clipped", norm / 4) == pytest.approx(norm / 4, rel=1e-4)
