"""The comparison of training steps: it measures the step that the loop takes, and refuses times of unlike functions."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from pathlib import Path

import pytest
import torch

from nova.errors import ResourceError
from nova.models.nova import NovaTransformer
from nova.training.config import OptimizerConfig, RunConfig
from nova.training.task import Task
from nova.training.train import train
from nova.training.transformer import LatentBatch, TransformerObjective
from tests.benchmarks.here import SCRIPTS, Here

sys.path.insert(0, str(SCRIPTS))

import peer
import train_cases
import train_gpu
import train_step
from train_result import Agreement
from train_sides import Findings, Ours, Setting
from workers import Worker

TINY = ("tiny", "--starts", "2", "--rounds", "1", "--threads", "1", "--json")


def _setting(folder: Path) -> Setting:
    setting = Setting("tiny", 1, folder / "weights.safetensors", "float32", "cpu", 1)
    train_step.write_weights(setting)
    return setting


def test_without_a_folder_our_step_is_measured_alone(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train_step, "Worker", Here)
    train_step.main(TINY)
    printed = capsys.readouterr()
    found = json.loads(printed.out)
    assert "no --peer folder given" in printed.err
    assert found["published"] is None
    assert len(found["ours"]["seconds"]) == len(found["floor"]) == 2  # a round after each start
    assert min(map(min, found["ours"]["seconds"])) > 0
    table = 2 * 1000 * (256 + 64) * 64  # the times of all indices: as much for any batch, so the floor leaves it out
    assert found["counted"][0] - table == pytest.approx(found["checked_floor"], rel=0.01)


def test_both_sides_agree_and_are_measured(capsys: pytest.CaptureFixture[str]) -> None:
    folder = os.environ.get("NOVA_PEER")
    if folder is None:
        pytest.skip("NOVA_PEER does not name a folder of the published code")
    train_step.main([*TINY, "--peer", folder])
    found = json.loads(capsys.readouterr().out)
    assert found["agreement"]["loss"] < 1e-5
    assert found["table"]["seconds a step"]["ratio"]["median"] > 0
    assert found["counted"][1] > found["checked_floor"]


def test_a_worker_answers_passes_errors_on_and_says_when_it_died(tmp_path: Path) -> None:
    with Worker(Ours, _setting(tmp_path)) as worker:
        assert worker.ask("findings").losses.keys() == {"first", "later"}
        with pytest.raises(AttributeError, match="nonsense"):
            worker.ask("nonsense")
        worker.ask("start")
        seconds, loss = worker.ask("step", 0)
        assert seconds > 0
        assert loss > 0
        memory = worker.ask("memory")
        assert memory.peak is None or memory.peak > memory.before > 0
        worker._process.kill()
        with pytest.raises(ResourceError, match=r"ended with code -9 .* use a smaller --batch"):
            worker.ask("step", 1)


def test_a_folder_without_the_published_code_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="has no package 'diffnext'; name the folder of the published code"):
        train_step.main([*TINY, "--peer", str(tmp_path)])


def test_the_measured_step_is_that_of_the_training_loop(tmp_path: Path) -> None:
    setting = _setting(tmp_path)
    case, ours = setting.case, Ours(setting)
    ours.begin()
    for step in range(2):
        ours.train(ours.given(step))
        ours.average()

    model = NovaTransformer(case.shape)
    model.load_state_dict(train_cases.weights(case))
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not name.startswith(case.frozen))
    objective = TransformerObjective(model, case.scheduler.training, None, 1.0, 1.0)
    task: Task[LatentBatch] = Task(
        "step", model, objective, lambda step, places: train_cases.batch(case, step), lambda step, places: ["one"]
    )
    run = RunConfig(steps=2, batch_size=1, precision="float32", optimizer=OptimizerConfig())
    state = train(task, run, tmp_path, quiet=True).state
    for name, expected in state.ema.shadows.items():
        torch.testing.assert_close(ours.state.ema.shadows[name], expected, rtol=1e-5, atol=1e-7)


def test_the_published_code_is_told_our_draws() -> None:
    case = train_cases.case("tiny", 2)
    made = next(one for one in (train_cases.batch(case, step) for step in range(9)) if one.draws.known.shape[1])
    told, draws = peer.Told.of(made, case.shape.patch), made.draws
    known = draws.known.shape[1]
    frames, count, _ = told.scores.shape
    assert (frames, count) == (2 * 5, 16)
    assert round((1 - told.mask_ratio) * count) == known
    chosen = told.scores.squeeze(-1).argsort(dim=1)[:, :known]
    assert torch.equal(chosen.sort(dim=1).values, draws.known.sort(dim=1).values)
    assert torch.equal(told.indices.view(4, -1)[:, draws.unknown], draws.indices)
    assert torch.equal(told.noise.view(4, frames * count, -1)[:, draws.unknown], draws.noise)


def test_times_of_different_functions_are_refused() -> None:
    one = Findings({"first": 1.0, "later": 1.0}, {"a": 3.0, "b": 4.0, "c": 1e-9}, 10)
    assert Agreement.of(one, one) == Agreement(0.0, 0.0, "a")
    with pytest.raises(ValueError, match="compute different things"):
        Agreement.of(dataclasses.replace(one, losses={"first": 1.0, "later": 1.0002}), one)
    with pytest.raises(ValueError, match="compute different things"):
        Agreement.of(dataclasses.replace(one, losses={"first": 1.0, "later": float("nan")}), one)
    with pytest.raises(ValueError, match="compute different things"):
        Agreement.of(dataclasses.replace(one, gradient_norms={"a": 3.0, "b": 4.01, "c": 1e-9}), one)
    with pytest.raises(ValueError, match="only one side trains c"):
        Agreement.of(dataclasses.replace(one, gradient_norms={"a": 3.0, "b": 4.0}), one)
    noisy = dataclasses.replace(one, gradient_norms={"a": 3.0, "b": 4.0, "c": 2e-9})
    assert Agreement.of(noisy, one).gradient < 1e-4


def test_the_gpu_script_reports_what_worked_and_what_did_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "found.json"
    arguments = ["--device", "cpu", "--case", "tiny", "--batch", "1", "--eager", "--json", str(file)]
    train_gpu.main([*arguments, "--limit", "3000", "--budget", "3000"])
    found = json.loads(file.read_text())
    assert found["matrix_product"] > 0
    (variant,) = found["variants"]
    assert 0 < variant["utilisation"] < 1
    assert variant["samples_a_second"] == pytest.approx(1 / variant["step"])
    assert "samples/s" in capsys.readouterr().out

    train_gpu.main([*arguments, "--limit", "0"])
    assert "TimeoutError: not done within" in json.loads(file.read_text())["variants"][0]["error"]
